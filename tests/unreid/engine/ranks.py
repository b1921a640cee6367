"""Run a function in several forked processes of one process group, and return its results."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unreid.engine.distributed import process_group
from unreid.engine.interrupt import raise_on_signals


def run_on_ranks(
    work: Callable[[int], Any], folder: Path, *, size: int = 2, timeout: float = 60
) -> list[Any]:
    """Return the results of ``work(rank)`` by rank, and assert that each process succeeded.

    With ``size`` 1 there is no process group.
    """
    codes = exit_codes(work, folder, size=size, timeout=timeout)
    errors = [(folder / f"{rank}.err").read_text() for rank in range(size)]
    assert codes == [0] * size, "\n".join(errors)
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(size)]


def exit_codes(
    work: Callable[[int], Any], folder: Path, *, size: int = 2, timeout: float = 60
) -> list[int]:
    """Return the exit code of each process: negative for a signal, 3 for an error of ``work``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)  # of an earlier start that was killed
    children = [_fork(work, folder, rank, size) for rank in range(size)]
    end = time.monotonic() + timeout
    codes: dict[int, int] = {}
    while len(codes) < size:
        assert time.monotonic() < end, f"still running: {[c for c in children if c not in codes]}"
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [codes[child] for child in children]


def _fork(work: Callable[[int], Any], folder: Path, rank: int, size: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 3
    errors = (folder / f"{rank}.err").open("w", buffering=1)
    try:
        os.dup2(errors.fileno(), 2)
        sys.stderr = errors
        torch.set_num_threads(1)  # the thread pool of the parent is not inherited by fork
        group = process_group(rank, size, f"file://{folder}/rendezvous")
        with raise_on_signals(), group if size > 1 else contextlib.nullcontext():
            result = work(rank)
        (folder / f"{rank}.pkl").write_bytes(pickle.dumps(result))
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc(file=errors)
    finally:
        errors.flush()
        os._exit(code)
