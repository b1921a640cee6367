"""A store for the processes of one start: works around a bug of torchrun (torch 2.14).

After a failure torchrun restarts all processes, but gives them the store of the processes before,
in which the addresses of those still stand: ``init_process_group`` connects to an address at which
nobody listens, and fails. ``tests/unreid/engine/test_restart.py`` fails when torch has mended it;
then ``init_process_group(backend)`` alone replaces this module.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, rendezvous

#: How long processes wait for each other to start.
TIMEOUT = timedelta(minutes=15)


def fresh_store(init_method: str, rank: int, size: int) -> Any:
    """Return a part of the shared store that no process of an earlier start has written to.

    Rank 0 publishes a new prefix. Each other rank adds a random token under the prefix that it
    reads, and uses it once rank 0 has repeated the token: a prefix of an earlier start is never
    answered with a new token. The restart count of torchrun cannot be the prefix: it differs
    between machines.

    Args:
        init_method: As in ``torch.distributed.init_process_group``.
        rank, size: Of this process; number of processes.

    Raises:
        RuntimeError: Not all processes have started in time.
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
    raise RuntimeError(f"rank {rank} of {size} found no rank 0 within {TIMEOUT}")
