"""Worker processes of a ``DataLoader``: start method, signals, seeds, and shutdown."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

#: Seconds that a worker keeps running after SIGTERM.
GRACE_SECONDS = 30


def fork_context() -> Any:
    """Return the start method fork, or None if the system does not support it.

    In a child of ``torch.multiprocessing.spawn`` the default start method is spawn, with which
    every worker imports torch again (39 s for 190 images).
    """
    return multiprocessing.get_context("fork") if sys.platform == "linux" else None


def init_worker(worker: int) -> None:
    """Ignore SIGINT and delay SIGTERM in a worker; the main process handles them.

    Ctrl-C and many schedulers signal every process of a group. The main process still needs batches
    while it finishes a step and saves a checkpoint. A worker ends with its loader or its parent, or
    :data:`GRACE_SECONDS` seconds after SIGTERM.

    Args:
        worker: Worker id; not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Delayed, not ignored: multiprocessing terminates its children by SIGTERM and waits for
        # them.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE_SECONDS))


def seed_worker(seed: int, worker: int) -> None:
    """Seed the global random generators of this process as torch does in a new worker."""
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    sequence = np.random.SeedSequence([worker, seed & 0xFFFFFFFF, seed >> 32, 0])
    # fast-reid's AugMix samples from numpy's global generator.
    np.random.seed(sequence.generate_state(4))  # noqa: NPY002


def stop_workers(loader: DataLoader) -> None:
    """Stop the workers of a loader with ``persistent_workers``, and wait for them.

    torch 2.15 has no public function for this. Its iterator stops the workers when it is deleted,
    which a remaining reference (an exception, a variable) delays.
    """
    iterator: Any = loader._iterator
    if iterator is None:
        return
    processes = list(iterator._workers)
    iterator._shutdown_workers()
    for process in processes:
        if process.is_alive():  # not stopped by torch, and SIGTERM is delayed
            process.kill()
            process.join()


class GlobalGenerators:
    """Separate state of the global random generators, for the transforms of fast-reid.

    Used as a context manager, it sets the global generators of ``random``, numpy and torch to this
    state, and restores their own state afterwards.
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
        """Set the global generators to this state."""
        _set_states(self._own)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _set_states(states: tuple[Any, ...]) -> None:
    of_random, of_numpy, of_torch = states
    random.setstate(of_random)
    np.random.set_state(of_numpy)  # noqa: NPY002
    torch.set_rng_state(of_torch)
