"""Training images without ids: any fast-reid data set becomes paths and cameras.

Person ids stop here. They come back as a separate array that only
``unreid.evaluation.label_quality`` reads; nothing that trains has a field for them.

Letters: N images.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY

from unreid.checks import nearest
from unreid.data.images import ADVICE, UnreadableImageError, unreadable

logger = logging.getLogger("fastreid.unreid.data")


@dataclass(frozen=True)
class UnlabelledImages:
    """The sorted training list: the order of every array of a run.

    Attributes:
        paths: N file paths.
        camids: (N,) int64 cameras 0..M-1, in the order of ``cameras``.
        cameras: M names, ``market1501_0`` and the like: cameras of two sets stay apart.
        root: The folder that published label files give paths relative to.
    """

    paths: tuple[str, ...]
    camids: np.ndarray
    cameras: tuple[str, ...]
    root: str

    def __len__(self) -> int:
        return len(self.paths)

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
        )


def datasets_root() -> str:
    """``FASTREID_DATASETS``, or ``datasets``; read at call, not at import as fast-reid does."""
    return os.environ.get("FASTREID_DATASETS", "datasets")


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key in which camera_10 comes after camera_2."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def build_dataset(name: str, key: str) -> object:
    """A fast-reid data set, with errors that say which folder was looked for.

    Raises:
        KeyError: no data set of that name.
        FileNotFoundError: its folder is not under ``FASTREID_DATASETS``.
    """
    known = DATASET_REGISTRY._obj_map
    if name not in known:
        raise KeyError(f"{key}: no data set {name!r}{nearest(name, known)}; known: "
                       + ", ".join(sorted(known)))
    root = datasets_root()
    try:
        return DATASET_REGISTRY.get(name)(root=root)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{key} {name}: {error}. Looked under {os.path.abspath(root)}; set the environment"
            " variable FASTREID_DATASETS to the folder that holds the data sets"
        ) from error


def load_training_images(
    names: Sequence[str], *, bad_image: str = "error"
) -> tuple[UnlabelledImages, np.ndarray | None]:
    """The training images of one or several data sets, sorted by path.

    Args:
        names: Data sets of fast-reid's registry (``cfg.DATASETS.NAMES``).
        bad_image: Every file is decoded once (some 5,000 small crops a second), so that a
            truncated one does not show after hours: ``"error"`` names it and stops, ``"skip"``
            leaves it out with a warning that names it.

    Returns:
        The images, and the ids (N,) int64 for :mod:`unreid.evaluation.label_quality` alone.

    Raises:
        KeyError, FileNotFoundError: see :func:`build_dataset`.
        ValueError: a set without a training image, or an image that cannot be read.
    """
    rows: list[tuple[str, str, str]] = []
    for name in names:
        dataset = build_dataset(name, "DATASETS.NAMES")
        items = dataset.train  # type: ignore[attr-defined]
        if not items:
            raise ValueError(
                f"DATASETS.NAMES {name}: no training image found in"
                f" {getattr(dataset, 'train_dir', datasets_root())}"
            )
        rows += [(str(path), f"{name}/{pid}", _camera_name(name, cam)) for path, pid, cam in items]
    rows.sort()
    rows = _readable(rows, skip=bad_image == "skip")
    cameras = sorted({cam for _, _, cam in rows}, key=_natural)
    position = {cam: i for i, cam in enumerate(cameras)}
    images = UnlabelledImages(
        paths=tuple(path for path, _, _ in rows),
        camids=np.array([position[cam] for _, _, cam in rows], dtype=np.int64),
        cameras=tuple(cameras),
        root=datasets_root(),
    )
    _, pids = np.unique([pid for _, pid, _ in rows], return_inverse=True)
    logger.info(
        f"Training on {len(images)} images of {len(cameras)} cameras without ids: "
        + ", ".join(f"{c} {n}" for c, n in zip(cameras, np.bincount(images.camids)))
    )
    return images, pids.astype(np.int64)


def _camera_name(dataset: str, camera: object) -> str:
    """fast-reid gives ``market1501_3``, or a bare number, or the name that the class has inside,
    which two sets may share."""
    text, prefix = str(camera), f"{dataset.lower()}_"
    return text if text.startswith(prefix) else prefix + text


def _readable(rows: list[tuple[str, str, str]], *, skip: bool) -> list[tuple[str, str, str]]:
    bad = unreadable([path for path, _, _ in rows])
    if bad and not skip:
        path, reason = next(iter(bad.items()))
        others = f" (and {len(bad) - 1} others)" if len(bad) > 1 else ""
        raise UnreadableImageError(
            f"{path}{others} cannot be read as an image ({reason}); {ADVICE}"
        )
    for path, reason in bad.items():
        logger.warning(f"UNSUP.BAD_IMAGE skip: {path} is left out ({reason})")
    kept = [row for row in rows if row[0] not in bad]
    if not kept:
        raise ValueError(f"UNSUP.BAD_IMAGE skip: none of {len(rows)} training images is readable")
    return kept
