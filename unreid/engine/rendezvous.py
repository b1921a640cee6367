"""Rendezvous with a fresh store after a restart: workaround for a bug of torchrun (torch 2.14).

After a failure torchrun restarts all processes, but with the store of the previous start, which
still has the addresses of the processes that ended. ``init_process_group`` then connects to a
closed port and fails. ``tests/unreid/engine/test_restart.py`` fails once torch has fixed this; then
``init_process_group(backend)`` can replace this module.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, rendezvous

#: Timeout of the rendezvous: all processes must have started within it.
TIMEOUT = timedelta(minutes=15)


def fresh_store(init_method: str, rank: int, size: int) -> Any:
    """Return the shared store under a prefix that no earlier start has used.

    Rank 0 publishes a new prefix. Every other rank writes a random token under the prefix that it
    reads, and accepts the prefix once rank 0 has written the token back. Rank 0 of an earlier start
    cannot do so, hence its prefix is never accepted. The restart count of torchrun is no
    alternative, because it differs between machines.

    Args:
        init_method: See ``torch.distributed.init_process_group``.
        rank: Rank of this process.
        size: Number of processes.

    Raises:
        RuntimeError: Rank 0 did not answer within :data:`TIMEOUT`.
    """
    store, _, _ = next(rendezvous(init_method, rank, size, timeout=TIMEOUT))
    token, end = uuid.uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    if rank == 0:
        store.set("unreid", token)
        tokens = [store.get(f"unreid/{token}/{other}").decode() for other in range(1, size)]
        store.set(f"unreid/{token}", " ".join(tokens))
        return PrefixStore(token, store)
    while time.monotonic() < end:
        prefix = store.get("unreid").decode()
        store.set(f"unreid/{prefix}/{rank}", token)
        while time.monotonic() < end and store.get("unreid").decode() == prefix:
            if store.check([f"unreid/{prefix}"]):
                if token in store.get(f"unreid/{prefix}").decode().split():
                    return PrefixStore(prefix, store)
                break
            time.sleep(0.05)
        time.sleep(0.05)
    raise RuntimeError(f"rank {rank} of {size} got no answer from rank 0 within {TIMEOUT}")
