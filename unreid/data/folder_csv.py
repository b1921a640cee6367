"""A CSV that says of each picture its camera, and perhaps its id and tracklet.

The file may come from anywhere: no path in it reaches outside the root, and whatever is wrong with
it is an error that names the line.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unreid.checks import nearest
from unreid.data.csv_cells import unguard_cell

_COLUMNS = ("path", "camera", "id", "tracklet")


class CsvRow(NamedTuple):
    """One picture: its path relative to the root, with forward slashes, and what is known."""

    path: str
    camera: str
    pid: str | None
    tracklet: str | None


def read_csv(file: str, root: str, suffixes: Sequence[str]) -> list[CsvRow]:
    """The rows of a CSV whose pictures are in ``root``.

    Args:
        file: UTF-8 with a header: path, camera, perhaps id and tracklet, in any order and case;
            other columns are not looked at. Separated by comma, semicolon or tab.
        root: What the paths are relative to. A symbolic link inside it may lead elsewhere: whoever
            owns the folder made it.
        suffixes: What a picture's name ends with.

    Raises:
        FileNotFoundError: no such CSV.
        ValueError: no UTF-8, a missing column, a line without path or camera, a path that leaves
            the root, has no file or comes twice.
    """
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file}: no such CSV")
    rows: list[CsvRow] = []
    lines: dict[str, int] = {}
    for line, fields in _lines(file):
        where = f"{file} line {line}"
        path = _inside(fields["path"], root, where)
        if not path.lower().endswith(tuple(suffixes)):
            raise ValueError(f"{where}: {path!r} must end in one of {', '.join(suffixes)}")
        if not fields["camera"]:
            raise ValueError(f"{where}: {path!r} has no camera; every picture must have one")
        for name in ("camera", "id", "tracklet"):
            if _controls(fields.get(name, "")):
                raise ValueError(
                    f"{where}: {fields[name][:80]!r} must be a {name} without control characters"
                )
        if path in lines:
            raise ValueError(
                f"{where}: {path!r} is in line {lines[path]} already; a picture must come once"
            )
        lines[path] = line
        rows.append(
            CsvRow(path, fields["camera"], fields.get("id") or None, fields.get("tracklet") or None)
        )
    return rows


def _lines(file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, known columns stripped) of each row that is not empty."""
    try:
        # utf-8-sig: spreadsheets put a mark of the byte order in front.
        with open(file, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline(100_000)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(",;\t", key=header.count), strict=True)
            columns = _columns(next(reader, []), file)
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) <= max(columns.values()):
                    raise ValueError(
                        f"{file} line {reader.line_num}: {len(fields)} fields, but the"
                        f" header has {max(columns.values()) + 1} or more"
                    )
                yield (
                    reader.line_num,
                    {k: unguard_cell(fields[i].strip()) for k, i in columns.items()},
                )
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be a CSV in UTF-8 ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{file} must be a CSV ({error})") from error


def _columns(header: Sequence[str], file: str) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for needed in ("path", "camera"):
        if needed not in names:
            shown = ", ".join(name[:40] for name in names[:20])
            raise ValueError(
                f"{file}: the first line must name the columns path, camera (and"
                f" perhaps id, tracklet); found {shown!r}{nearest(needed, names)}"
            )
    twice = [name for name in _COLUMNS if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file}: the first line must name {twice[0]} once")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _controls(text: str) -> bool:
    """Whether a text has characters that would write more into a log than a name."""
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def _inside(written: str, root: str, where: str) -> str:
    """The path relative to ``root`` of an existing file, from what a line says."""
    if not written:
        raise ValueError(f"{where}: no path; every line must have one")
    if _controls(written):
        raise ValueError(f"{where}: {written!r} must be a path without control characters")
    # On other systems a backslash separates folders: it must not leave the root there either.
    slashes = written.replace("\\", "/")
    if slashes.startswith("/") or slashes[1:2] == ":" or ".." in slashes.split("/"):
        raise ValueError(
            f"{where}: {written!r} leaves the root; paths must be relative to {root}"
            " and have no '..'"
        )
    # Accents are one character or two, as the system that wrote the list has it.
    for form in (
        written,
        slashes,
        unicodedata.normalize("NFC", slashes),
        unicodedata.normalize("NFD", slashes),
    ):
        if os.path.lexists(os.path.join(root, form)):
            return os.path.normpath(form).replace(os.sep, "/")
    raise ValueError(f"{where}: no file {written!r} in {root}")
