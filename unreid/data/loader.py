"""Load batches of images for training, extraction and test.

:class:`ImageLoader` starts worker processes once per image list and keeps them from epoch to epoch.
Its batch sampler yields one :class:`~unreid.data.dataset.BatchSpec` per batch, which carries the
labels: new labels need no new process, and torch discards the batches that workers prefetched for
an earlier epoch.

Notation: N images.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from unreid.data.cache import DecodedImages
from unreid.data.dataset import BatchSpec, BatchTransform, ImageDataset
from unreid.data.images import UnreadableImageError
from unreid.data.unlabelled import UnlabelledImages, build_dataset, number_tracklets
from unreid.data.worker import fork_context, init_worker, stop_workers


class IndexBatches(Protocol):
    """The batches of one epoch, as lists of indices into an image list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[int]]: ...


class _SpecSampler:
    """The batch sampler of a ``DataLoader``, whose specs are replaced every epoch."""

    def __init__(self) -> None:
        self.specs: Iterator[BatchSpec] = iter(())

    def __iter__(self) -> Iterator[BatchSpec]:
        return self.specs


class ImageLoader:
    """A ``DataLoader`` of one image list, with workers that stay from epoch to epoch.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``, ``UNSUP.CACHE_IMAGES``).
        dataset: The images.

    Attributes:
        reading: Number of the epoch whose batches are being fetched, or None.
    """

    def __init__(self, cfg: Any, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.reading: int | None = None
        self._cfg = cfg
        self._transform = BatchTransform(cfg)
        self._sampler = _SpecSampler()
        self._loader: DataLoader | None = None
        self._epochs = 0
        _all.add(self)

    def epoch(
        self, batches: IndexBatches, labels: np.ndarray | None, seed: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the batches of one epoch in order; workers prefetch some.

        Args:
            batches: Indices of the images of each batch.
            labels: (N,) int64 of a training epoch; None for the test transforms.
            seed: Of the augmentation.

        Raises:
            UnreadableImageError: names a file.
            RuntimeError: a worker process has ended, or this loader was closed.
        """
        if labels is not None and self._cfg.UNSUP.CACHE_IMAGES and self.dataset.cache is None:
            self._fill_cache()
        if self._loader is None:
            self._loader = self._start()
        loader = self._loader
        self._epochs += 1
        number = self.reading = self._epochs
        self._sampler.specs = _specs(batches, labels, seed, number)
        try:
            fetched = iter(loader)
            for left in reversed(range(len(batches))):
                if self._loader is not loader:
                    raise RuntimeError("the loader was closed before the last batch of an epoch")
                batch = next(fetched)
                if isinstance(batch, UnreadableImageError):
                    raise batch
                if not left:  # another epoch may begin while this one waits for its end
                    self.reading = None
                yield batch
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # a half-sent batch
            raise RuntimeError(
                "a worker process ended unexpectedly, perhaps killed for lack of memory: fewer"
                " workers (DATALOADER.NUM_WORKERS) or a smaller UNSUP.CACHE_IMAGES need less"
            ) from error
        finally:
            if self.reading == number:
                self.reading = None
            self._transform.end_epoch(number)

    def _start(self) -> DataLoader:
        workers = self._cfg.DATALOADER.NUM_WORKERS
        return DataLoader(
            self.dataset,
            batch_sampler=self._sampler,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=self._transform,  # type: ignore[arg-type]  # not of a list of items
            multiprocessing_context=fork_context() if workers else None,
            worker_init_fn=init_worker,
            persistent_workers=workers > 0,
            pin_memory=self._cfg.MODEL.DEVICE.startswith("cuda"),
            generator=torch.Generator(),  # or torch would advance the global generator
        )

    def _fill_cache(self) -> None:
        """Decode in this process; workers forked afterwards share the memory."""
        workers, budget = self._cfg.DATALOADER.NUM_WORKERS, self._cfg.UNSUP.CACHE_IMAGES
        if workers and fork_context() is None:
            raise ValueError(
                "UNSUP.CACHE_IMAGES must be 0 where workers cannot be forked and share it, or"
                f" DATALOADER.NUM_WORKERS 0, got {budget}"
            )
        self.close()
        self.dataset.cache = DecodedImages.of_files(self.dataset.paths.unpacked(), budget)

    def close(self) -> None:
        """End the worker processes; the next epoch starts new ones."""
        loader, self._loader = self._loader, None
        if loader is not None:
            stop_workers(loader)

    def __del__(self) -> None:
        self.close()


def _specs(
    batches: IndexBatches, labels: np.ndarray | None, seed: int, epoch: int
) -> Iterator[BatchSpec]:
    for number, indices in enumerate(batches):
        of_batch = None if labels is None else labels[np.asarray(indices)].tolist()
        yield BatchSpec([int(i) for i in indices], of_batch, seed, number, epoch)


class Batches:
    """The batches of one epoch; every iteration yields all of them.

    Args:
        loader: Returns the loader of one iteration.
        dataset: The images, for their number N.
        batches: Indices of the images of each batch.
        labels: (N,) int64 of training batches.
        generator: Of the seed of an iteration; None for the global one, as in a ``DataLoader``.
    """

    def __init__(
        self,
        loader: Callable[[], ImageLoader],
        dataset: Any,
        batches: IndexBatches,
        labels: np.ndarray | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.dataset = dataset
        self._loader = loader
        self._batches = batches
        self._labels = labels
        self._generator = generator

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=self._generator))
        yield from self._loader().epoch(self._batches, self._labels, seed)

    def with_batches(self, batches: IndexBatches) -> Batches:
        """Return other batches of the same images."""
        return Batches(self._loader, self.dataset, batches, self._labels, self._generator)

    def part(self, rank: int, num_ranks: int) -> Batches:
        """Return every ``num_ranks``-th batch, from number ``rank`` on.

        These are batches of the whole list, not of a part of it: a feature depends on its batch
        in the last bits, and must not depend on the number of processes.
        """
        return self.with_batches(list(self._batches)[rank::num_ranks])


def in_order(indices: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    """Cut ``indices`` into consecutive batches; the last one may be smaller."""
    return [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]


def build_train_loader(
    cfg: Any, images: UnlabelledImages, labels: np.ndarray, batches: IndexBatches, seed: int
) -> Batches:
    """Training transforms on the batches of a sampler: {images, targets, camids, indices, ...}.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``).
        images: All N training images.
        labels: (N,) int64 labels of this epoch; -1 occurs in no batch.
        batches: Lists of indices into ``images``.
        seed: Of the augmentation. With INPUT.BACKEND tensor the batches are the same for any
            number of workers; with pil they depend on it, and without workers on the global
            generators instead of ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    return Batches(lambda: _loader_of(cfg, images), images, batches, labels, generator)


def build_extraction_loader(cfg: Any, images: UnlabelledImages) -> Batches:
    """Test transforms, in the order of the list: batches {images, camids, indices, img_paths}."""
    batches = in_order(range(len(images)), cfg.TEST.IMS_PER_BATCH)
    return Batches(lambda: _loader_of(cfg, images), images, batches)


def build_test_loader(cfg: Any, dataset_name: str) -> tuple[Batches, int]:
    """Query, then gallery, of a fast-reid data set: (loader, number of query images).

    Batches are {images, targets, camids, img_paths}, with ``tracklets`` where the items of the
    data set are (path, id, camera, tracklet).

    Raises:
        KeyError, FileNotFoundError: see :func:`unreid.data.unlabelled.build_dataset`.
        ValueError: a data set without query or gallery images.
    """
    source: Any = build_dataset(dataset_name, "DATASETS.TESTS", cfg)
    parts = {"query": sorted(source.query), "gallery": sorted(source.gallery)}
    for part, items in parts.items():
        if not items:
            raise ValueError(f"DATASETS.TESTS {dataset_name}: no {part} image found")
    paths, pids, camids = zip(*(item[:3] for items in parts.values() for item in items))
    fields: dict[str, Any] = {"targets": _integers(pids), "camids": _integers(camids)}
    # A query tracklet and a gallery tracklet of one name are two tracklets.
    tracklets = number_tracklets(
        (f"{part}/{item[3]}" if len(item) > 3 and item[3] else "", item[2], str(item[0]))
        for part, items in parts.items()
        for item in items
    )
    if tracklets is not None:
        fields["tracklets"] = tracklets
    dataset = ImageDataset(paths, **fields)
    batches = in_order(range(len(dataset)), cfg.TEST.IMS_PER_BATCH)
    return Batches(lambda: ImageLoader(cfg, dataset), dataset, batches), len(parts["query"])


def _integers(values: Sequence[Any]) -> Sequence[int]:
    """Return ids as they are, or numbered where a data set names them by strings."""
    if all(isinstance(v, int) for v in values):
        return values
    return np.unique([str(v) for v in values], return_inverse=True)[1].tolist()


class SwappableLoader:
    """The trainer's loader: yields the batches of the labels in force.

    fast-reid's trainer takes a loader when it is built, before there are labels. An epoch starts
    at the first ``next`` after :meth:`swap`.
    """

    def __init__(self) -> None:
        self._batches: Batches | None = None
        self._epoch: Iterator[Any] | None = None

    def swap(self, batches: Batches) -> None:
        """Yield these batches from now on; prefetched ones of the old labels are discarded."""
        self.end_epoch()
        self._batches = batches

    def end_epoch(self) -> None:
        """Stop reading; the next batch is the first of another epoch."""
        self._epoch = None

    def __iter__(self) -> SwappableLoader:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise RuntimeError("no labels yet: the label step must run before the first batch")
        if self._epoch is None:
            self._epoch = iter(self._batches)
        return next(self._epoch)


#: The loader of the latest training list with the settings it was built with.
_kept: tuple[weakref.ref[UnlabelledImages], tuple[Any, ...], ImageLoader] | None = None
#: All that may have worker processes.
_all: weakref.WeakSet[ImageLoader] = weakref.WeakSet()


def _loader_of(cfg: Any, images: UnlabelledImages) -> ImageLoader:
    """Return the loader of an image list, whose workers serve every epoch.

    Another list or other settings take its place. While one of its epochs is being read, another
    one gets a loader of its own, whose workers end with that epoch.
    """
    global _kept
    settings = (
        cfg.INPUT.dump(),
        cfg.DATALOADER.NUM_WORKERS,
        cfg.UNSUP.CACHE_IMAGES,
        cfg.MODEL.DEVICE,
    )
    if _kept is None or _kept[0]() is not images or _kept[1] != settings:
        dataset = ImageDataset(images.paths, camids=images.camids, indices=range(len(images)))
        _kept = weakref.ref(images), settings, ImageLoader(cfg, dataset)
    loader = _kept[2]
    return loader if loader.reading is None else ImageLoader(cfg, loader.dataset)


def close_loaders() -> None:
    """End all worker processes and free the cache of the kept loader."""
    global _kept
    _kept = None
    for loader in list(_all):
        loader.close()


# Before multiprocessing's own exit handler, which waits for workers that delay SIGTERM.
atexit.register(close_loaders)
