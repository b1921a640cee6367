"""Several processes as one run: who leads, what all know, and who does which rows.

Rank 0 decides (labels, the choice of a round, every file); the others are told, and lend a hand
when it shares work out. All of it is nothing with one process.

Notation: N rows, W processes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from fastreid.utils import comm
from torch import distributed

from unreid.engine.launch import started_by_launcher
from unreid.engine.meeting import meet
from unreid.engine.watch import Watch
from unreid.kernels import zero_copy

T = TypeVar("T")

#: How long a process waits for rank 0, which may cluster for hours; a dead rank 0 ends it sooner.
_WAIT = timedelta(days=7)

#: What rank 0 may share out: name -> work(arrays, settings, part, parts) -> arrays.
Task = Callable[[Mapping[str, np.ndarray], Mapping[str, Any], int, int], Sequence[np.ndarray]]
TASKS: dict[str, Task] = {}


class PeerError(RuntimeError):
    """Rank 0 has failed, and has said why."""


@dataclass
class _Team:
    """This process among the others.

    Attributes:
        rank, size: Of this process; W.
        control: A gloo group, for what stays in main memory.
        leading: Whether rank 0 is inside :func:`on_first`, with the others at its disposal.
        known: Arrays that all processes hold during it.
    """

    rank: int
    size: int
    control: Any
    leading: bool = False
    known: dict[str, np.ndarray] = field(default_factory=dict)


_team: _Team | None = None


def rank() -> int:
    """Of this process, from 0."""
    return _team.rank if _team else 0


def world_size() -> int:
    """W, 1 without other processes."""
    return _team.size if _team else 1


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """One of the processes that a launcher started, while this lasts; nothing where there is one.

    Args:
        device: ``cfg.MODEL.DEVICE``: NCCL between GPUs, gloo between CPUs.

    Raises:
        ValueError: more processes than GPUs on this machine, or one GPU asked for by number.
    """
    if not started_by_launcher():
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda"):
        _take_gpu(device, local, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    with connected(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://",
                   backend="nccl" if device.startswith("cuda") else "gloo",
                   machine=int(os.environ.get("GROUP_RANK", "0"))):
        yield


def _take_gpu(device: str, local: int, on_machine: int) -> None:
    if device != "cuda":
        raise ValueError(f"MODEL.DEVICE must be 'cuda' with several processes, which take one GPU"
                         f" each, got {device!r}; choose GPUs by CUDA_VISIBLE_DEVICES")
    if on_machine > torch.cuda.device_count():
        raise ValueError(f"{on_machine} processes need as many GPUs on this machine, which has"
                         f" {torch.cuda.device_count()}")
    torch.cuda.set_device(local)


@contextlib.contextmanager
def connected(
    rank: int, size: int, init_method: str, *, backend: str = "gloo", machine: int = 0
) -> Iterator[None]:
    """The processes know each other while this lasts, and end together whatever happens.

    Args:
        rank, size: Of this process; W.
        init_method: Where they meet, as torch has it.
        backend: ``"nccl"`` or ``"gloo"``, of gradients and batches.
        machine: A number of this machine, alike for its processes.
    """
    global _team
    distributed.init_process_group(backend, store=meet(init_method, rank, size), rank=rank,
                                   world_size=size)
    control = distributed.new_group(backend="gloo", timeout=_WAIT)
    _team = _Team(rank, size, control)
    _set_local_group(machine)
    watch = Watch(rank, size)
    try:
        yield
        watch.done()
        distributed.destroy_process_group()
    except PeerError:
        watch.end_after_first()
        raise SystemExit(2) from None  # rank 0 has printed the error
    except BaseException as error:
        watch.failed(error)
        raise
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()
        _team = None


def _set_local_group(machine: int) -> None:
    """fast-reid asks for the processes of its own machine, and asserts without them."""
    machines = gather_all(machine)
    for other in sorted(set(machines)):
        members = [r for r, where in enumerate(machines) if where == other]
        group = distributed.new_group(members, backend="gloo")
        if other == machine:
            comm._LOCAL_PROCESS_GROUP = group


def gather_all(value: T) -> list[T]:
    """What every process gave, by rank."""
    if _team is None:
        return [value]
    found: list[Any] = [None] * _team.size
    distributed.all_gather_object(found, value, group=_team.control)
    return found


def gather_first(value: T) -> list[T]:
    """What every process gave, by rank, on rank 0; an empty list elsewhere."""
    if _team is None:
        return [value]
    found: list[Any] | None = [None] * _team.size if _team.rank == 0 else None
    distributed.gather_object(value, found, dst=0, group=_team.control)
    return found or []


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process; all processes ask together."""
    if _team is None:
        return flag
    together = torch.tensor([int(flag)])
    distributed.all_reduce(together, distributed.ReduceOp.MAX, group=_team.control)
    return bool(together.item())


def leads() -> bool:
    """Whether other processes wait for what this one shares out."""
    return _team is not None and _team.leading


def on_first(work: Callable[[], T], known: Mapping[str, np.ndarray] | None = None) -> T:
    """The result of ``work()`` on rank 0, in every process; meanwhile the others do what it shares
    out (:func:`share_out`). All processes call it together.

    Args:
        work: Called on rank 0 alone.
        known: Arrays that every process holds alike: they are not sent again. The same names may
            be given other arrays later on.

    Raises:
        PeerError: on the other ranks when ``work`` fails; on rank 0 what it raised.
    """
    if _team is None or _team.leading:
        return work()
    team = _team
    team.known = dict(known or {})
    try:
        if team.rank:
            return _follow(team)
        team.leading = True
        try:
            result = work()
            pickle.dumps(result)
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # perhaps it failed because another has gone
                _announce("failed", f"{type(error).__name__}: {error}")
            raise
        _announce("result", result)
        return result
    finally:
        team.leading = False
        team.known = {}


def share_out(
    task: str, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> list[Sequence[np.ndarray]]:
    """The parts of a task, by rank: of all processes where rank 0 leads them, else one whole.

    Args:
        task: A name of :data:`TASKS`.
        arrays: What it works on; not to be changed before :func:`on_first` ends.
        settings: Plain values.

    Raises:
        RuntimeError: a part failed; says which rank's, and why.
    """
    if _team is None or not _team.leading:
        return [TASKS[task](arrays, settings, 0, 1)]
    team = _team
    new = {k: v for k, v in arrays.items() if team.known.get(k) is not v}
    shapes = {k: (v.shape, v.dtype.str) for k, v in new.items()}
    _announce("task", (task, dict(settings), list(arrays), shapes))
    for array in new.values():
        distributed.broadcast(zero_copy(np.ascontiguousarray(array)), 0, team.control)
    team.known.update(new)
    parts: list[Sequence[np.ndarray]] = [TASKS[task](arrays, settings, 0, team.size)]
    failures = []
    for other in range(1, team.size):
        head: list[Any] = [None]
        distributed.recv_object_list(head, other, group=team.control)
        if isinstance(head[0], str):
            failures.append(f"rank {other} failed at {task}: {head[0]}")
            continue
        part = [np.empty(shape, dtype) for shape, dtype in head[0]]
        for array in part:
            distributed.recv(torch.from_numpy(array), other, group=team.control)
        parts.append(part)
    if failures:
        raise RuntimeError("; ".join(failures))
    return parts


def _announce(kind: str, content: Any) -> None:
    assert _team is not None
    distributed.broadcast_object_list([kind, content], 0, group=_team.control)


def _follow(team: _Team) -> Any:
    """Do what rank 0 shares out until it has a result."""
    while True:
        said: list[Any] = [None, None]
        distributed.broadcast_object_list(said, 0, group=team.control)
        kind, content = said
        if kind == "failed":
            raise PeerError(f"rank 0 failed: {content}")
        if kind == "result":
            return content
        task, settings, names, shapes = content
        for name, (shape, dtype) in shapes.items():
            array = np.empty(shape, dtype)
            distributed.broadcast(torch.from_numpy(array), 0, team.control)
            team.known[name] = array
        try:
            part = TASKS[task]({k: team.known[k] for k in names}, settings, team.rank, team.size)
        except Exception as error:  # rank 0 is waiting: it is told, and tells everybody
            distributed.send_object_list([f"{type(error).__name__}: {error}"], 0,
                                         group=team.control)
            continue
        part = [np.ascontiguousarray(array) for array in part]
        distributed.send_object_list([[(a.shape, a.dtype.str) for a in part]], 0,
                                     group=team.control)
        for array in part:
            distributed.send(zero_copy(array), 0, group=team.control)


def join_rows(mine: torch.Tensor, rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Every process' rows in their places, in every process.

    Args:
        mine: (len(rows[rank]), ...) of this process; one without rows may give any (0, ...).
        rows: By rank, the places of its rows; together 0..N-1. Rank 0 has some.

    Returns:
        (N, ...) in main memory.
    """
    if _team is None:
        return mine
    kinds = gather_all((tuple(mine.shape[1:]), mine.dtype))
    shape, dtype = kinds[0]
    whole = torch.empty((sum(map(len, rows)), *shape), dtype=dtype)
    for sender, places in enumerate(rows):
        if not len(places):
            continue
        part = mine.contiguous() if sender == _team.rank else torch.empty((len(places), *shape),
                                                                         dtype=dtype)
        distributed.broadcast(part, sender, _team.control)
        whole[torch.from_numpy(places)] = part
    return whole
