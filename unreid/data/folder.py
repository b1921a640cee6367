"""Any folder of crops: which images it has, and the camera, id and tracklet of each.

These are read from the path by a pattern (:mod:`unreid.data.path_pattern`), from the sub-folders,
or from a CSV (:mod:`unreid.data.folder_csv`). What may surprise is logged as one warning each:
files that are left out, and folders that share a camera.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unreid.checks import check_choice
from unreid.data.folder_csv import read_csv
from unreid.data.path_pattern import FIELDS, PathPattern

logger = logging.getLogger("fastreid.unreid.folder")

#: Suffixes of pictures, in any case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: Where the camera of a picture may be written.
CAMERA_FROM = ("regex", "subfolder", "csv", "one")
#: In a name they would write lines of their own into logs and tables.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
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
    id_pattern: str = "",
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
        pattern: Searched in the path relative to ``root`` (``cam1/0007_003.jpg``): see
            :mod:`unreid.data.path_pattern`. One unnamed group is the camera.
        id_pattern: A second pattern, whose one unnamed group is the id; an image that it does not
            match has no id.
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
            name that is no UTF-8, a pattern that takes too long, or a bad CSV.
    """
    root = os.path.expanduser(os.fspath(root))
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root}: no such folder; name one that holds the pictures")
    source, expression, of_ids = check_reading(
        pattern=pattern, id_pattern=id_pattern, csv=csv, camera=camera, levels=levels
    )
    under = _below(root, under)
    if source == "csv":
        inside = f"{under}/" if under else ""
        rows = [
            (row.path, row.camera, row.pid, row.tracklet)
            for row in read_csv(_csv_file(root, csv), root, SUFFIXES)
            if row.path.startswith(inside)
        ]
    else:
        names, others = list_files(root, under)
        _warn_of_others(root, others)
        found = _matched(root, names, expression)
        if of_ids is not None:
            for name, fields in zip(names, of_ids.search(names)):
                found[name].update(fields or {})
        for name, fields in found.items():
            if source == "subfolder":
                fields.update(_of_levels(root, name, under, levels))
            elif source == "one":
                fields["camera"] = ONE_CAMERA
            if not fields["camera"]:
                raise ValueError(
                    f"{root}/{name}: the group camera of {pattern!r} is empty here;"
                    " it must have at least one character"
                )
        _warn_of_shared_cameras(found, under)
        rows = [
            (name, str(fields["camera"]), fields.get("id") or None, fields.get("tracklet") or None)
            for name, fields in found.items()
        ]
    return tuple(
        sorted(
            FolderItem(f"{root.rstrip('/')}/{name}", camera_name, pid, tracklet)
            for name, camera_name, pid, tracklet in rows
        )
    )


def check_reading(
    *,
    pattern: str = "",
    id_pattern: str = "",
    csv: str = "",
    camera: str = "",
    levels: Sequence[str] = ("camera",),
) -> tuple[str, PathPattern | None, PathPattern | None]:
    """Return (where the camera is written, the compiled pattern, that of ids).

    Raises:
        ValueError: see :func:`read_folder`.
    """
    source = camera or ("csv" if csv else "regex" if pattern else "one")
    check_choice("camera", source, CAMERA_FROM)
    if (source == "csv") != bool(csv):
        raise ValueError(f"camera {source!r} with csv {csv!r}: a CSV and camera 'csv' go together")
    if csv and (pattern or id_pattern):
        raise ValueError("give a pattern or a CSV, not both: the CSV has a column for each field")
    if source == "regex" and not pattern:
        raise ValueError("camera 'regex' needs a pattern, such as '_c(?P<camera>[0-9]+)'")
    if source == "subfolder":
        for level in levels:
            check_choice("levels", level, (*FIELDS, ""))
        if list(levels).count("camera") != 1 or len({x for x in levels if x}) != sum(
            bool(x) for x in levels
        ):
            raise ValueError(f"levels must name camera once and no field twice, got {levels}")
    expression = PathPattern.compile(pattern, "camera") if pattern else None
    of_ids = PathPattern.compile(id_pattern, "id") if id_pattern else None
    if source == "regex" and expression is not None and "camera" not in expression.groups:
        raise ValueError(
            f"pattern must have a group (?P<camera>...), got {pattern!r}; if the camera is not"
            " in the path, say camera 'subfolder' or 'one'"
        )
    if of_ids is not None:
        if "id" not in of_ids.groups or "camera" in of_ids.groups:
            raise ValueError(
                "the pattern of ids must have one group, (?P<id>...) or {id}, and none"
                f" of the camera, got {id_pattern!r}"
            )
        if expression is not None and "id" in expression.groups:
            raise ValueError(f"give the id in one pattern, got {pattern!r} and {id_pattern!r}")
    return source, expression, of_ids


def image_files(root: str, under: str = "") -> tuple[str, ...]:
    """Return the images of :func:`list_files`."""
    return list_files(root, under)[0]


def list_files(root: str, under: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the images below ``root/under``, and all other files.

    Both are paths relative to ``root``, sorted, with forward slashes; names that begin with a dot
    are in neither.

    Raises:
        OSError: a folder that cannot be read.
        ValueError: a name that is no UTF-8, or has control characters.
    """
    found: list[str] = []
    others: list[str] = []
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
            else:
                others.append(name)
    return tuple(sorted(found)), tuple(sorted(others))


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
            raise ValueError(f"{entry.path!a}: a name must be UTF-8; rename the file") from error
        if _CONTROL.search(entry.name):
            raise ValueError(
                f"{entry.path!a}: a name must be without control characters; rename the file"
            )
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
    root: str, names: Sequence[str], expression: PathPattern | None
) -> dict[str, dict[str, str | None]]:
    """Return what the groups of the pattern say of each path; nothing without a pattern."""
    if expression is None:
        return {name: {} for name in names}
    found = dict(zip(names, expression.search(names)))
    missed = [name for name, fields in found.items() if fields is None]
    if missed:
        raise ValueError(
            f"{root}/{missed[0]}{_others(missed)} does not match the pattern"
            f" {expression.written!r}; the pattern must be found in {missed[0]!r}"
        )
    return {name: fields for name, fields in found.items() if fields is not None}


def _warn_of_others(root: str, others: Sequence[str]) -> None:
    """Log how many files are left out because of their suffix."""
    if not others:
        return
    counts = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in others)
    listed = ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common(5))
    logger.warning(
        f"{root}: {len(others)} files are left out ({listed}), such as {others[0]}; read"
        f" are {' '.join(SUFFIXES)}: convert the others to one of these"
    )


def _warn_of_shared_cameras(found: dict[str, dict[str, str | None]], under: str) -> None:
    """Log that folders such as ``storeA/cam1`` and ``storeB/cam1`` are one camera.

    Looked at are folders whose name holds the camera's, below folders that are no id.
    """
    parents: dict[str, set[str]] = defaultdict(set)
    for name, fields in found.items():
        camera, pid = fields["camera"], fields.get("id")
        folders = name.split("/")[:-1]
        # Its own word: camera 1 is neither in "2021" nor in "cam12".
        word = re.compile(rf"(?<![0-9]){re.escape(camera or '')}(?![0-9])")
        at = next((i for i in range(len(folders) - 1, -1, -1) if word.search(folders[i])), None)
        if at and not (pid and any(pid in part for part in folders[:at])):
            parents[str(camera)].add("/".join(folders[: at + 1]))
    shared = {camera: sorted(own) for camera, own in parents.items() if len(own) > 1}
    if shared:
        camera, own = next(iter(sorted(shared.items())))
        logger.warning(
            f"camera {camera!r}: {', '.join(own[:3])} are taken as one camera"
            + (f" (and so are the folders of {len(shared) - 1} others)" if len(shared) > 1 else "")
            + "; if they are several, let the camera's pattern hold the folders above, too, such as"
            " '(.+/cam[0-9]+)/'"
        )


def _of_levels(root: str, name: str, under: str, levels: Sequence[str]) -> dict[str, str | None]:
    folders = (name[len(under) + 1 :] if under else name).split("/")[:-1]
    if len(folders) < len(levels):
        raise ValueError(
            f"{root}/{name} lies in {len(folders)} sub-folders, but camera 'subfolder' expects"
            f" {'/'.join(level or '*' for level in levels)}/picture"
        )
    return {level: folder for level, folder in zip(levels, folders) if level}


def _others(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} others)" if len(names) > 1 else ""
