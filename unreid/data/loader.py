"""Data loaders on fast-reid's transforms, and a loader whose contents change every epoch.

Letters: B batch, N images.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from torch.utils.data import DataLoader

from unreid import compat
from unreid.data.images import ImageDataset
from unreid.data.unlabelled import UnlabelledImages, build_dataset, number_tracklets


def _fork() -> Any:
    """Fork where it exists: a spawned worker would import torch again (39 s for 190 images)."""
    return multiprocessing.get_context("fork") if sys.platform == "linux" else None


def _loader(dataset: ImageDataset, cfg: Any, **kwargs: Any) -> DataLoader:
    workers = cfg.DATALOADER.NUM_WORKERS
    return DataLoader(
        dataset,
        num_workers=workers,
        multiprocessing_context=_fork() if workers else None,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
        **kwargs,
    )


def build_extraction_loader(cfg: Any, images: UnlabelledImages) -> DataLoader:
    """Test transforms, in the order of the list: batches {images, camids, indices, img_paths}."""
    compat.rebind()
    dataset = ImageDataset(images.paths, build_transforms(cfg, is_train=False),
                           camids=images.camids, indices=range(len(images)))
    return _loader(dataset, cfg, batch_size=cfg.TEST.IMS_PER_BATCH)


def build_test_loader(cfg: Any, dataset_name: str) -> tuple[DataLoader, int]:
    """Query, then gallery, of a fast-reid data set, with its ids: (loader, number of query images).

    Of a set whose items are (path, id, camera, tracklet), batches have ``tracklets`` too.

    Raises:
        KeyError, FileNotFoundError: see :func:`unreid.data.unlabelled.build_dataset`.
        ValueError: a set without query or gallery images.
    """
    compat.rebind()
    dataset = build_dataset(dataset_name, "DATASETS.TESTS", cfg)
    query = sorted(dataset.query)  # type: ignore[attr-defined]
    gallery = sorted(dataset.gallery)  # type: ignore[attr-defined]
    for part, items in (("query", query), ("gallery", gallery)):
        if not items:
            raise ValueError(f"DATASETS.TESTS {dataset_name}: no {part} image found")
    paths, pids, camids = zip(*(item[:3] for item in query + gallery))
    fields: dict[str, Any] = {"targets": _integers(pids), "camids": _integers(camids)}
    # A query tracklet and a gallery tracklet are two, whatever they are called.
    tracklets = number_tracklets(
        (f"{part}/{item[3]}" if len(item) > 3 and item[3] else "", item[2], str(item[0]))
        for part, items in (("query", query), ("gallery", gallery)) for item in items
    )
    if tracklets is not None:
        fields["tracklets"] = tracklets
    images = ImageDataset(paths, build_transforms(cfg, is_train=False), **fields)
    return _loader(images, cfg, batch_size=cfg.TEST.IMS_PER_BATCH), len(query)


def _integers(values: Sequence[Any]) -> Sequence[int]:
    """Ids as they are, or numbered where a data set names them by strings."""
    if all(isinstance(v, int) for v in values):
        return values
    return np.unique([str(v) for v in values], return_inverse=True)[1].tolist()


def build_train_loader(
    cfg: Any,
    images: UnlabelledImages,
    labels: np.ndarray,
    batches: Iterable[Sequence[int]],
    seed: int,
) -> DataLoader:
    """Training transforms on the batches of a sampler: {images, targets, camids, indices}.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``).
        images: All N training images.
        labels: (N,) today's labels; a batch never holds a -1.
        batches: Lists of indices into ``images``.
        seed: Seeds the augmentation in the workers.
    """
    compat.rebind()
    dataset = ImageDataset(
        images.paths,
        build_transforms(cfg, is_train=True),
        targets=labels,
        camids=images.camids,
        indices=range(len(images)),
    )
    generator = torch.Generator().manual_seed(seed)
    return _loader(dataset, cfg, batch_sampler=batches, generator=generator)


class SwappableLoader:
    """An endless loader whose inside a hook replaces before every epoch.

    fast-reid's trainer asks for its first batch long before labels exist, and has no setter for a
    loader: this one makes its iterator at the first ``next`` after a :meth:`swap`.
    """

    def __init__(self) -> None:
        self._loader: DataLoader | None = None
        self._iterator: Iterator[Any] | None = None

    def swap(self, loader: DataLoader) -> None:
        """Take another loader; the workers of the old one end with their iterator."""
        self._iterator = None
        self._loader = loader

    def __iter__(self) -> SwappableLoader:
        return self

    def __next__(self) -> Any:
        if self._loader is None:
            raise RuntimeError("no labels yet: the label step must run before the first batch")
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)
