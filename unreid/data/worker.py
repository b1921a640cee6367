"""Worker processes of a ``DataLoader``: how they start, receive signals, are seeded and end."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

#: Seconds that a worker goes on after SIGTERM.
GRACE = 30


def fork_context() -> Any:
    """Return the start method fork, or None where a system has none.

    In a child of ``torch.multiprocessing.spawn`` the default is spawn, by which every worker
    imports torch again: 39 s for 190 images.
    """
    return multiprocessing.get_context("fork") if sys.platform == "linux" else None


def init_worker(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach every process of a group, to the main process.

    A run that saves a checkpoint first needs its batches. A worker ends with its loader or its
    parent, and :data:`GRACE` seconds after a SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Not ignored for good: multiprocessing ends its children by SIGTERM, and waits for them.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


def seed_worker(seed: int, worker: int) -> None:
    """Seed the global generators of this process as torch seeds those of a new worker."""
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    sequence = np.random.SeedSequence([worker, seed & 0xFFFFFFFF, seed >> 32, 0])
    # fast-reid's AugMix samples from numpy's global generator.
    np.random.seed(sequence.generate_state(4))  # noqa: NPY002


def stop_workers(loader: DataLoader) -> None:
    """End the workers of a loader with ``persistent_workers``, and wait for them.

    torch has no public call for it (2.15): an iterator ends its workers when it is deleted, which
    an exception or a variable that still holds it would delay.
    """
    iterator: Any = loader._iterator
    if iterator is None:
        return
    processes = list(iterator._workers)
    iterator._shutdown_workers()
    for process in processes:
        if process.is_alive():  # it did not answer, and goes on after SIGTERM
            process.kill()
            process.join()


class GlobalGenerators:
    """A copy of the global generators that fast-reid's transforms sample from.

    As a context manager it puts the copy in their place, and afterwards the original back.
    """

    def __init__(self) -> None:
        self._own = self._outside = _states()

    def __enter__(self) -> None:
        self._outside = _states()
        self.restore()

    def __exit__(self, *error: object) -> None:
        self._own = _states()
        _set_states(self._outside)

    def restore(self) -> None:
        """Set the global generators to the state of the copy."""
        _set_states(self._own)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _set_states(states: tuple[Any, ...]) -> None:
    of_random, of_numpy, of_torch = states
    random.setstate(of_random)
    np.random.set_state(of_numpy)  # noqa: NPY002
    torch.set_rng_state(of_torch)
