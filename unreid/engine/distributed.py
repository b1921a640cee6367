"""Collective operations of a run with several processes.

Rank 0 computes the labels, selects a model and writes all files; the other ranks receive its
results. All processes extract features. With a single process every function is the identity.

Notation: N rows, W processes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from fastreid.utils import comm
from torch import distributed

from unreid.engine.launch import started_by_launcher, wait_for_launcher
from unreid.engine.rendezvous import fresh_store

T = TypeVar("T")

#: Timeout of collectives that wait for rank 0, which may cluster for hours. If a process ends, its
#: connections close and every collective that waits for it fails at once.
_TIMEOUT = timedelta(days=7)


@dataclass
class _ProcessGroup:
    """State of this process in the process group.

    Attributes:
        rank: Rank of this process.
        size: W.
        local_size: Number of processes on this machine.
        control: gloo group for objects and tensors in main memory.
        in_rank_0_call: Whether rank 0 is inside :func:`run_on_rank_0`.
    """

    rank: int
    size: int
    local_size: int
    control: Any
    in_rank_0_call: bool = False


_group: _ProcessGroup | None = None


def rank() -> int:
    """Return the rank of this process, from 0."""
    return _group.rank if _group else 0


def world_size() -> int:
    """Return W; 1 with a single process."""
    return _group.size if _group else 1


@contextlib.contextmanager
def launched_process_group(device: str) -> Iterator[None]:
    """Open the process group of the processes that a launcher started.

    A context manager; without effect if this process was not started by a launcher.

    Args:
        device: ``cfg.MODEL.DEVICE``; the backend is NCCL for GPUs and gloo for CPUs.

    Raises:
        ValueError: There are more processes than GPUs on this machine, or ``device`` names one GPU.
    """
    if not started_by_launcher():
        yield
        return
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.startswith("cuda"):
        _select_gpu(device, int(os.environ.get("LOCAL_RANK", "0")), local_size)
    with process_group(
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        "env://",
        backend="nccl" if device.startswith("cuda") else "gloo",
        machine=int(os.environ.get("GROUP_RANK", "0")),
        local_size=local_size,
    ):
        yield


def _select_gpu(device: str, local: int, on_machine: int) -> None:
    if device != "cuda":
        raise ValueError(
            "MODEL.DEVICE must be 'cuda' with several processes, each of which uses one GPU,"
            f" got {device!r}; select GPUs by CUDA_VISIBLE_DEVICES"
        )
    if on_machine > torch.cuda.device_count():
        raise ValueError(
            f"{on_machine} processes need {on_machine} GPUs on this machine, got"
            f" {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local)


@contextlib.contextmanager
def process_group(
    rank: int,
    size: int,
    init_method: str,
    *,
    backend: str = "gloo",
    machine: int = 0,
    local_size: int = 1,
) -> Iterator[None]:
    """Open the process group, and destroy it at the end of the block.

    Args:
        rank: Rank of this process.
        size: W.
        init_method: See ``torch.distributed.init_process_group``.
        backend: Backend of gradients and batches, ``"nccl"`` or ``"gloo"``.
        machine: Number of this machine; equal for all of its processes.
        local_size: Number of processes on this machine.
    """
    global _group
    distributed.init_process_group(
        backend, store=fresh_store(init_method, rank, size), rank=rank, world_size=size
    )
    control: Any = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    _group = _ProcessGroup(rank, size, local_size, control)
    try:
        _set_local_group(machine)
        yield
        distributed.barrier(control)
        distributed.destroy_process_group()
    except RuntimeError as error:
        if is_lost_connection(error):
            wait_for_launcher()  # the launcher reports the process that ended first
        raise
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()
        _group = None


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether a collective failed because another process ended.

    gloo raises a RuntimeError without a class of its own; its message has the path of a source
    file of gloo.
    """
    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)


def _set_local_group(machine: int) -> None:
    """Set fast-reid's process group of one machine, which its ``comm`` module requires."""
    machines = all_gather(machine)
    for other in sorted(set(machines)):
        members = [r for r, where in enumerate(machines) if where == other]
        group = distributed.new_group(members, backend="gloo")
        if other == machine:
            comm._LOCAL_PROCESS_GROUP = group


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, by rank; ``value`` must be picklable."""
    if _group is None:
        return [value]
    found: list[Any] = [None] * _group.size
    distributed.all_gather_object(found, value, group=_group.control)
    return found


def gather_to_rank_0(value: T) -> list[T]:
    """Return the values of all processes, by rank, on rank 0; an empty list on the other ranks."""
    if _group is None:
        return [value]
    found: list[Any] | None = [None] * _group.size if _group.rank == 0 else None
    distributed.gather_object(value, found, dst=0, group=_group.control)
    return found or []


def run_on_rank_0(work: Callable[[], T]) -> T:
    """Call ``work()`` on rank 0 and broadcast its result to all processes.

    A collective: every process must call it. The other processes wait, so rank 0 uses the threads
    of all processes on its machine meanwhile. Nested calls run on rank 0 only.

    Args:
        work: Called on rank 0 only; its result must be picklable.

    Returns:
        The result of ``work()``, in every process.
    """
    if _group is None or _group.in_rank_0_call:
        return work()
    content: list[Any] = [None]
    if _group.rank == 0:
        _group.in_rank_0_call = True
        threads = torch.get_num_threads()
        torch.set_num_threads(threads * _group.local_size)
        try:
            content[0] = work()
        finally:
            _group.in_rank_0_call = False
            torch.set_num_threads(threads)
    distributed.broadcast_object_list(content, 0, group=_group.control)
    return content[0]


def all_gather_rows(mine: torch.Tensor, rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Gather the rows of all processes into one tensor, in every process.

    Args:
        mine: (len(rows[rank]), ...), the rows of this process. The trailing shape of an empty
            tensor does not matter.
        rows: Row indices of each rank; together 0..N-1. Rank 0 has at least one row.

    Returns:
        (N, ...) tensor in main memory.
    """
    if _group is None:
        return mine
    kinds = all_gather((tuple(mine.shape[1:]), mine.dtype))
    shape, dtype = kinds[0]
    whole = torch.empty((sum(map(len, rows)), *shape), dtype=dtype)
    for sender, places in enumerate(rows):
        if not len(places):
            continue
        part = (
            mine.contiguous()
            if sender == _group.rank
            else torch.empty((len(places), *shape), dtype=dtype)
        )
        distributed.broadcast(part, sender, _group.control)
        whole[torch.from_numpy(places)] = part
    return whole
