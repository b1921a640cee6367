"""Any folder of crops: which pictures it has, and the camera, id and tracklet of each.

What a picture's path does not say comes from a regular expression on it, from the sub-folders it
lies in, or from a CSV (see :mod:`unreid.data.folder_csv`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unreid.checks import check_choice
from unreid.data.folder_csv import read_csv

#: Suffixes of pictures, in any case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: Where the camera of a picture may be written.
CAMERA_FROM = ("regex", "subfolder", "csv", "one")
#: In a name they would write lines of their own into logs and tables.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: What can be read of a picture, by the names of groups, levels and columns.
FIELDS = ("camera", "id", "tracklet")
#: The camera of every picture of a folder that has one.
ONE_CAMERA = "0"


@dataclass(frozen=True, order=True)
class FolderItem:
    """One picture of a folder.

    Attributes:
        path: ``root/relative/path.jpg``, with forward slashes below the root.
        camera: A name, unique in the folder.
        pid: The person's name, or None where nothing tells it.
        tracklet: The name of a tracklet inside the camera, or None.
    """

    path: str
    camera: str
    pid: str | None = None
    tracklet: str | None = None


def read_folder(
    root: str | os.PathLike[str],
    *,
    pattern: str = "",
    csv: str = "",
    camera: str = "",
    levels: Sequence[str] = ("camera",),
    under: str = "",
) -> tuple[FolderItem, ...]:
    """The pictures of a folder and all folders in it, sorted by path.

    Sub-folders are entered, through symbolic links too, each once; names that begin with a dot
    are left out. Pictures are not opened.

    Args:
        root: The folder.
        pattern: A regular expression with named groups of :data:`FIELDS`, searched in the path
            relative to ``root`` (``cam1/0007_003.jpg``).
        csv: A file with the columns path (relative to ``root``), camera and perhaps id, tracklet.
            Only the pictures in it are read. It is looked for in ``root``, then where we are.
        camera: One of :data:`CAMERA_FROM`; "" takes the CSV or the pattern that is given, and
            else one camera for all.
        levels: With camera "subfolder": what the folders on the way from ``under`` to a picture
            are, each of :data:`FIELDS` or "" for nothing.
        under: Only the pictures in this folder of ``root``.

    Raises:
        FileNotFoundError: no such folder or CSV.
        ValueError: settings that contradict each other, a path that does not say its camera, a
            name that is no UTF-8, or (see :mod:`unreid.data.folder_csv`) a bad CSV.
    """
    root = os.path.expanduser(os.fspath(root))
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root}: no such folder; name one that holds the pictures")
    source, expression = check_reading(pattern=pattern, csv=csv, camera=camera, levels=levels)
    under = _below(root, under)
    if source == "csv":
        inside = f"{under}/" if under else ""
        rows = [(row.path, row.camera, row.pid, row.tracklet)
                for row in read_csv(_csv_file(root, csv), root, SUFFIXES)
                if row.path.startswith(inside)]
    else:
        names = image_files(root, under)
        found = _matched(root, names, expression)
        for name, fields in found.items():
            if source == "subfolder":
                fields.update(_of_levels(root, name, under, levels))
            elif source == "one":
                fields["camera"] = ONE_CAMERA
            if not fields["camera"]:
                raise ValueError(f"{root}/{name}: the group camera of {pattern!r} is empty here;"
                                 " it must have at least one character")
        rows = [(name, str(fields["camera"]), fields.get("id") or None,
                 fields.get("tracklet") or None) for name, fields in found.items()]
    return tuple(sorted(FolderItem(f"{root.rstrip('/')}/{name}", camera_name, pid, tracklet)
                        for name, camera_name, pid, tracklet in rows))


def check_reading(
    *, pattern: str = "", csv: str = "", camera: str = "", levels: Sequence[str] = ("camera",)
) -> tuple[str, re.Pattern[str] | None]:
    """(where the camera is written, the compiled pattern), or an error that says what is amiss.

    Raises:
        ValueError: see :func:`read_folder`.
    """
    source = camera or ("csv" if csv else "regex" if pattern else "one")
    check_choice("camera", source, CAMERA_FROM)
    if (source == "csv") != bool(csv):
        raise ValueError(f"camera {source!r} with csv {csv!r}: a CSV and camera 'csv' go together")
    if csv and pattern:
        raise ValueError("give a pattern or a CSV, not both: the CSV has a column for each field")
    if source == "regex" and not pattern:
        raise ValueError("camera 'regex' needs a pattern, such as '_c(?P<camera>[0-9]+)'")
    if source == "subfolder":
        for level in levels:
            check_choice("levels", level, (*FIELDS, ""))
        if list(levels).count("camera") != 1 or len({x for x in levels if x}) != sum(
                bool(x) for x in levels):
            raise ValueError(f"levels must name camera once and no field twice, got {levels}")
    expression = None
    if pattern:
        try:
            expression = re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern must be a regular expression, got {pattern!r} ({error})") \
                from error
        for group in expression.groupindex:
            check_choice("a named group of the pattern", group, FIELDS)
        if source == "regex" and "camera" not in expression.groupindex:
            raise ValueError(
                f"pattern must have a group (?P<camera>...), got {pattern!r}; if the camera is not"
                " in the path, say camera 'subfolder' or 'one'"
            )
    return source, expression


def image_files(root: str, under: str = "") -> tuple[str, ...]:
    """Paths relative to ``root`` of all pictures below ``root/under``, sorted, forward slashes.

    Raises:
        OSError: a folder that cannot be read.
        ValueError: a name that is no UTF-8, or has control characters.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    real, linked = [under], list[str]()
    while real or linked:
        # Real folders first: what a link leads to is then known by its own name, not the link's.
        below = real.pop() if real else linked.pop(0)
        status = os.stat(os.path.join(root, below))
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for name, entry in _entries(root, below):
            if _is_folder(entry):
                (linked if entry.is_symlink() else real).append(name)
            elif name.lower().endswith(SUFFIXES):
                found.append(name)
    return tuple(sorted(found))


def _entries(root: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path relative to root, entry) of what is not hidden, in the order of the names."""
    with os.scandir(os.path.join(root, below)) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{entry.path!a}: a name must be UTF-8; rename the file") \
                from error
        if _CONTROL.search(entry.name):
            raise ValueError(f"{entry.path!a}: a name must be without control characters; rename"
                             " the file")
        yield (f"{below}/{entry.name}" if below else entry.name), entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _below(root: str, under: str) -> str:
    """``under`` relative to ``root``, which it must not leave."""
    if not under:
        return ""
    relative = os.path.relpath(os.path.join(root, os.path.expanduser(under)), root)
    relative = relative.replace(os.sep, "/")
    if relative.split("/")[0] == "..":
        raise ValueError(f"{under} must be a folder inside {root}")
    if not os.path.isdir(os.path.join(root, relative)):
        raise FileNotFoundError(f"{os.path.join(root, relative)}: no such folder")
    return "" if relative == "." else relative


def _csv_file(root: str, csv: str) -> str:
    csv = os.path.expanduser(csv)
    inside = os.path.join(root, csv)
    return inside if os.path.isfile(inside) else csv


def _matched(
    root: str, names: Sequence[str], expression: re.Pattern[str] | None
) -> dict[str, dict[str, str | None]]:
    """What the groups of the pattern say of each path; nothing without a pattern."""
    if expression is None:
        return {name: {} for name in names}
    groups: dict[str, dict[str, str | None]] = {}
    missed = []
    for name in names:
        match = expression.search(name)
        if match is None:
            missed.append(name)
        else:
            groups[name] = dict(match.groupdict())
    if missed:
        raise ValueError(
            f"{root}/{missed[0]}{_others(missed)} does not match the pattern"
            f" {expression.pattern!r}; the pattern must be found in {missed[0]!r}"
        )
    return groups


def _of_levels(root: str, name: str, under: str, levels: Sequence[str]) -> dict[str, str | None]:
    folders = (name[len(under) + 1:] if under else name).split("/")[:-1]
    if len(folders) < len(levels):
        raise ValueError(
            f"{root}/{name} lies in {len(folders)} sub-folders, but camera 'subfolder' expects"
            f" {'/'.join(level or '*' for level in levels)}/picture"
        )
    return {level: folder for level, folder in zip(levels, folders) if level}


def _others(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} others)" if len(names) > 1 else ""
