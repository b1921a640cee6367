"""Load batches of images for training, extraction and test.

:class:`ImageLoader` starts worker processes once per image list and keeps them from epoch to epoch.
Its batch sampler yields one :class:`~unreid.data.dataset.BatchSpec` per batch, which includes the
labels. Hence new labels need no new process. torch discards batches that workers prefetched for an
earlier epoch.

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
    """Batches of one epoch as lists of indices into an image list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[int]]: ...


class _SpecSampler:
    """Batch sampler of a ``DataLoader`` whose batch specs are replaced every epoch."""

    def __init__(self) -> None:
        self.specs: Iterator[BatchSpec] = iter(())

    def __iter__(self) -> Iterator[BatchSpec]:
        return self.specs


class ImageLoader:
    """``DataLoader`` of one image list with persistent workers.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``, ``UNSUP.CACHE_IMAGES``).
        dataset: The images.

    Attributes:
        active_epoch: Number of the epoch that is being read, or None.
    """

    def __init__(self, cfg: Any, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.active_epoch: int | None = None
        self._cfg = cfg
        self._transform = BatchTransform(cfg)
        self._sampler = _SpecSampler()
        self._loader: DataLoader | None = None
        self._epochs = 0
        _loaders.add(self)

    def epoch(
        self, batches: IndexBatches, labels: np.ndarray | None, seed: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the batches of one epoch in order, while workers prefetch the next ones.

        Args:
            batches: Image indices of each batch.
            labels: (N,) int64 labels of a training epoch; None selects the test transforms.
            seed: Seed of the augmentation.

        Raises:
            UnreadableImageError: A file cannot be read; names it.
            RuntimeError: A worker process ended, or this loader was closed.
        """
        if labels is not None and self._cfg.UNSUP.CACHE_IMAGES and self.dataset.cache is None:
            self._fill_cache()
        if self._loader is None:
            self._loader = self._start()
        loader = self._loader
        self._epochs += 1
        number = self.active_epoch = self._epochs
        self._sampler.specs = _specs(batches, labels, seed, number)
        try:
            fetched = iter(loader)
            for left in reversed(range(len(batches))):
                if self._loader is not loader:
                    raise RuntimeError("the loader was closed before the last batch of an epoch")
                batch = next(fetched)
                if isinstance(batch, UnreadableImageError):
                    raise batch
                if not left:  # the caller may start the next epoch before it exhausts this iterator
                    self.active_epoch = None
                yield batch
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # an incomplete batch
            raise RuntimeError(
                "a worker process ended unexpectedly, possibly out of memory; reduce"
                " DATALOADER.NUM_WORKERS or UNSUP.CACHE_IMAGES"
            ) from error
        finally:
            if self.active_epoch == number:
                self.active_epoch = None
            self._transform.end_epoch(number)

    def _start(self) -> DataLoader:
        workers = self._cfg.DATALOADER.NUM_WORKERS
        return DataLoader(
            self.dataset,
            batch_sampler=self._sampler,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=self._transform,  # type: ignore[arg-type]  # gets a batch, not a list of items
            multiprocessing_context=fork_context() if workers else None,
            worker_init_fn=init_worker,
            persistent_workers=workers > 0,
            pin_memory=self._cfg.MODEL.DEVICE.startswith("cuda"),
            generator=torch.Generator(),  # otherwise torch advances the global generator
        )

    def _fill_cache(self) -> None:
        """Decode the images in this process; workers forked afterwards share the memory."""
        workers, budget = self._cfg.DATALOADER.NUM_WORKERS, self._cfg.UNSUP.CACHE_IMAGES
        if workers and fork_context() is None:
            raise ValueError(
                "UNSUP.CACHE_IMAGES must be 0 on systems without fork, where workers cannot share"
                f" memory, unless DATALOADER.NUM_WORKERS is 0; got {budget}"
            )
        self.close()
        self.dataset.cache = DecodedImages.from_files(self.dataset.paths.unpacked(), budget)

    def close(self) -> None:
        """Stop the worker processes; the next epoch starts new ones."""
        loader, self._loader = self._loader, None
        if loader is not None:
            stop_workers(loader)

    def __del__(self) -> None:
        self.close()


def _specs(
    batches: IndexBatches, labels: np.ndarray | None, seed: int, epoch: int
) -> Iterator[BatchSpec]:
    for number, indices in enumerate(batches):
        batch_labels = None if labels is None else labels[np.asarray(indices)].tolist()
        yield BatchSpec([int(i) for i in indices], batch_labels, seed, number, epoch)


class Batches:
    """The batches of one epoch. Every iteration yields all of them.

    Args:
        loader: Function that returns the loader of one iteration.
        dataset: The N images; only its length is used.
        batches: Image indices of each batch.
        labels: (N,) int64 labels of training batches; None selects the test transforms.
        generator: Generator of the seed of each iteration; None for torch's global generator, as in
            a ``DataLoader``.
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
        """Return the same images with other batches."""
        return Batches(self._loader, self.dataset, batches, self._labels, self._generator)

    def part(self, rank: int, num_ranks: int) -> Batches:
        """Return every ``num_ranks``-th batch, starting with batch ``rank``.

        The batches themselves stay the same. A feature depends on the other images of its batch in
        its last bits, and must not depend on the number of processes.
        """
        return self.with_batches(list(self._batches)[rank::num_ranks])


def consecutive_batches(indices: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    """Split ``indices`` into consecutive batches; the last one may be smaller."""
    return [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]


def build_train_loader(
    cfg: Any, images: UnlabelledImages, labels: np.ndarray, batches: IndexBatches, seed: int
) -> Batches:
    """Return the training batches of one epoch, with the training transforms.

    Each batch has the entries images, targets, camids, indices and img_paths.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``).
        images: All N training images.
        labels: (N,) int64 labels of this epoch; images with label -1 are in no batch.
        batches: Lists of indices into ``images``.
        seed: Seed of the augmentation. With ``INPUT.BACKEND tensor``, batches do not depend on the
            number of workers. With ``pil`` they do; without workers they depend on the global
            random generators instead of ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    return Batches(lambda: _cached_loader(cfg, images), images, batches, labels, generator)


def build_extraction_loader(cfg: Any, images: UnlabelledImages) -> Batches:
    """Return batches of all images in list order, with the test transforms.

    Each batch has the entries images, camids, indices and img_paths.
    """
    batches = consecutive_batches(range(len(images)), cfg.TEST.IMS_PER_BATCH)
    return Batches(lambda: _cached_loader(cfg, images), images, batches)


def build_test_loader(cfg: Any, dataset_name: str) -> tuple[Batches, int]:
    """Return batches of the query images, then the gallery images, of a fast-reid dataset.

    Each batch has the entries images, targets, camids and img_paths, and ``tracklets`` if the items
    of the dataset are (path, id, camera, tracklet).

    Returns:
        The batches, and the number of query images.

    Raises:
        KeyError: See :func:`unreid.data.unlabelled.build_dataset`.
        FileNotFoundError: See :func:`unreid.data.unlabelled.build_dataset`.
        ValueError: The dataset has no query or no gallery images.
    """
    source: Any = build_dataset(dataset_name, "DATASETS.TESTS", cfg)
    parts = {"query": sorted(source.query), "gallery": sorted(source.gallery)}
    for part, items in parts.items():
        if not items:
            raise ValueError(f"DATASETS.TESTS {dataset_name}: no {part} image found")
    paths, pids, camids = zip(*(item[:3] for items in parts.values() for item in items))
    fields: dict[str, Any] = {"targets": _integers(pids), "camids": _integers(camids)}
    # Tracklets of query and gallery are different even if they have the same name.
    tracklets = number_tracklets(
        (f"{part}/{item[3]}" if len(item) > 3 and item[3] else "", item[2], str(item[0]))
        for part, items in parts.items()
        for item in items
    )
    if tracklets is not None:
        fields["tracklets"] = tracklets
    dataset = ImageDataset(paths, **fields)
    batches = consecutive_batches(range(len(dataset)), cfg.TEST.IMS_PER_BATCH)
    return Batches(lambda: ImageLoader(cfg, dataset), dataset, batches), len(parts["query"])


def _integers(values: Sequence[Any]) -> Sequence[int]:
    """Return integer ids unchanged; number string ids in sorted order."""
    if all(isinstance(v, int) for v in values):
        return values
    return np.unique([str(v) for v in values], return_inverse=True)[1].tolist()


class SwappableLoader:
    """Loader of the trainer, whose batches are replaced after each label update.

    fast-reid's trainer needs a loader when it is built, before labels exist. An epoch starts at the
    first ``next`` after :meth:`swap`.
    """

    def __init__(self) -> None:
        self._batches: Batches | None = None
        self._epoch: Iterator[Any] | None = None

    def swap(self, batches: Batches) -> None:
        """Yield ``batches`` from now on; prefetched batches of the old labels are discarded."""
        self.end_epoch()
        self._batches = batches

    def end_epoch(self) -> None:
        """End the current epoch; the next batch is the first of a new epoch."""
        self._epoch = None

    def __iter__(self) -> SwappableLoader:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise RuntimeError("no labels yet; the label step must run before the first batch")
        if self._epoch is None:
            self._epoch = iter(self._batches)
        return next(self._epoch)


#: Loader of the latest training list, and the settings that it was built with.
_cached: tuple[weakref.ref[UnlabelledImages], tuple[Any, ...], ImageLoader] | None = None
#: All loaders that may have worker processes.
_loaders: weakref.WeakSet[ImageLoader] = weakref.WeakSet()


def _cached_loader(cfg: Any, images: UnlabelledImages) -> ImageLoader:
    """Return the cached loader of an image list, whose workers are reused in every epoch.

    A different list or different settings replace the cached loader. While an epoch of it is being
    read, a second epoch gets a temporary loader, whose workers end with that epoch.
    """
    global _cached
    settings = (
        cfg.INPUT.dump(),
        cfg.DATALOADER.NUM_WORKERS,
        cfg.UNSUP.CACHE_IMAGES,
        cfg.MODEL.DEVICE,
    )
    if _cached is None or _cached[0]() is not images or _cached[1] != settings:
        dataset = ImageDataset(images.paths, camids=images.camids, indices=range(len(images)))
        _cached = weakref.ref(images), settings, ImageLoader(cfg, dataset)
    loader = _cached[2]
    return loader if loader.active_epoch is None else ImageLoader(cfg, loader.dataset)


def close_loaders() -> None:
    """Stop all worker processes, and free the image cache of the cached loader."""
    global _cached
    _cached = None
    for loader in list(_loaders):
        loader.close()


# Runs before the exit handler of multiprocessing, which would wait for workers that delay SIGTERM.
atexit.register(close_loaders)
