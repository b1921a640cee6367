"""Where processes meet at the start, also the second time."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, rendezvous

from unreid.engine.launch import started_by_launcher

#: How long processes wait for each other.
PATIENCE = timedelta(minutes=15)


def meet(init_method: str, rank: int, size: int) -> Any:
    """The store through which these processes find each other, and no others.

    Args:
        init_method: ``env://`` or another that torch has.
        rank, size: Of this process; W.

    Raises:
        RuntimeError: not all came.
    """
    store, _, _ = next(rendezvous(init_method, rank, size, timeout=PATIENCE))
    return _of_this_start(store, rank, size)


def _of_this_start(store: Any, rank: int, size: int) -> Any:
    """A part of the store that only these processes use. After a restart torchrun gives the same
    store again (torch 2.15), with the addresses of processes that are no more.

    Rank 0 names the part, each other process adds a word of its own to the name it finds, and goes
    on when rank 0 repeats that word: an old name has been answered by others.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    if rank == 0:
        store.set("unreid", word)
        words = [store.get(f"unreid/{word}/{other}").decode() for other in range(1, size)]
        store.set(f"unreid/{word}", " ".join(words))
        return PrefixStore(word, store)
    while time.monotonic() < end:
        name = store.get("unreid").decode()
        store.set(f"unreid/{name}/{rank}", word)
        while time.monotonic() < end and store.get("unreid").decode() == name:
            if store.check([f"unreid/{name}"]):
                if word in store.get(f"unreid/{name}").decode().split():
                    return PrefixStore(name, store)
                break
            time.sleep(0.05)
        time.sleep(0.05)
    raise RuntimeError(f"rank {rank} of {size} has not met rank 0 in {PATIENCE}")


@contextlib.contextmanager
def first_speaks() -> Iterator[None]:
    """What all processes find wrong alike, before they know each other, rank 0 says."""
    try:
        yield
    except Exception:
        if not started_by_launcher() or os.environ["RANK"] == "0":
            raise
        # A launcher ends all when one has ended.
        time.sleep(10)
        raise SystemExit(2) from None
