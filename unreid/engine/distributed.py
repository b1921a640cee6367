"""Several processes as one run: rank 0 decides, the others receive its results.

Rank 0 computes labels, selects a round and writes every file. The features of an extraction are
computed by all processes. With one process every function here is the identity.

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

#: How long a process waits for rank 0, which may cluster for hours. The end of a process closes
#: its connections, and ends every wait for it at once.
_TIMEOUT = timedelta(days=7)


@dataclass
class _ProcessGroup:
    """This process among the others.

    Attributes:
        rank, size: Of this process; W.
        local_size: Processes on this machine.
        control: A gloo group, for what stays in main memory.
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
    """Join the processes that a launcher started, while this lasts; no effect on a single one.

    Args:
        device: ``cfg.MODEL.DEVICE``: NCCL between GPUs, gloo between CPUs.

    Raises:
        ValueError: More processes than GPUs on this machine, or one GPU asked for by number.
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
            f"MODEL.DEVICE must be 'cuda' with several processes, which take one GPU"
            f" each, got {device!r}; choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    if on_machine > torch.cuda.device_count():
        raise ValueError(
            f"{on_machine} processes need as many GPUs on this machine, which has"
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
    """Connect this process to the others while this lasts.

    Args:
        rank, size: Of this process; W.
        init_method: As in ``torch.distributed.init_process_group``.
        backend: ``"nccl"`` or ``"gloo"``, of gradients and batches.
        machine: A number of this machine, equal for its processes.
        local_size: Processes on this machine.
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
            wait_for_launcher()  # the process that is gone is the cause, and to be reported
        raise
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()
        _group = None


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether a collective failed because another process has gone.

    gloo raises a plain RuntimeError, with the path of its source file in the message.
    """
    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)


def _set_local_group(machine: int) -> None:
    """Set fast-reid's group of the processes of one machine, without which it asserts."""
    machines = all_gather(machine)
    for other in sorted(set(machines)):
        members = [r for r, where in enumerate(machines) if where == other]
        group = distributed.new_group(members, backend="gloo")
        if other == machine:
            comm._LOCAL_PROCESS_GROUP = group


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if _group is None:
        return [value]
    found: list[Any] = [None] * _group.size
    distributed.all_gather_object(found, value, group=_group.control)
    return found


def gather_to_rank_0(value: T) -> list[T]:
    """Return the values of all processes, by rank, on rank 0; an empty list elsewhere."""
    if _group is None:
        return [value]
    found: list[Any] | None = [None] * _group.size if _group.rank == 0 else None
    distributed.gather_object(value, found, dst=0, group=_group.control)
    return found or []


def run_on_rank_0(work: Callable[[], T]) -> T:
    """Return the result of ``work()``, computed on rank 0, in every process.

    All processes call it together. The others wait, so rank 0 takes the threads of all processes
    on its machine.

    Args:
        work: Called on rank 0 alone; its result must be picklable.
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
    """Gather the rows of all processes, in every process.

    Args:
        mine: (len(rows[rank]), ...) of this process; one without rows may give any (0, ...).
        rows: By rank, the indices of its rows; together 0..N-1. Rank 0 has at least one.

    Returns:
        (N, ...) in main memory.
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
