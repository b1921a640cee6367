"""Training images without ids: any fast-reid data set becomes paths and cameras.

Person ids stop here. They come back as a separate array that only
``unreid.evaluation.label_quality`` reads; nothing that trains has a field for them.

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
from unreid.data.images import ADVICE, UnreadableImageError, unreadable

logger = logging.getLogger("fastreid.unreid.data")


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth
class UnlabelledImages:
    """The sorted training list: the order of every array of a run.

    Attributes:
        paths: N file paths.
        camids: (N,) int64 cameras 0..M-1, in the order of ``cameras``.
        cameras: M names, ``market1501_0`` and the like: cameras of two sets stay apart.
        root: The folder that published label files give paths relative to.
        tracklets: (N,) int64, 0..T-1 by first appearance, where a tracker has joined frames of one
            person in one camera; None where every image stands for itself.
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
        """What is labelled: the first image of every tracklet (T,), or every image (N,)."""
        if self.tracklets is None:
            return np.arange(len(self))
        return np.unique(self.tracklets, return_index=True)[1]

    def of_images(self, labels: np.ndarray) -> np.ndarray:
        """(N,) from one value for each of :attr:`unit_indices`: a frame has its tracklet's."""
        return labels if self.tracklets is None else labels[self.tracklets]

    @property
    def relative_paths(self) -> list[str]:
        """The paths relative to ``root``, with forward slashes on every system."""
        return [os.path.relpath(p, self.root).replace(os.sep, "/") for p in self.paths]

    def subset(self, indices: np.ndarray) -> UnlabelledImages:
        """The images at ``indices`` (ascending), with the cameras that are left renumbered."""
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
    """``FASTREID_DATASETS``, or ``datasets``; read at call, not at import as fast-reid does."""
    return os.environ.get("FASTREID_DATASETS", "datasets")


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key in which camera_10 comes after camera_2."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def build_dataset(name: str, key: str, cfg: Any = None) -> object:
    """A fast-reid data set, or your folder, with errors that say which folder was looked for.

    Raises:
        KeyError: no data set of that name.
        FileNotFoundError: its folder is not under ``FASTREID_DATASETS``.
        ValueError: "Folder" without a config that says which, or a folder that does not fit it.
    """
    known = DATASET_REGISTRY._obj_map
    if name == FOLDER:
        if cfg is None:
            raise ValueError(f"{key} {FOLDER}: a config must name the folder (UNSUP.FOLDER.ROOT)")
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
            f"{key} {name}: {error}. Looked under {os.path.abspath(root)}; set the environment"
            " variable FASTREID_DATASETS to the folder that holds the data sets"
            + (f', or {key} "()" to train without a test' if key == "DATASETS.TESTS" else "")
        ) from error


def load_training_images(
    names: Sequence[str], *, bad_image: str = "error", cfg: Any = None
) -> tuple[UnlabelledImages, np.ndarray | None]:
    """The training images of one or several data sets, sorted by path.

    A set whose items are (path, id, camera, tracklet) is of video: see
    :attr:`UnlabelledImages.tracklets`.

    Args:
        names: Data sets of fast-reid's registry (``cfg.DATASETS.NAMES``).
        bad_image: Every file is decoded once (some 5,000 small crops a second), so that a
            truncated one does not show after hours: ``"error"`` names it and stops, ``"skip"``
            leaves it out with a warning that names it.
        cfg: Says which folder "Folder" is (``cfg.UNSUP.FOLDER``).

    Returns:
        The images, and the ids (N,) int64 for :mod:`unreid.evaluation.label_quality` alone, or
        None where not every image has one.

    Raises:
        KeyError, FileNotFoundError: see :func:`build_dataset`.
        ValueError: a set without a training image, or an image that cannot be read.
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
    rows = _readable(rows, skip=bad_image == "skip")
    cameras = sorted({row.camera for row in rows}, key=_natural)
    position = {cam: i for i, cam in enumerate(cameras)}
    images = UnlabelledImages(
        paths=tuple(row.path for row in rows),
        camids=np.array([position[row.camera] for row in rows], dtype=np.int64),
        cameras=tuple(cameras),
        root=train_folder(cfg.UNSUP.FOLDER) if list(names) == [FOLDER] else datasets_root(),
        tracklets=number_tracklets((row.tracklet, row.camera, row.path) for row in rows),
    )
    nameless = sum(not row.pid for row in rows)
    pids = None
    if nameless == 0:
        pids = np.unique([row.pid for row in rows], return_inverse=True)[1].astype(np.int64)
    logger.info(
        f"Training on {len(images)} images of {len(cameras)} cameras without ids: "
        + ", ".join(f"{c} {n}" for c, n in zip(cameras, np.bincount(images.camids)))
        + ("" if images.tracklets is None else f"; {len(images.unit_indices)} tracklets")
    )
    if 0 < nameless < len(rows):
        logger.info(f"{nameless} of {len(rows)} images have no id: labels are not scored")
    return images, pids


def training_rows(name: str, dataset: object, cfg: Any = None) -> list[tuple[Any, ...]]:
    """Return what a data set trains on: rows (path, id, camera, tracklet if any).

    Args:
        name: As in ``DATASETS.NAMES``.
        dataset: What :func:`build_dataset` returned for it.
        cfg: ``cfg.UNSUP.TRAIN_WITH_VAL`` adds the validation images; None adds nothing.

    Raises:
        ValueError: validation images of a data set that has no list of them.
    """
    rows = list(dataset.train)  # type: ignore[attr-defined]
    if cfg is not None and cfg.UNSUP.TRAIN_WITH_VAL:
        rows += _validation_items(name, dataset)
    return rows


def _validation_items(name: str, dataset: object) -> list[tuple[Any, ...]]:
    """Return the images of ``list_val.txt``, which fast-reid reads and then leaves out.

    Raises:
        ValueError: a data set without a list of validation images.
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
    """fast-reid gives ``market1501_3``, or a bare number, or the name that the class has inside,
    which two sets may share."""
    text, prefix = str(camera), f"{dataset.lower()}_"
    return text if text.startswith(prefix) else prefix + text


class _Row(NamedTuple):
    path: str
    pid: str
    camera: str
    tracklet: str


def number_tracklets(items: Iterable[tuple[str, Any, str]]) -> np.ndarray | None:
    """(N,) int64 numbers by first appearance, or None where no image has a tracklet.

    Args:
        items: (tracklet, camera, path) of each image; an empty tracklet makes one of its own.

    Raises:
        ValueError: a tracklet that two cameras see; names it and an image.
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


def _readable(rows: list[_Row], *, skip: bool) -> list[_Row]:
    bad = unreadable([row.path for row in rows])
    if bad and not skip:
        path, reason = next(iter(bad.items()))
        others = f" (and {len(bad) - 1} others)" if len(bad) > 1 else ""
        raise UnreadableImageError(
            f"{path}{others} cannot be read as an image ({reason}); {ADVICE}"
        )
    for path, reason in bad.items():
        logger.warning(f"UNSUP.BAD_IMAGE skip: {path} is left out ({reason})")
    kept = [row for row in rows if row.path not in bad]
    if not kept:
        raise ValueError(f"UNSUP.BAD_IMAGE skip: none of {len(rows)} training images is readable")
    return kept
