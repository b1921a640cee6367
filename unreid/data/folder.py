"""List the images of a folder of crops, with the camera, id and tracklet of each.

Camera, id and tracklet come from the path by a pattern (:mod:`unreid.data.path_pattern`), from the
names of sub-folders, or from a CSV (:mod:`unreid.data.folder_csv`). Ignored files, and folders that
are merged into one camera, are logged as a warning.
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

#: File name suffixes of images, in lower or upper case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: Sources of the camera of an image.
CAMERA_FROM = ("regex", "subfolder", "csv", "one")
#: Control characters. In a file name they could forge lines of logs and tables.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: Camera name of all images with camera "one".
SINGLE_CAMERA = "0"


@dataclass(frozen=True, order=True)
class FolderItem:
    """One image of a folder.

    Attributes:
        path: ``root/relative/path.jpg``, with forward slashes below the root.
        camera: Camera name, unique in the folder.
        pid: Person id, or None if unknown.
        tracklet: Tracklet name, unique within the camera, or None.
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
    """Return the images of a folder and its sub-folders, sorted by path.

    Symbolic links are followed, and every folder is visited once. Names that begin with a dot are
    ignored. Images are not opened.

    Args:
        root: The folder.
        pattern: Pattern that is searched in the path relative to ``root``, such as
            ``cam1/0007_003.jpg``; see :mod:`unreid.data.path_pattern`. A single unnamed group is
            the camera.
        id_pattern: Second pattern, whose single unnamed group is the id. An image without a match
            has no id.
        csv: CSV with the columns path (relative to ``root``), camera, and optionally id, tracklet.
            Only the images listed there are returned. Searched in ``root``, then in the working
            directory.
        camera: Source of the camera, one of :data:`CAMERA_FROM`. "" selects the CSV or pattern if
            one is given, else a single camera.
        levels: With camera "subfolder": the field that each folder level below ``under`` holds,
            one of :data:`FIELDS`, or "" for none.
        under: Sub-folder of ``root`` to restrict the result to; "" for all of it.

    Raises:
        FileNotFoundError: The folder or the CSV does not exist.
        ValueError: Contradictory settings, a path without camera, a name that is not UTF-8, a
            pattern that takes too long, or an invalid CSV.
    """
    root = os.path.expanduser(os.fspath(root))
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root}: no such folder; expected a folder of images")
    source, expression, id_expression = check_path_settings(
        pattern=pattern, id_pattern=id_pattern, csv=csv, camera=camera, levels=levels
    )
    under = _relative_to_root(root, under)
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
        if id_expression is not None:
            for name, fields in zip(names, id_expression.search(names)):
                found[name].update(fields or {})
        for name, fields in found.items():
            if source == "subfolder":
                fields.update(_folder_levels(root, name, under, levels))
            elif source == "one":
                fields["camera"] = SINGLE_CAMERA
            if not fields["camera"]:
                raise ValueError(
                    f"{root}/{name}: the group camera of {pattern!r} is empty;"
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


def check_path_settings(
    *,
    pattern: str = "",
    id_pattern: str = "",
    csv: str = "",
    camera: str = "",
    levels: Sequence[str] = ("camera",),
) -> tuple[str, PathPattern | None, PathPattern | None]:
    """Check the arguments of :func:`read_folder` that say how paths are read.

    Args:
        pattern: See :func:`read_folder`.
        id_pattern: See :func:`read_folder`.
        csv: See :func:`read_folder`.
        camera: See :func:`read_folder`.
        levels: See :func:`read_folder`.

    Returns:
        The source of the camera (one of :data:`CAMERA_FROM`), the compiled pattern and the compiled
        id pattern, or None.

    Raises:
        ValueError: Contradictory settings or an invalid pattern.
    """
    source = camera or ("csv" if csv else "regex" if pattern else "one")
    check_choice("camera", source, CAMERA_FROM)
    if (source == "csv") != bool(csv):
        raise ValueError(f"camera {source!r} with csv {csv!r}: give a CSV with camera 'csv' only")
    if csv and (pattern or id_pattern):
        raise ValueError("give a pattern or a CSV, not both; the CSV has a column for each field")
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
    id_expression = PathPattern.compile(id_pattern, "id") if id_pattern else None
    if source == "regex" and expression is not None and "camera" not in expression.groups:
        raise ValueError(
            f"pattern must have a group (?P<camera>...), got {pattern!r}; if the camera is not"
            " in the path, use camera 'subfolder' or 'one'"
        )
    if id_expression is not None:
        if "id" not in id_expression.groups or "camera" in id_expression.groups:
            raise ValueError(
                "id_pattern must have one group, (?P<id>...) or {id}, and no group camera,"
                f" got {id_pattern!r}"
            )
        if expression is not None and "id" in expression.groups:
            raise ValueError(
                f"the id must be in one of the two patterns, got {pattern!r} and {id_pattern!r}"
            )
    return source, expression, id_expression


def image_files(root: str, under: str = "") -> tuple[str, ...]:
    """Return the images below ``root/under``; see :func:`list_files`."""
    return list_files(root, under)[0]


def list_files(root: str, under: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the images below ``root/under``, and all other files.

    Both are sorted paths relative to ``root`` with forward slashes. Names that begin with a dot are
    in neither.

    Raises:
        OSError: A folder cannot be read.
        ValueError: A name is not UTF-8, or has control characters.
    """
    found: list[str] = []
    others: list[str] = []
    seen: set[tuple[int, int]] = set()
    real, linked = [under], list[str]()
    while real or linked:
        # Real folders first: a folder that also has a link is then listed under its real name.
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
    """Yield (path relative to root, entry) of every entry that is not hidden, sorted by name."""
    with os.scandir(os.path.join(root, below)) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{entry.path!a}: a file name must be UTF-8; rename the file"
            ) from error
        if _CONTROL.search(entry.name):
            raise ValueError(
                f"{entry.path!a}: a file name must not have control characters; rename the file"
            )
        yield (f"{below}/{entry.name}" if below else entry.name), entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _relative_to_root(root: str, under: str) -> str:
    """Return ``under`` relative to ``root``; it must be a folder inside ``root``."""
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
    """Return the path of the CSV: in ``root`` if it exists there, else as given."""
    csv = os.path.expanduser(csv)
    inside = os.path.join(root, csv)
    return inside if os.path.isfile(inside) else csv


def _matched(
    root: str, names: Sequence[str], expression: PathPattern | None
) -> dict[str, dict[str, str | None]]:
    """Return path -> fields that the pattern finds in it; no fields without a pattern."""
    if expression is None:
        return {name: {} for name in names}
    found = dict(zip(names, expression.search(names)))
    missed = [name for name, fields in found.items() if fields is None]
    if missed:
        raise ValueError(
            f"{root}/{missed[0]}{_and_others(missed)} does not match the pattern"
            f" {expression.text!r}; expected a match in {missed[0]!r}"
        )
    return {name: fields for name, fields in found.items() if fields is not None}


def _warn_of_others(root: str, others: Sequence[str]) -> None:
    """Log how many files are ignored because of their suffix."""
    if not others:
        return
    counts = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in others)
    listed = ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common(5))
    logger.warning(
        f"{root}: {len(others)} files are ignored ({listed}), such as {others[0]};"
        f" supported formats: {' '.join(SUFFIXES)}"
    )


def _warn_of_shared_cameras(found: dict[str, dict[str, str | None]], under: str) -> None:
    """Log that folders such as ``storeA/cam1`` and ``storeB/cam1`` are merged into one camera.

    Considered are folders whose name contains the camera name, unless a parent folder is the id.
    """
    parents: dict[str, set[str]] = defaultdict(set)
    for name, fields in found.items():
        camera, pid = fields["camera"], fields.get("id")
        folders = name.split("/")[:-1]
        # As a whole number: camera 1 is neither in "2021" nor in "cam12".
        word = re.compile(rf"(?<![0-9]){re.escape(camera or '')}(?![0-9])")
        at = next((i for i in range(len(folders) - 1, -1, -1) if word.search(folders[i])), None)
        if at and not (pid and any(pid in part for part in folders[:at])):
            parents[str(camera)].add("/".join(folders[: at + 1]))
    shared = {camera: sorted(own) for camera, own in parents.items() if len(own) > 1}
    if shared:
        camera, own = next(iter(sorted(shared.items())))
        logger.warning(
            f"camera {camera!r}: {', '.join(own[:3])} are treated as one camera"
            + (f" (likewise {len(shared) - 1} other cameras)" if len(shared) > 1 else "")
            + "; if they are different cameras, include the parent folder in the camera group of"
            " the pattern, such as '(.+/cam[0-9]+)/'"
        )


def _folder_levels(
    root: str, name: str, under: str, levels: Sequence[str]
) -> dict[str, str | None]:
    folders = (name[len(under) + 1 :] if under else name).split("/")[:-1]
    if len(folders) < len(levels):
        raise ValueError(
            f"{root}/{name} is in {len(folders)} sub-folders, but camera 'subfolder' expects"
            f" {'/'.join(level or '*' for level in levels)}/image"
        )
    return {level: folder for level, folder in zip(levels, folders) if level}


def _and_others(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} others)" if len(names) > 1 else ""
