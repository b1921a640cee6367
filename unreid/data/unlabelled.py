"""Training images without person ids: paths, cameras and tracklets of any fast-reid dataset.

Person ids are separated from the training images here. They are returned as an array for
``unreid.evaluation.label_quality``; no class used in training has a field for them.

Notation: N images, T tracklets.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY

from unreid.checks import nearest
from unreid.clustering.partition import compact
from unreid.data.folder_dataset import FOLDER, FolderDataset, train_folder
from unreid.data.images import ADVICE, UnreadableImageError, find_unreadable

logger = logging.getLogger("fastreid.unreid.data")


@dataclass(frozen=True, eq=False)  # arrays do not compare to a single bool
class UnlabelledImages:
    """Sorted list of training images. Its order is the order of every array of a run.

    Attributes:
        paths: N file paths.
        camids: (N,) int64 cameras 0..M-1, in the order of ``cameras``.
        cameras: M camera names such as ``market1501_0``; each begins with the name of its dataset.
        root: Folder that the paths in label files are relative to.
        tracklets: (N,) int64 tracklets 0..T-1, numbered by first appearance, of frames that a
            tracker assigned to one person in one camera; None if images have no tracklets.
    """

    paths: tuple[str, ...]
    camids: np.ndarray
    cameras: tuple[str, ...]
    root: str
    tracklets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def unit_indices(self) -> np.ndarray:
        """Indices of the images that are labelled: the first of each tracklet (T,), or all (N,)."""
        if self.tracklets is None:
            return np.arange(len(self))
        return np.unique(self.tracklets, return_index=True)[1]

    def of_images(self, labels: np.ndarray) -> np.ndarray:
        """Return (N,) labels of all images from those of :attr:`unit_indices`."""
        return labels if self.tracklets is None else labels[self.tracklets]

    @property
    def relative_paths(self) -> list[str]:
        """Paths relative to ``root``, with forward slashes on every system."""
        return [os.path.relpath(p, self.root).replace(os.sep, "/") for p in self.paths]

    def subset(self, indices: np.ndarray) -> UnlabelledImages:
        """Return the images at ``indices`` (ascending), with their cameras renumbered from 0."""
        camids = self.camids[indices]
        kept = np.unique(camids)
        return UnlabelledImages(
            tuple(self.paths[i] for i in indices),
            np.searchsorted(kept, camids).astype(np.int64),
            tuple(self.cameras[c] for c in kept),
            self.root,
            None if self.tracklets is None else compact(self.tracklets[indices]),
        )


def datasets_root() -> str:
    """Return the folder of all datasets: ``$FASTREID_DATASETS``, or ``datasets``.

    Unlike fast-reid, this reads the variable when called, not when imported.
    """
    return os.environ.get("FASTREID_DATASETS", "datasets")


def _natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts camera_10 after camera_2."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def build_dataset(name: str, key: str, cfg: Any = None) -> object:
    """Return a fast-reid dataset, or the dataset "Folder" of a config.

    Args:
        name: Name in fast-reid's registry, or "Folder".
        key: Config key that has the name, for messages.
        cfg: The config; needed for "Folder" (``cfg.UNSUP.FOLDER``).

    Raises:
        KeyError: Unknown name; lists the known ones.
        FileNotFoundError: The folder of the dataset does not exist; names the folder.
        ValueError: "Folder" without a config, or its settings do not fit the folder.
    """
    known = DATASET_REGISTRY._obj_map
    if name == FOLDER:
        if cfg is None:
            raise ValueError(f"{key} {FOLDER}: needs a config with the folder (UNSUP.FOLDER.ROOT)")
        return FolderDataset.from_config(cfg)
    if name not in known:
        raise KeyError(
            f"{key}: no data set {name!r}{nearest(name, [*known, FOLDER])}; known: "
            + ", ".join([FOLDER, *sorted(known)])
        )
    root = datasets_root()
    try:
        return DATASET_REGISTRY.get(name)(root=root)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{key} {name}: {error}. Searched in {os.path.abspath(root)}; set the environment"
            " variable FASTREID_DATASETS to the folder of the datasets"
            + (f', or {key} "()" to skip evaluation' if key == "DATASETS.TESTS" else "")
        ) from error


def load_training_images(
    names: Sequence[str], *, bad_image: str = "error", cfg: Any = None
) -> tuple[UnlabelledImages, np.ndarray | None]:
    """Return the training images of one or more datasets, sorted by path.

    Every file is decoded once (some 5,000 small crops per second), so that a damaged file is an
    error now, not after hours of training. Video datasets, whose items are (path, id, camera,
    tracklet), set :attr:`UnlabelledImages.tracklets`.

    Args:
        names: Names of datasets (``cfg.DATASETS.NAMES``).
        bad_image: ``"error"``: an unreadable file is an error; ``"skip"``: it is skipped with a
            warning (``cfg.UNSUP.BAD_IMAGE``).
        cfg: The config; needed for the dataset "Folder".

    Returns:
        The images, and the person ids (N,) int64 for :mod:`unreid.evaluation.label_quality`, or
        None if an image has no id.

    Raises:
        KeyError: See :func:`build_dataset`.
        FileNotFoundError: See :func:`build_dataset`.
        ValueError: A dataset has no training image, or an image cannot be read.
    """
    rows: list[_Row] = []
    for name in names:
        dataset = build_dataset(name, "DATASETS.NAMES", cfg)
        items = training_rows(name, dataset, cfg)
        if not items:
            raise ValueError(
                f"DATASETS.NAMES {name}: no training image found in"
                f" {getattr(dataset, 'train_dir', datasets_root())}"
            )
        rows += [
            _Row(
                str(path),
                "" if pid == "" else f"{name}/{pid}",
                _camera_name(name, cam),
                f"{name}/{rest[0]}" if rest and rest[0] else "",
            )
            for path, pid, cam, *rest in items
        ]
    rows.sort()
    rows = _drop_unreadable(rows, skip=bad_image == "skip")
    cameras = sorted({row.camera for row in rows}, key=_natural_key)
    position = {cam: i for i, cam in enumerate(cameras)}
    images = UnlabelledImages(
        paths=tuple(row.path for row in rows),
        camids=np.array([position[row.camera] for row in rows], dtype=np.int64),
        cameras=tuple(cameras),
        root=train_folder(cfg.UNSUP.FOLDER) if list(names) == [FOLDER] else datasets_root(),
        tracklets=number_tracklets((row.tracklet, row.camera, row.path) for row in rows),
    )
    num_without_id = sum(not row.pid for row in rows)
    pids = None
    if num_without_id == 0:
        pids = np.unique([row.pid for row in rows], return_inverse=True)[1].astype(np.int64)
    logger.info(
        f"Training on {len(images)} images of {len(cameras)} cameras without ids: "
        + ", ".join(f"{c} {n}" for c, n in zip(cameras, np.bincount(images.camids)))
        + ("" if images.tracklets is None else f"; {len(images.unit_indices)} tracklets")
    )
    if 0 < num_without_id < len(rows):
        logger.info(
            f"{num_without_id} of {len(rows)} images have no id: label quality is not computed"
        )
    return images, pids


def training_rows(name: str, dataset: object, cfg: Any = None) -> list[tuple[Any, ...]]:
    """Return the training rows (path, id, camera[, tracklet]) of a dataset.

    Args:
        name: Name of the dataset in ``DATASETS.NAMES``.
        dataset: The dataset of that name, see :func:`build_dataset`.
        cfg: The config; ``cfg.UNSUP.TRAIN_WITH_VAL`` adds the validation images. None adds none.

    Raises:
        ValueError: ``TRAIN_WITH_VAL`` for a dataset without a list of validation images.
    """
    rows = list(dataset.train)  # type: ignore[attr-defined]
    if cfg is not None and cfg.UNSUP.TRAIN_WITH_VAL:
        rows += _validation_items(name, dataset)
    return rows


def _validation_items(name: str, dataset: object) -> list[tuple[Any, ...]]:
    """Return the rows of ``list_val.txt``, which fast-reid reads but does not use.

    Raises:
        ValueError: The dataset has no list of validation images.
    """
    path = getattr(dataset, "list_val_path", None)
    if path is None:
        raise ValueError(
            f"UNSUP.TRAIN_WITH_VAL must be False for {name}: it has no list of"
            " validation images (MSMT17 has one)"
        )
    items = dataset.process_dir(dataset.train_dir, path)  # type: ignore[attr-defined]
    train = len(dataset.train)  # type: ignore[attr-defined]
    logger.info(
        f"UNSUP.TRAIN_WITH_VAL: {name} has {train} training images and {len(items)}"
        f" validation images, {train + len(items)} together"
    )
    return items


def _camera_name(dataset: str, camera: object) -> str:
    """Return the camera name, prefixed with the name of the dataset unless it already is.

    The camera of a fast-reid dataset is a number, or has the prefix of the class attribute
    ``dataset_name``, which two datasets may share.
    """
    text, prefix = str(camera), f"{dataset.lower()}_"
    return text if text.startswith(prefix) else prefix + text


class _Row(NamedTuple):
    path: str
    pid: str
    camera: str
    tracklet: str


def number_tracklets(items: Iterable[tuple[str, Any, str]]) -> np.ndarray | None:
    """Assign numbers to tracklets, by first appearance.

    Args:
        items: (tracklet, camera, path) of each image. An image with tracklet "" is a tracklet of
        its
            own.

    Returns:
        (N,) int64 tracklet of each image, or None if no image has one.

    Raises:
        ValueError: A tracklet is in two cameras; names it and an image.
    """
    numbers: list[int] = []
    known: dict[str, tuple[int, Any]] = {}
    any_named = False
    for tracklet, camera, path in items:
        any_named |= bool(tracklet)
        number, seen_by = known.setdefault(tracklet or f"image {path}", (len(known), camera))
        if seen_by != camera:
            raise ValueError(
                f"tracklet {tracklet!r} must be of one camera, got {seen_by} and {camera} ({path})"
            )
        numbers.append(number)
    return np.array(numbers, dtype=np.int64) if any_named else None


def _drop_unreadable(rows: list[_Row], *, skip: bool) -> list[_Row]:
    """Return the rows of readable files; without ``skip``, an unreadable file is an error."""
    bad = find_unreadable([row.path for row in rows])
    if bad and not skip:
        path, reason = next(iter(bad.items()))
        others = f" (and {len(bad) - 1} others)" if len(bad) > 1 else ""
        raise UnreadableImageError(
            f"{path}{others} cannot be read as an image ({reason}); {ADVICE}"
        )
    for path, reason in bad.items():
        logger.warning(f"UNSUP.BAD_IMAGE skip: {path} is skipped ({reason})")
    kept = [row for row in rows if row.path not in bad]
    if not kept:
        raise ValueError(f"UNSUP.BAD_IMAGE skip: none of {len(rows)} training images is readable")
    return kept
