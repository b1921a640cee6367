"""Synthetic multi-camera dataset in Market-1501's layout.

:func:`generate_dataset` writes a dataset that fast-reid's ``Market1501`` reads. Each identity is
seen by at least two cameras, in bursts of consecutive frames. Training and test identities are
disjoint. A query is the first image of a test identity in each camera [0].

[0] Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015
    https://openaccess.thecvf.com/content_iccv_2015/html/Zheng_Scalable_Person_Re-Identification_ICCV_2015_paper.html
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unreid.checks import check_integer
from unreid.data.synthetic_cameras import (
    MAX_CAMERAS,
    Camera,
    make_camera,
    next_view,
    render_image,
    sample_track,
)
from unreid.data.synthetic_figures import View
from unreid.data.synthetic_people import Identity, sample_identity
from unreid.reading.json_file import read_json

__all__ = [
    "FOLDER",
    "SyntheticSummary",
    "render_contact_sheet",
    "generate_dataset",
    "render_image",
    "make_camera",
    "make_identity",
    "sample_track",
]

FOLDER = "Market-1501-v15.09.15"
MANIFEST = "synthetic.json"
#: Increased when the pixels of a seed change, so that an older dataset is replaced.
VERSION = 2
#: Largest id of Market-1501, which fast-reid checks.
MAX_IDS = 1501
#: Mean number of frames of a burst.
BURST = 3


@dataclass(frozen=True)
class SyntheticSummary:
    """Summary of a synthetic dataset.

    Attributes:
        root: Folder that contains :data:`FOLDER`.
        num_train_images: Images in ``bounding_box_train``.
        num_query_images: Images in ``query``.
        num_gallery_images: Images in ``bounding_box_test``.
        num_train_ids: Training identities.
        num_test_ids: Test identities.
        num_cameras: Cameras.
        generated: False if the dataset already existed.
    """

    root: str
    num_train_images: int
    num_query_images: int
    num_gallery_images: int
    num_train_ids: int
    num_test_ids: int
    num_cameras: int
    generated: bool


def make_identity(pid: int, seed: int = 0) -> Identity:
    """Return the appearance of identity ``pid`` (>= 1) in the dataset of ``seed``."""
    return sample_identity(np.random.default_rng([seed, 1, pid]))


def _visits(
    num_cameras: int, images_per_id: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Sample the (camera, number of images) of one identity: >= 2 cameras with >= 2 images each."""
    most = min(num_cameras, images_per_id // 2, 5)
    count = int(rng.integers(2, most + 1))
    cameras = np.sort(rng.choice(num_cameras, count, replace=False))
    share = np.full(count, images_per_id // count)
    share[: images_per_id % count] += 1
    return [(int(c), int(n)) for c, n in zip(cameras, rng.permutation(share))]


def _tracks(camera: Camera, images: int, rng: np.random.Generator) -> list[tuple[int, int, View]]:
    """Sample the (sequence, frame, view) of every image of one identity in one camera."""
    views = []
    num_bursts = max(1, round(images / BURST)) if images > BURST + 1 else 1
    for sequence, burst in enumerate(np.array_split(np.arange(images), num_bursts), start=1):
        first, start = sample_track(camera, rng), int(rng.integers(1, 90000))
        for frame in range(len(burst)):
            views.append((sequence, start + 12 * frame, next_view(camera, first, frame, rng)))
    return views


def _render_person(
    pid: int, cameras: list[Camera], images_per_id: int, size: tuple[int, int], seed: int,
    folders: tuple[Path, Path],
) -> tuple[int, int]:  # fmt: skip
    """Render the images of one identity; return their numbers per folder.

    The first image of each camera is saved in ``folders[0]``, the others in ``folders[1]``.
    """
    person, first, rest = make_identity(pid, seed), 0, 0
    rng = np.random.default_rng([seed, 2, pid])
    for index, images in _visits(len(cameras), images_per_id, rng):
        camera = cameras[index]
        for number, (sequence, frame, view) in enumerate(_tracks(camera, images, rng)):
            name = f"{pid:04d}_c{index + 1}s{sequence}_{frame:06d}_{number:02d}.jpg"
            folder = folders[0] if number == 0 else folders[1]
            image = render_image(person, camera, view, rng, size)
            image.save(folder / name, quality=camera.quality, subsampling=0)
            first, rest = first + (number == 0), rest + (number > 0)
    return first, rest


def _render_all(target: Path, wanted: dict[str, Any]) -> dict[str, int]:
    """Render all images into the three folders of ``target``; return the number of each part."""
    train, query, gallery = (
        target / name for name in ("bounding_box_train", "query", "bounding_box_test")
    )
    for folder in (train, query, gallery):
        folder.mkdir(parents=True)
    seed, size = wanted["seed"], (wanted["size"][0], wanted["size"][1])
    cameras = [make_camera(c, seed) for c in range(wanted["num_cameras"])]
    counts = dict.fromkeys(("train", "query", "gallery"), 0)
    num_train = wanted["num_train_ids"]
    for pid in range(1, num_train + wanted["num_test_ids"] + 1):
        folders = (train, train) if pid <= num_train else (query, gallery)
        first, rest = _render_person(pid, cameras, wanted["images_per_id"], size, seed, folders)
        if pid <= num_train:
            counts["train"] += first + rest
        else:
            counts["query"] += first
            counts["gallery"] += rest
    return counts


def _read_manifest(target: Path) -> dict[str, Any] | None:
    """Return the manifest of an existing synthetic dataset, or None if there is none."""
    try:
        return read_json(target / MANIFEST)
    except (OSError, ValueError):
        return None


def _complete(target: Path, counts: dict[str, int]) -> bool:
    """Return whether the numbers of images in the three folders match the manifest."""
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    return all(len(list((target / folders[k]).glob("*.jpg"))) == n for k, n in counts.items())


def _checked(
    num_train_ids: Any, num_test_ids: Any, num_cameras: Any, images_per_id: Any, size: Any,
    seed: Any,
) -> dict[str, Any]:  # fmt: skip
    """Check the arguments of :func:`generate_dataset`; return them as the manifest stores them."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (width, height), got {size!r}")
    wanted = {
        "version": VERSION,
        "num_train_ids": check_integer("num_train_ids", num_train_ids, 1, MAX_IDS - 1),
        "num_test_ids": check_integer("num_test_ids", num_test_ids, 1, MAX_IDS - 1),
        "num_cameras": check_integer("num_cameras", num_cameras, 2, MAX_CAMERAS),
        "images_per_id": check_integer("images_per_id", images_per_id, 4, 99),
        "size": [
            check_integer("size[0] (width)", size[0], 16, 1024),
            check_integer("size[1] (height)", size[1], 32, 2048),
        ],
        "seed": check_integer("seed", seed, 0),
    }
    check_integer("num_train_ids + num_test_ids", num_train_ids + num_test_ids, 2, MAX_IDS)
    return wanted


def generate_dataset(
    root: str | Path,
    *,
    num_train_ids: int = 110,
    num_test_ids: int = 60,
    num_cameras: int = 6,
    images_per_id: int = 12,
    size: tuple[int, int] = (64, 128),
    seed: int = 0,
) -> SyntheticSummary:
    """Generate the dataset in ``root/Market-1501-v15.09.15``, unless it already exists.

    The images depend on the arguments only (and on Pillow's JPEG encoder). They are written to a
    temporary folder that is renamed at the end, so that an interrupted call leaves no partial
    dataset.

    Args:
        root: Folder for ``FASTREID_DATASETS``; created if missing.
        num_train_ids: Identities in ``bounding_box_train``, >= 1.
        num_test_ids: Identities in ``query`` and ``bounding_box_test``, >= 1; at most 1501
            identities in total.
        num_cameras: Number of cameras, 2 to 6.
        images_per_id: Images of each identity over all cameras, 4 to 99.
        size: (width, height) of an image in pixels, at least (16, 32).
        seed: Random seed, >= 0.

    Returns:
        The summary of the dataset.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: ``root`` has a dataset of that name that is not synthetic.
    """
    wanted = _checked(num_train_ids, num_test_ids, num_cameras, images_per_id, size, seed)
    root = Path(root)
    target = root / FOLDER
    found = _read_manifest(target)
    if target.exists() and found is None:
        raise FileExistsError(
            f"{target} exists and has no {MANIFEST}, so it is not a synthetic dataset and is"
            " not overwritten; name another folder"
        )
    if found is not None and found.get("wanted") == wanted and _complete(target, found["counts"]):
        return _summary(root, found["counts"], wanted, generated=False)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".generating-") as scratch:
        fresh = Path(scratch) / FOLDER
        counts = _render_all(fresh, wanted)
        manifest = {"wanted": wanted, "counts": counts}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return _summary(root, counts, wanted, generated=True)


def _summary(
    root: Path, counts: dict[str, int], wanted: dict[str, Any], generated: bool
) -> SyntheticSummary:
    """Return the summary of a dataset from its counts and checked arguments."""
    return SyntheticSummary(
        root=str(root),
        num_train_images=counts["train"],
        num_query_images=counts["query"],
        num_gallery_images=counts["gallery"],
        num_train_ids=wanted["num_train_ids"],
        num_test_ids=wanted["num_test_ids"],
        num_cameras=wanted["num_cameras"],
        generated=generated,
    )


def render_contact_sheet(
    pids: Sequence[int] = (3, 10, 9, 8, 6, 4),
    *,
    num_cameras: int = MAX_CAMERAS,
    views: int = 2,
    size: tuple[int, int] = (72, 144),
    seed: int = 0,
    margin: int = 3,
) -> Image.Image:
    """Render a contact sheet (RGB): one row per identity, ``views`` columns per camera.

    Args:
        pids: Identities of the dataset of ``seed``, each >= 1.
        num_cameras: Number of cameras, 1 to 6.
        views: Images per identity and camera, >= 1, each of a different track.
        size: (width, height) of one image in pixels.
        seed: Random seed, >= 0.
        margin: White pixels between images; twice as many between cameras.

    Raises:
        ValueError: An argument is out of range.
    """
    check_integer("num_cameras", num_cameras, 1, MAX_CAMERAS)
    check_integer("views", views, 1)
    check_integer("margin", margin, 0)
    width, height = size
    block = views * (width + margin) + margin
    sheet = Image.new(
        "RGB", (num_cameras * block - 2 * margin, len(pids) * (height + margin) - margin), "white"
    )
    for row, pid in enumerate(pids):
        person = make_identity(check_integer("pid", pid, 1), seed)
        for column in range(num_cameras):
            camera = make_camera(column, seed)
            rng = np.random.default_rng([seed, 3, pid, column])
            for number in range(views):
                view = next_view(camera, sample_track(camera, rng), 0, rng)
                corner = (column * block + number * (width + margin), row * (height + margin))
                sheet.paste(render_image(person, camera, view, rng, size), corner)
    return sheet


def __getattr__(name: str) -> Any:
    """Return :func:`generate_dataset` for its name in version 0.1, with a warning."""
    if name != "draw_dataset":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "unreid.data.synthetic.draw_dataset was renamed to generate_dataset; the old name will be"
        " removed in the next version",
        FutureWarning,
        stacklevel=2,
    )
    return generate_dataset
