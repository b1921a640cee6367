"""Validate a dataset before training: read every file once, count, and list the problems found."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unreid.data.folder import FolderItem
from unreid.data.folder_dataset import NO_ID
from unreid.data.images import UnreadableImageError, load_image
from unreid.data.near_duplicates import difference_hash, group_hashes

#: Smallest side in pixels; smaller crops do not show a person.
MIN_SIDE = 16
#: Number of files that a problem names.
MAX_EXAMPLES = 3

#: Common patterns of the camera in file names, most specific first.
_CAMERA_PATTERNS = (
    r"(?i)(?<![a-z])cam(?:era)?[-_ ]?(?P<camera>[0-9]+)",
    r"(?i)(?<![a-z0-9])c(?P<camera>[0-9]+)(?![0-9])",
)


@dataclass(frozen=True)
class ImageEntry:
    """One image file.

    Attributes:
        part: "train", "query" or "gallery"; "all" for a folder that is not split.
        item: Path, camera, id and tracklet.
    """

    part: str
    item: FolderItem


@dataclass(frozen=True)
class FileInfo:
    """Result of reading one file.

    Attributes:
        width: In pixels.
        height: In pixels.
        digest: SHA-256 of the file content.
        image_hash: (16,) uint8, see :func:`unreid.data.near_duplicates.difference_hash`.
        reason: Why the file cannot be read, or "" if it can.
    """

    width: int = 0
    height: int = 0
    digest: bytes = b""
    image_hash: np.ndarray = field(default_factory=lambda: np.zeros(16, dtype=np.uint8))
    reason: str = ""


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    Attributes:
        level: "error" (training or evaluation would fail), "warning" or "note".
        text: What was found, and what to do.
    """

    level: str
    text: str


def list_images(dataset: Any, parts: Iterable[str]) -> list[ImageEntry]:
    """Return the images of some parts of a dataset.

    Args:
        dataset: A fast-reid dataset or a :class:`unreid.data.folder_dataset.FolderDataset`.
        parts: Names of attributes of the dataset, such as "query".
    """
    return [entry for part in parts for entry in entries_of(getattr(dataset, part), part)]


def entries_of(rows: Iterable[Sequence[Any]], part: str) -> list[ImageEntry]:
    """Return the images of rows (path, id, camera[, tracklet]) as images of ``part``."""
    found = []
    for path, pid, camera, *rest in rows:
        name = str(pid)
        no_id = not name or name.startswith(NO_ID)
        item = FolderItem(
            str(path),
            str(camera),
            None if no_id else name,
            str(rest[0]) if rest and rest[0] else None,
        )
        found.append(ImageEntry(part, item))
    return found


def read_files(paths: Sequence[str], step: Callable[[], None] = lambda: None) -> list[FileInfo]:
    """Read and decode every file.

    Args:
        paths: N image files.
        step: Called after each file.

    Returns:
        N results in the order of ``paths``.
    """
    infos = []
    # Pillow and hashlib release the global interpreter lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for info in pool.map(_read, paths):
            infos.append(info)
            step()
    return infos


def _read(path: str) -> FileInfo:
    try:
        image = load_image(path)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).digest()
    except UnreadableImageError as error:
        return FileInfo(reason=str(error.__cause__))
    except OSError as error:
        return FileInfo(reason=str(error))
    return FileInfo(image.width, image.height, digest, difference_hash(image))


def summary_table(
    entries: Sequence[ImageEntry], infos: Sequence[FileInfo]
) -> list[dict[str, object]]:
    """Return one row of counts and image sizes per part and camera, and one row of all images."""
    rows = []
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, entry in enumerate(entries):
        groups[entry.part, entry.item.camera].append(i)
    everything = [(("all", "all"), list(range(len(entries))))] if len(groups) > 1 else []
    for (part, camera), own in [*groups.items(), *everything]:
        good = [infos[i] for i in own if not infos[i].reason]
        items = [entries[i].item for i in own]
        rows.append(
            {
                "part": part,
                "camera": camera,
                "images": len(own),
                "people": len({item.pid for item in items if item.pid is not None}) or "-",
                "tracklets": len({(item.camera, item.tracklet) for item in items if item.tracklet})
                or "-",
                "width": _range([r.width for r in good]),
                "height": _range([r.height for r in good]),
                "unreadable": len(own) - len(good),
            }
        )
    return rows


def _range(values: Sequence[int]) -> str:
    """Return "MIN to MAX, median M", one number if all are equal, or "-" if there are none."""
    if not values:
        return "-"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}, median {np.median(values):.0f}"


def find_problems(
    entries: Sequence[ImageEntry],
    infos: Sequence[FileInfo],
    *,
    min_images: int = 20,
    skip_bad: bool = False,
) -> list[Problem]:
    """Return the problems of a dataset, errors first.

    Args:
        entries: The N images.
        infos: The N results of :func:`read_files`.
        min_images: Cameras with fewer training images are reported.
        skip_bad: Unreadable images will be skipped (``UNSUP.BAD_IMAGE skip``).
    """
    if not entries:
        return [
            Problem(
                "error",
                "no image found (jpg, jpeg, png, webp, bmp, in lower or upper case);"
                " expected a folder of images",
            )
        ]
    found = [
        *_find_unreadable(entries, infos, skip_bad),
        *_copies(entries, infos),
        *_cameras(entries, min_images),
        *_people(entries),
        *_small(entries, infos),
        *_near_duplicates(entries, infos),
    ]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda problem: order.index(problem.level))


def _examples(paths: Sequence[str]) -> str:
    """Return the first paths, and the number of the others."""
    rest = f" and {len(paths) - MAX_EXAMPLES} more" if len(paths) > MAX_EXAMPLES else ""
    return ", ".join(paths[:MAX_EXAMPLES]) + rest


def _find_unreadable(
    entries: Sequence[ImageEntry], infos: Sequence[FileInfo], skip_bad: bool
) -> list[Problem]:
    bad = [f"{p.item.path} ({r.reason})" for p, r in zip(entries, infos) if r.reason]
    if not bad:
        return []
    if skip_bad and len(bad) < len(entries):
        return [
            Problem(
                "warning",
                f"{len(bad)} unreadable, skipped by UNSUP.BAD_IMAGE skip: {_examples(bad)}",
            )
        ]
    return [
        Problem(
            "error",
            f"{len(bad)} unreadable: {_examples(bad)}; repair or remove them, or"
            " set UNSUP.BAD_IMAGE skip",
        )
    ]


def _copies(entries: Sequence[ImageEntry], infos: Sequence[FileInfo]) -> list[Problem]:
    """Return problems of files with identical content."""
    same: dict[bytes, list[FolderItem]] = defaultdict(list)
    tested, trained = set[bytes](), set[bytes]()
    for entry, info in zip(entries, infos):
        if info.reason:
            continue
        same[info.digest].append(entry.item)
        (trained if entry.part == "train" else tested).add(info.digest)
    groups = [items for items in same.values() if len(items) > 1]
    found = []
    both = [" = ".join(i.path for i in same[d]) for d in sorted(trained & tested)]
    if both:
        found.append(
            Problem(
                "error",
                f"{len(both)} images are both in training and in the test, so"
                f" that scores are meaningless: {_examples(both)}; remove one copy of each",
            )
        )
    for what, key in (("cameras", lambda i: i.camera), ("people", lambda i: i.pid)):
        wrong = [
            " = ".join(i.path for i in items)
            for items in groups
            if len({key(i) for i in items} - {None}) > 1
        ]
        if wrong:
            found.append(
                Problem(
                    "warning",
                    f"{len(wrong)} images have copies in two {what}:"
                    f" {_examples(wrong)}; remove the copy that is misfiled",
                )
            )
    if groups:
        extra = sum(len(items) - 1 for items in groups)
        listed = [" = ".join(i.path for i in items) for items in groups]
        found.append(
            Problem(
                "warning",
                f"{extra} exact copies of {len(groups)} images:"
                f" {_examples(listed)}; remove the copies",
            )
        )
    return found


def _cameras(entries: Sequence[ImageEntry], min_images: int) -> list[Problem]:
    counts = Counter(p.item.camera for p in entries if p.part not in ("query", "gallery"))
    found = []
    if len(counts) == 1:
        found.append(
            Problem(
                "warning",
                f"all training images are of one camera"
                f" ({next(iter(counts))}), so camera labels are not used; give the camera"
                " of each image by a pattern, sub-folders or a CSV",
            )
        )
    few = [f"{camera} ({count})" for camera, count in sorted(counts.items()) if count < min_images]
    if few:
        found.append(
            Problem(
                "warning",
                f"{len(few)} cameras have fewer than {min_images} training"
                f" images: {_examples(few)}; add images, or merge or remove the"
                " camera",
            )
        )
    return found


def _people(entries: Sequence[ImageEntry]) -> list[Problem]:
    found = []
    trained = {p.item.pid for p in entries if p.part == "train"} - {None}
    tested = {p.item.pid for p in entries if p.part in ("query", "gallery")} - {None}
    both = sorted(str(pid) for pid in trained & tested)
    if both:
        found.append(
            Problem(
                "warning",
                f"{len(both)} ids are both in training and in the"
                f" test: {_examples(both)}; unless ids are numbered separately, the score is"
                " of identities seen in training",
            )
        )
    cameras: dict[str | None, set[str]] = defaultdict(set)
    for p in entries:
        if p.part == "gallery":
            cameras[p.item.pid].add(p.item.camera)
    unmatched = [
        p.item.path
        for p in entries
        if p.part == "query" and not cameras[p.item.pid] - {p.item.camera}
    ]
    if unmatched:
        found.append(
            Problem(
                "note",
                f"{len(unmatched)} queries have no match in another camera and are"
                f" not scored: {_examples(unmatched)}",
            )
        )
    people: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for p in entries:
        if p.item.tracklet and p.item.pid is not None:
            people[p.part, p.item.camera, p.item.tracklet].add(p.item.pid)
    mixed = sorted(f"{t} of camera {c}" for (_, c, t), own in people.items() if len(own) > 1)
    if mixed:
        found.append(
            Problem(
                "warning",
                f"{len(mixed)} tracklets have images of several ids:"
                f" {_examples(mixed)}; a tracklet must be of one person: use a longer part of"
                " the file name as tracklet",
            )
        )
    return found


def _small(entries: Sequence[ImageEntry], infos: Sequence[FileInfo]) -> list[Problem]:
    small = [
        f"{p.item.path} ({r.width} x {r.height})"
        for p, r in zip(entries, infos)
        if not r.reason and min(r.width, r.height) < MIN_SIDE
    ]
    if not small:
        return []
    return [
        Problem(
            "warning",
            f"{len(small)} images have a side below {MIN_SIDE} pixels:"
            f" {_examples(small)}; remove them",
        )
    ]


def _near_duplicates(entries: Sequence[ImageEntry], infos: Sequence[FileInfo]) -> list[Problem]:
    """Return near duplicates that are not copies; those across training and test come first."""
    good = [i for i, r in enumerate(infos) if not r.reason]
    if not good:
        return []
    groups = group_hashes(np.stack([infos[i].image_hash for i in good]))
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in zip(good, groups.tolist()):
        members[group].append(i)
    similar = [own for own in members.values() if len({infos[i].digest for i in own}) > 1]
    if not similar:
        return []
    across = [own for own in similar if len({entries[i].part == "train" for i in own}) > 1]
    listed = [" ~ ".join(entries[i].item.path for i in own[:2]) for own in across or similar]
    where = f", {len(across)} of them across training and test" if across else ""
    return [
        Problem(
            "note",
            f"{sum(map(len, similar))} images are near duplicates, in"
            f" {len(similar)} groups{where}: {_examples(listed)}; this is normal for consecutive"
            " frames; remove images that were saved twice",
        )
    ]


def suggest_camera_option(names: Sequence[str]) -> str:
    """Return command-line options that find at least two cameras in the paths, or "".

    Args:
        names: Paths relative to the root folder.
    """
    for pattern in _CAMERA_PATTERNS:
        found = [re.search(pattern, name) for name in names]
        cameras = {match["camera"] for match in found if match}
        if names and all(found) and len(cameras) > 1:
            return f"--camera-pattern '{pattern}' ({len(cameras)} cameras)"
    folders = {name.split("/")[0] for name in names if "/" in name}
    if len(folders) > 1 and all("/" in name for name in names):
        return f"--camera subfolder ({len(folders)} cameras), if a sub-folder is a camera"
    return ""
