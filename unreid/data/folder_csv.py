"""Read a CSV with the camera of each image, and optionally its id and tracklet.

The file is untrusted input: its paths must not leave the root folder, and every error names the
line.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unreid.checks import nearest
from unreid.data.csv_cells import unescape_cell

_COLUMNS = ("path", "camera", "id", "tracklet")


class CsvRow(NamedTuple):
    """One image: path relative to the root with forward slashes, camera, id and tracklet."""

    path: str
    camera: str
    pid: str | None
    tracklet: str | None


def read_csv(file: str, root: str, suffixes: Sequence[str]) -> list[CsvRow]:
    """Return the rows of a CSV of images in ``root``.

    Args:
        file: CSV in UTF-8, separated by comma, semicolon or tab. Its header names the columns path,
            camera, and optionally id and tracklet, in any order and case; other columns are
            ignored.
        root: Folder that the paths are relative to. Symbolic links inside it may lead outside: they
            were made by the owner of the folder, not by the author of the CSV.
        suffixes: Allowed file name suffixes, in lower case.

    Raises:
        FileNotFoundError: The CSV does not exist.
        ValueError: Not UTF-8, a missing column, a line without path or camera, or a path that
            leaves the root, does not exist or is listed twice.
    """
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file}: no such CSV")
    rows: list[CsvRow] = []
    lines: dict[str, int] = {}
    for line, fields in _rows(file):
        where = f"{file} line {line}"
        path = _path_in_root(fields["path"], root, where)
        if not path.lower().endswith(tuple(suffixes)):
            raise ValueError(f"{where}: {path!r} must end in one of {', '.join(suffixes)}")
        if not fields["camera"]:
            raise ValueError(f"{where}: {path!r} has no camera; every image must have one")
        for name in ("camera", "id", "tracklet"):
            if _has_control_characters(fields.get(name, "")):
                raise ValueError(
                    f"{where}: {fields[name][:80]!r} must be a {name} without control characters"
                )
        if path in lines:
            raise ValueError(
                f"{where}: {path!r} is already in line {lines[path]}; an image must be listed once"
            )
        lines[path] = line
        rows.append(
            CsvRow(path, fields["camera"], fields.get("id") or None, fields.get("tracklet") or None)
        )
    return rows


def _rows(file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column -> stripped value) of each row that is not empty."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark first.
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
                    {k: unescape_cell(fields[i].strip()) for k, i in columns.items()},
                )
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be a CSV in UTF-8 ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{file} must be a CSV ({error})") from error


def _columns(header: Sequence[str], file: str) -> dict[str, int]:
    """Return known column -> position in the header."""
    names = [name.strip().lower() for name in header]
    for needed in ("path", "camera"):
        if needed not in names:
            shown = ", ".join(name[:40] for name in names[:20])
            raise ValueError(
                f"{file}: the first line must name the columns path, camera (and"
                f" optionally id, tracklet); found {shown!r}{nearest(needed, names)}"
            )
    duplicates = [name for name in _COLUMNS if names.count(name) > 1]
    if duplicates:
        raise ValueError(f"{file}: the first line must name {duplicates[0]} once")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _has_control_characters(text: str) -> bool:
    """Return whether a text has control characters, which could forge lines of a log."""
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def _path_in_root(written: str, root: str, where: str) -> str:
    """Return the path of an existing file relative to ``root``, from the path in a CSV line."""
    if not written:
        raise ValueError(f"{where}: no path; every line must have a path")
    if _has_control_characters(written):
        raise ValueError(f"{where}: {written!r} must be a path without control characters")
    # A backslash separates folders on Windows: such a path must not leave the root either.
    slashes = written.replace("\\", "/")
    if slashes.startswith("/") or slashes[1:2] == ":" or ".." in slashes.split("/"):
        raise ValueError(
            f"{where}: {written!r} leaves the root; paths must be relative to {root}"
            " and have no '..'"
        )
    # Accented characters are one or two code points, depending on the system that wrote the CSV.
    for form in (
        written,
        slashes,
        unicodedata.normalize("NFC", slashes),
        unicodedata.normalize("NFD", slashes),
    ):
        if os.path.lexists(os.path.join(root, form)):
            return os.path.normpath(form).replace(os.sep, "/")
    raise ValueError(f"{where}: no file {written!r} in {root}")
