"""Worker processes that outlive an epoch: started once for a list of images, used for every pass.

A pass is one extraction or one epoch of training batches. Between passes the workers wait; a pass
says in each request (:mod:`unreid.data.making`) all that its batches follow from, so new labels
need no new process.

Notation: N images.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from unreid.data.cache import DecodedImages
from unreid.data.making import BatchMaker, Request
from unreid.data.unlabelled import UnlabelledImages


def fork_context() -> Any:
    """Fork where it exists: a spawned worker would import torch again (39 s for 190 images)."""
    return multiprocessing.get_context("fork") if sys.platform == "linux" else None


#: Seconds that a worker goes on after SIGTERM.
_GRACE = 30


def leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM reach every process of a group; who saves first needs its batches.

    A worker ends with its loader or its parent, and some time after a SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Not for good: it is also how a process that exits ends its children, and waits for them.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE))


def _as_made(batch: Any) -> Any:
    return batch


class _Feed:
    """The batch sampler of a loader that lives on: the requests of the pass of the day."""

    def __init__(self) -> None:
        self.requests: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class Pass:
    """The batches of one pass, once.

    Attributes:
        done: Whether none is left.
    """

    def __init__(self, workers: Workers, batches: Iterator[Any], num: int | None) -> None:
        self._workers = workers  # alive as long as the pass
        self._batches = batches
        self._left = num
        self.done = num == 0

    def __iter__(self) -> Pass:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._workers.closed(self._batches):
            raise RuntimeError("the workers of this pass were closed before its last batch")
        try:
            batch = next(self._batches)
        except StopIteration:
            self.done = True
            raise
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # what it left half sent
            raise RuntimeError(
                "a worker process ended unexpectedly, perhaps killed for want of memory: fewer of"
                " them (DATALOADER.NUM_WORKERS) or a smaller UNSUP.CACHE_IMAGES take less"
            ) from error
        if self._left is not None:
            self._left -= 1
            self.done = self._left == 0
        if isinstance(batch, Exception):
            raise batch
        return batch


class Workers:
    """Makes batches of one list of images; see :class:`unreid.data.making.BatchMaker`.

    Args:
        cfg: The config (``INPUT.*``, ``DATALOADER.NUM_WORKERS``, ``UNSUP.CACHE_IMAGES``).
        images: All N; held weakly.
    """

    def __init__(self, cfg: Any, images: UnlabelledImages) -> None:
        self._cfg = cfg
        self._images = weakref.ref(images)
        self._settings = _settings(cfg)
        self._feed = _Feed()
        self._loader: DataLoader | None = None
        self._cache: DecodedImages | None = None
        self._turns = 0
        self._pass: Callable[[], Pass | None] = lambda: None

    def serves(self, cfg: Any, images: UnlabelledImages) -> bool:
        """Whether these are the workers of ``images`` with these settings."""
        return self._images() is images and self._settings == _settings(cfg)

    @property
    def busy(self) -> bool:
        """Whether a pass is under way."""
        current = self._pass()
        return current is not None and not current.done

    def begin(self, requests: Callable[[int], Iterable[Request]], *, num: int | None,
              training: bool) -> Pass:
        """A pass: batches in the order of the requests, a few made ahead.

        Args:
            requests: The number of the turn -> requests of it.
            num: How many, or None where that is not known.
            training: Whether it is worth filling the cache for.
        """
        assert not self.busy, "one pass at a time"
        if training and self._cfg.UNSUP.CACHE_IMAGES and self._cache is None:
            self._fill_cache()
        if self._loader is None:
            self._loader = self._start()
        self._turns += 1
        self._feed.requests = requests(self._turns)
        current = Pass(self, iter(self._loader), num)
        _all.add(self)
        self._pass = weakref.ref(current)
        return current

    def _start(self) -> DataLoader:
        images, workers = self._images(), self._cfg.DATALOADER.NUM_WORKERS
        assert images is not None
        return DataLoader(
            BatchMaker(self._cfg, images.paths, images.camids, self._cache),
            batch_sampler=self._feed,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_as_made,
            multiprocessing_context=fork_context() if workers else None,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=workers > 0,
            pin_memory=self._cfg.MODEL.DEVICE.startswith("cuda"),
            generator=torch.Generator(),  # or starting would draw from the run's own
        )

    def _fill_cache(self) -> None:
        """Decode now, in one process; workers that are forked afterwards share what it holds."""
        images, workers = self._images(), self._cfg.DATALOADER.NUM_WORKERS
        assert images is not None
        if workers and fork_context() is None:
            raise ValueError("UNSUP.CACHE_IMAGES must be 0 where workers are not forked and could"
                             f" not share it ({sys.platform}), or DATALOADER.NUM_WORKERS 0, got"
                             f" {self._cfg.UNSUP.CACHE_IMAGES}")
        self.close()
        self._cache = DecodedImages.of_files(images.paths, self._cfg.UNSUP.CACHE_IMAGES)

    def closed(self, batches: Iterator[Any]) -> bool:
        """Whether the processes that make ``batches`` were ended."""
        return getattr(batches, "_shutdown", False)

    def close(self) -> None:
        """End the processes; the next pass starts others."""
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        if iterator is None:
            return
        processes = list(iterator._workers)
        iterator._shutdown_workers()
        for process in processes:
            if process.is_alive():  # stuck; and it takes its time after SIGTERM
                process.kill()
                process.join()

    def __del__(self) -> None:
        self.close()


def _settings(cfg: Any) -> tuple[str, int, int, str]:
    """What workers are started with."""
    return (cfg.INPUT.dump(), cfg.DATALOADER.NUM_WORKERS, cfg.UNSUP.CACHE_IMAGES,
            cfg.MODEL.DEVICE)


_kept: Workers | None = None
#: All that may have processes.
_all: weakref.WeakSet[Workers] = weakref.WeakSet()


def workers_of(cfg: Any, images: UnlabelledImages) -> Workers:
    """The workers of a list of images, started at its first pass; those of one list are kept.

    Another list, or other settings, take their place. A pass that begins while one is under way
    gets workers of its own, which end with it.
    """
    global _kept
    kept = _kept
    if kept is not None and kept.serves(cfg, images):
        return Workers(cfg, images) if kept.busy else kept
    _kept = Workers(cfg, images)
    return _kept


def close_workers() -> None:
    """End all workers of this process, and free the cache of those that are kept."""
    global _kept
    _kept = None
    for workers in list(_all):
        workers.close()


# Before multiprocessing's own end, which was registered earlier and would wait for them.
atexit.register(close_workers)
