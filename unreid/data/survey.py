"""Reads a data set once and says what is in it, and what to mend before training on it."""

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
from unreid.data.images import UnreadableImageError, load_image
from unreid.data.near_duplicates import group_looks, look

#: A picture this narrow or low shows nobody.
SMALLEST_SIDE = 16
#: How many files a finding names.
EXAMPLES = 3

#: Where names often have their camera, from the surest to the least sure.
_GUESSES = (
    r"(?i)(?<![a-z])cam(?:era)?[-_ ]?(?P<camera>[0-9]+)",
    r"(?i)(?<![a-z0-9])c(?P<camera>[0-9]+)(?![0-9])",
)


@dataclass(frozen=True)
class Picture:
    """One file, what it is for (train, query, gallery), and what its place says of it."""

    part: str
    item: FolderItem


@dataclass(frozen=True)
class Reading:
    """What opening a file gave: its size in pixels, a hash of its bytes and its look.

    ``reason`` says why it could not be read, and is "" where it could.
    """

    width: int = 0
    height: int = 0
    digest: bytes = b""
    look: np.ndarray = field(default_factory=lambda: np.zeros(16, dtype=np.uint8))
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """One remark: ``error`` (training or its score would fail), ``warning`` or ``note``."""

    level: str
    text: str


def list_pictures(dataset: Any, parts: Iterable[str]) -> list[Picture]:
    """Return the images of a fast-reid data set or of a
    :class:`unreid.data.folder_dataset.FolderDataset`, part by part.
    """
    return [picture for part in parts for picture in pictures_of(getattr(dataset, part), part)]


def pictures_of(rows: Iterable[Sequence[Any]], part: str) -> list[Picture]:
    """Return the images of rows (path, id, camera, tracklet if any), as images of ``part``."""
    found = []
    for path, pid, camera, *rest in rows:
        name = str(pid)
        nobody = not name or name.startswith("nobody ")
        item = FolderItem(
            str(path),
            str(camera),
            None if nobody else name,
            str(rest[0]) if rest and rest[0] else None,
        )
        found.append(Picture(part, item))
    return found


def read_pictures(paths: Sequence[str], step: Callable[[], None] = lambda: None) -> list[Reading]:
    """Every file opened and decoded to the end; calls ``step`` after each."""
    readings = []
    # Pillow and hashlib release the lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for reading in pool.map(_read, paths):
            readings.append(reading)
            step()
    return readings


def _read(path: str) -> Reading:
    try:
        image = load_image(path)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).digest()
    except UnreadableImageError as error:
        return Reading(reason=str(error.__cause__))
    except OSError as error:
        return Reading(reason=str(error))
    return Reading(image.width, image.height, digest, look(image))


def table(pictures: Sequence[Picture], readings: Sequence[Reading]) -> list[dict[str, object]]:
    """One row for each part and camera, and one for all: counts and sizes."""
    rows = []
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        groups[picture.part, picture.item.camera].append(i)
    everything = [(("all", "all"), list(range(len(pictures))))] if len(groups) > 1 else []
    for (part, camera), own in [*groups.items(), *everything]:
        good = [readings[i] for i in own if not readings[i].reason]
        items = [pictures[i].item for i in own]
        rows.append(
            {
                "part": part,
                "camera": camera,
                "images": len(own),
                "people": len({item.pid for item in items if item.pid is not None}) or "-",
                "tracklets": len({(item.camera, item.tracklet) for item in items if item.tracklet})
                or "-",
                "width": _spread([r.width for r in good]),
                "height": _spread([r.height for r in good]),
                "unreadable": len(own) - len(good),
            }
        )
    return rows


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}, median {np.median(values):.0f}"


def findings(
    pictures: Sequence[Picture],
    readings: Sequence[Reading],
    *,
    min_images: int = 20,
    skip_bad: bool = False,
) -> list[Finding]:
    """What is amiss, errors first; each says what to do.

    Args:
        pictures: The N files.
        readings: What opening each gave.
        min_images: A camera with fewer training images is named.
        skip_bad: Unreadable pictures will be left out (``UNSUP.BAD_IMAGE skip``).
    """
    if not pictures:
        return [
            Finding(
                "error",
                "no picture (jpg, jpeg, png, webp, bmp, in any case) was found;"
                " name the folder that holds them",
            )
        ]
    found = [
        *_unreadable(pictures, readings, skip_bad),
        *_copies(pictures, readings),
        *_cameras(pictures, min_images),
        *_people(pictures),
        *_small(pictures, readings),
        *_look_alikes(pictures, readings),
    ]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _named(paths: Sequence[str]) -> str:
    rest = f" and {len(paths) - EXAMPLES} more" if len(paths) > EXAMPLES else ""
    return ", ".join(paths[:EXAMPLES]) + rest


def _unreadable(
    pictures: Sequence[Picture], readings: Sequence[Reading], skip_bad: bool
) -> list[Finding]:
    bad = [f"{p.item.path} ({r.reason})" for p, r in zip(pictures, readings) if r.reason]
    if not bad:
        return []
    if skip_bad and len(bad) < len(pictures):
        return [
            Finding(
                "warning", f"{len(bad)} unreadable, left out by UNSUP.BAD_IMAGE skip: {_named(bad)}"
            )
        ]
    return [
        Finding(
            "error",
            f"{len(bad)} unreadable: {_named(bad)}; mend or remove them, or train"
            " without them: UNSUP.BAD_IMAGE skip",
        )
    ]


def _copies(pictures: Sequence[Picture], readings: Sequence[Reading]) -> list[Finding]:
    """Files that are the same to the byte."""
    same: dict[bytes, list[FolderItem]] = defaultdict(list)
    tested, trained = set[bytes](), set[bytes]()
    for picture, reading in zip(pictures, readings):
        if reading.reason:
            continue
        same[reading.digest].append(picture.item)
        (trained if picture.part == "train" else tested).add(reading.digest)
    groups = [items for items in same.values() if len(items) > 1]
    found = []
    both = [" = ".join(i.path for i in same[d]) for d in sorted(trained & tested)]
    if both:
        found.append(
            Finding(
                "error",
                f"{len(both)} pictures are for training and for the test, so"
                f" the score says nothing: {_named(both)}; remove one of each",
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
                Finding(
                    "warning",
                    f"{len(wrong)} pictures are in two {what} at once:"
                    f" {_named(wrong)}; a copy was misfiled: remove it",
                )
            )
    if groups:
        extra = sum(len(items) - 1 for items in groups)
        listed = [" = ".join(i.path for i in items) for items in groups]
        found.append(
            Finding(
                "warning",
                f"{extra} exact copies of {len(groups)} pictures:"
                f" {_named(listed)}; remove the copies",
            )
        )
    return found


def _cameras(pictures: Sequence[Picture], min_images: int) -> list[Finding]:
    counts = Counter(p.item.camera for p in pictures if p.part not in ("query", "gallery"))
    found = []
    if len(counts) == 1:
        found.append(
            Finding(
                "warning",
                f"all training images are of one camera"
                f" ({next(iter(counts))}): methods that use cameras have nothing to"
                " use; say where the camera is written (a pattern, sub-folders, a"
                " CSV)",
            )
        )
    few = [f"{camera} ({count})" for camera, count in sorted(counts.items()) if count < min_images]
    if few:
        found.append(
            Finding(
                "warning",
                f"{len(few)} cameras have fewer than {min_images} training"
                f" images: {_named(few)}; add pictures, or join or leave out the"
                " camera",
            )
        )
    return found


def _people(pictures: Sequence[Picture]) -> list[Finding]:
    found = []
    trained = {p.item.pid for p in pictures if p.part == "train"} - {None}
    tested = {p.item.pid for p in pictures if p.part in ("query", "gallery")} - {None}
    both = sorted(str(pid) for pid in trained & tested)
    if both:
        found.append(
            Finding(
                "warning",
                f"{len(both)} names of people are in training and in the"
                f" test: {_named(both)}; unless they were numbered anew, the score is"
                " of people seen before",
            )
        )
    cameras: dict[str | None, set[str]] = defaultdict(set)
    for p in pictures:
        if p.part == "gallery":
            cameras[p.item.pid].add(p.item.camera)
    alone = [
        p.item.path
        for p in pictures
        if p.part == "query" and not cameras[p.item.pid] - {p.item.camera}
    ]
    if alone:
        found.append(
            Finding(
                "note",
                f"{len(alone)} queries have no match in another camera and are"
                f" not scored: {_named(alone)}",
            )
        )
    people: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for p in pictures:
        if p.item.tracklet and p.item.pid is not None:
            people[p.part, p.item.camera, p.item.tracklet].add(p.item.pid)
    mixed = sorted(f"{t} of camera {c}" for (_, c, t), own in people.items() if len(own) > 1)
    if mixed:
        found.append(
            Finding(
                "warning",
                f"{len(mixed)} tracklets hold pictures of several people:"
                f" {_named(mixed)}; a tracklet must be of one person: take more of"
                " the name into it",
            )
        )
    return found


def _small(pictures: Sequence[Picture], readings: Sequence[Reading]) -> list[Finding]:
    small = [
        f"{p.item.path} ({r.width} x {r.height})"
        for p, r in zip(pictures, readings)
        if not r.reason and min(r.width, r.height) < SMALLEST_SIDE
    ]
    if not small:
        return []
    return [
        Finding(
            "warning",
            f"{len(small)} pictures have a side below {SMALLEST_SIDE} pixels:"
            f" {_named(small)}; remove them",
        )
    ]


def _look_alikes(pictures: Sequence[Picture], readings: Sequence[Reading]) -> list[Finding]:
    """Near duplicates that are no copies, with those across training and test named first."""
    good = [i for i, r in enumerate(readings) if not r.reason]
    if not good:
        return []
    groups = group_looks(np.stack([readings[i].look for i in good]))
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in zip(good, groups.tolist()):
        members[group].append(i)
    alike = [own for own in members.values() if len({readings[i].digest for i in own}) > 1]
    if not alike:
        return []
    across = [own for own in alike if len({pictures[i].part == "train" for i in own}) > 1]
    listed = [" ~ ".join(pictures[i].item.path for i in own[:2]) for own in across or alike]
    where = f", {len(across)} of them across training and test" if across else ""
    return [
        Finding(
            "note",
            f"{sum(map(len, alike))} pictures look like another in"
            f" {len(alike)} groups{where}: {_named(listed)}; frames in a row often do, and"
            " nothing is to mend unless it is one picture saved twice",
        )
    ]


def suggest_reading(names: Sequence[str]) -> str:
    """Options that find two cameras or more in these relative paths, or "".

    Args:
        names: Paths relative to the root.
    """
    for guess in _GUESSES:
        found = [re.search(guess, name) for name in names]
        cameras = {match["camera"] for match in found if match}
        if names and all(found) and len(cameras) > 1:
            return f"--camera-pattern '{guess}' ({len(cameras)} cameras)"
    folders = {name.split("/")[0] for name in names if "/" in name}
    if len(folders) > 1 and all("/" in name for name in names):
        return f"--camera subfolder ({len(folders)} cameras), if a sub-folder is a camera"
    return ""
