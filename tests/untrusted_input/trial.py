"""Run one command on one untrusted input in its own process, with limits of time and memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

#: Limits of CPU time and wall time of a command, in seconds.
CPU_SECONDS, WALL_SECONDS = 30, 150
#: Memory limit of a command in addition to the memory of this process, in bytes.
MEMORY = 3 * 2**30


@dataclass(frozen=True)
class Outcome:
    """Result of a command.

    Attributes:
        code: Exit code; None if a signal or the timeout ended the command.
        output: Its stdout and stderr.
        seconds: Wall time.
        memory_growth: Peak resident bytes minus the resident bytes at its start.
    """

    code: int | None
    output: str
    seconds: float
    memory_growth: int

    @property
    def verdict(self) -> str:
        """One of ``result``, ``refused``, ``traceback``, ``killed``."""
        if self.code is None:
            return "killed"
        if self.code == TRACEBACK or "Traceback (most recent call last)" in self.output:
            return "traceback"
        return "result" if self.code == 0 else "refused"

    @property
    def error(self) -> str:
        """The first line that starts with "error: ", or an empty string."""
        lines = [line for line in self.output.splitlines() if line.startswith("error: ")]
        return lines[0] if lines else ""


_PR_SET_PDEATHSIG = 1
#: Exit code of a command that ended with an unexpected exception.
TRACEBACK = 99


def attempt(command: Callable[[], int | None]) -> Outcome:
    """Run ``command`` in a fork of this process."""
    with tempfile.TemporaryFile() as output, mmap.mmap(-1, 8) as shared:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            shared[:] = struct.pack("q", _resident())
            _child(command, output.fileno())
        status, usage = _wait(pid, started + WALL_SECONDS)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read().decode(errors="replace")
        (before,) = struct.unpack("q", shared[:])
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return Outcome(code, text, seconds, usage.ru_maxrss * 1024 - before)


def _wait(pid: int, until: float) -> tuple[int, resource.struct_rusage]:
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return status, usage
        time.sleep(0.002)


def _child(command: Callable[[], int | None], output: int) -> None:
    """Run the command in the child process; never returns."""
    code = TRACEBACK
    try:
        # Kill the child if its parent ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for stream in (0, 1, 2):
            os.dup2(output if stream else os.open(os.devnull, os.O_RDONLY), stream)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        limit = _virtual() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        try:
            code = command() or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _virtual() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
