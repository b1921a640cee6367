"""Data loaders on fast-reid's transforms, and a loader whose contents change every epoch.

Training and extraction share the worker processes of :mod:`unreid.data.workers`, which stay from
epoch to epoch; a test set has workers of its own, which end with it.

Notation: B batch, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from torch.utils.data import DataLoader

from unreid import compat
from unreid.data.augment import TestTransform
from unreid.data.images import ImageDataset
from unreid.data.making import Request
from unreid.data.unlabelled import UnlabelledImages, build_dataset, number_tracklets
from unreid.data.workers import Pass, fork_context, leave_signals_to_parent, workers_of


class Batches:
    """Batches of a list of images, made by its workers whenever they are gone through.

    Attributes:
        dataset: The images.
    """

    def __init__(
        self,
        cfg: Any,
        images: UnlabelledImages,
        batches: Iterable[Sequence[int]],
        labels: np.ndarray | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.dataset = images
        self._cfg = cfg
        self._batches = batches
        self._labels = labels
        self._generator = generator

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Pass:
        # As a loader of torch starts, and from the same source: of a run's own generator where
        # there is no other.
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=self._generator))
        num = len(self) if hasattr(self._batches, "__len__") else None
        return workers_of(self._cfg, self.dataset).begin(
            lambda turn: self._requests(seed, turn), num=num, training=self._labels is not None
        )

    def _requests(self, seed: int, turn: int) -> Iterator[Request]:
        for number, indices in enumerate(self._batches):
            targets = None
            if self._labels is not None:
                targets = self._labels[np.asarray(indices)].tolist()
            yield Request([int(i) for i in indices], targets, seed, number, turn)

    def part(self, rank: int, ranks: int) -> Batches:
        """Every ``ranks``-th batch, from number ``rank`` on."""
        chosen = list(self._batches)[rank::ranks]
        return Batches(self._cfg, self.dataset, chosen, self._labels, self._generator)


def build_extraction_loader(cfg: Any, images: UnlabelledImages) -> Batches:
    """Test transforms, in the order of the list: batches {images, camids, indices, img_paths}."""
    size = cfg.TEST.IMS_PER_BATCH
    return Batches(cfg, images, [range(start, min(start + size, len(images)))
                                 for start in range(0, len(images), size)])


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
    workers = cfg.DATALOADER.NUM_WORKERS
    loader = DataLoader(
        ImageDataset(paths, _test_transform(cfg), **fields),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=workers,
        multiprocessing_context=fork_context() if workers else None,
        worker_init_fn=leave_signals_to_parent,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
    )
    return loader, len(query)


def _test_transform(cfg: Any) -> Callable[[Any], torch.Tensor]:
    """PIL image -> (3, H, W) in 0..255, by ``INPUT.BACKEND``."""
    if cfg.INPUT.BACKEND == "pil":
        return build_transforms(cfg, is_train=False)
    transform = TestTransform(cfg)
    return lambda picture: transform([np.asarray(picture)])[0]


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
) -> Batches:
    """Training transforms on the batches of a sampler: {images, targets, camids, indices}.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``).
        images: All N training images.
        labels: (N,) today's labels; a batch never holds a -1.
        batches: Lists of indices into ``images``.
        seed: Seeds the augmentation: with INPUT.BACKEND tensor of each batch by itself, the same
            for any number of workers; with pil that of each worker, and without workers nothing:
            fast-reid's transforms then draw from the generators of the run.
    """
    return Batches(cfg, images, batches, labels, torch.Generator().manual_seed(seed))


class SwappableLoader:
    """An endless loader whose inside a hook replaces before every epoch.

    fast-reid's trainer asks for its first batch long before labels exist, and has no setter for a
    loader: this one makes its iterator at the first ``next`` after a :meth:`swap`.
    """

    def __init__(self) -> None:
        self._loader: Iterable[Any] | None = None
        self._iterator: Iterator[Any] | None = None

    def swap(self, loader: Iterable[Any]) -> None:
        """Take another loader; what the old one has made ahead is dropped."""
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
