"""A process that dies ends the whole run at once, with its reason, and never as a hang.

Collectives of NCCL wait ten minutes for a process that is gone, and a process that waits for the
labels of rank 0 waits for hours with good reason. So every process keeps a line to rank 0 on which
nothing is ever said but how it ended; that the line broke is heard by a thread within a second.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

#: What a process says when all is well, and when a signal ends it; all else is why it failed.
_DONE, _INTERRUPTED = "done", "interrupted"
#: Bytes of a message.
_LENGTH = 2048
#: Seconds: a process that only lost a connection waits for the reason; who has failed prints its
#: error and goes first; rank 0 saves.
_PATIENCE, _PRINTING, _SAVING = 5.0, 10.0, 30.0
#: Words of the errors that a lost process leaves to the others.
_LOST = ("peer", "gloo", "NCCL", "Socket", "Broken pipe")


class Watch:
    """Says how this process ends, and hears how the others do. Made by all processes together.

    Args:
        rank: Of this process.
        size: Processes in all.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        # A group of its own: its waits overlap with whatever the run is doing.
        self._group: Any = distributed.new_group(backend="gloo", timeout=timedelta(days=1000))
        self._others = range(1, size) if rank == 0 else range(1)
        self._lock = threading.Lock()
        self._heard = False  # how one of the others ended, before its time
        self._ending = False  # it was a failure: the thread that heard of it ends this process
        self._unwound = threading.Event()  # the main thread has nothing left to save
        self._threads = [threading.Thread(target=self._listen, args=(other,), daemon=True)
                         for other in self._others]
        for thread in self._threads:
            thread.start()

    def done(self) -> None:
        """All is well here; returns when it is everywhere."""
        for other in self._others:
            self._say(other, _DONE)
        for thread in self._threads:
            thread.join()

    def failed(self, error: BaseException) -> None:
        """Tell the others why this process ends; returns when it may go.

        A process that was ended by another's failure does not return: the thread that heard of it
        has the last word. Nor does one that only lost a connection, as a rule: news of who was
        first is on its way.
        """
        self._unwound.set()
        words = f"{type(error).__name__}: {error}".strip(": ")
        if isinstance(error, RuntimeError) and any(lost in words for lost in _LOST):
            time.sleep(_PATIENCE)
        if self._ending:
            time.sleep(_SAVING)
        for other in self._others:
            self._say(other, _INTERRUPTED if isinstance(error, KeyboardInterrupt) else words)

    def end_after_first(self) -> None:
        """Rank 0 has failed: do not go before it."""
        for thread in self._threads:
            thread.join(_PRINTING)

    def _say(self, other: int, words: str) -> None:
        message = bytearray(words.encode()[:_LENGTH].ljust(_LENGTH, b"\0"))
        with contextlib.suppress(RuntimeError):  # who has gone hears nothing
            distributed.send(torch.frombuffer(message, dtype=torch.uint8), other, self._group)

    def _hear(self, other: int) -> str | None:
        """What ``other`` says at its end, or None when the line broke."""
        message = torch.zeros(_LENGTH, dtype=torch.uint8)
        try:
            distributed.recv(message, other, self._group)
        except RuntimeError:
            return None
        return bytes(message.tolist()).rstrip(b"\0").decode(errors="replace")

    def _listen(self, other: int) -> None:
        words = self._hear(other)
        if words == _DONE:
            return
        with self._lock:  # the first news is the reason; what comes after follows from it
            if self._heard:
                return
            self._heard, self._ending = True, words != _INTERRUPTED
        if words == _INTERRUPTED:
            self._interrupted()
            return
        who = f"rank {other} of {self.size}"
        silent = words is None
        if words is None:
            words = (f"{who} ended without an error message (killed, out of memory, or its machine"
                     " is gone)")
        elif self.rank == 0:
            words = f"{who} failed: {words}"  # the others hear it from rank 0, with its name
        for third in self._others:
            if third != other:
                self._say(third, words)
        self._let_go_first(other, silent)
        logging.getLogger("fastreid.unreid.watch").error(f"this process ends: {words}")
        if silent and self.rank == (0 if other else 1):
            sys.stderr.write(f"error: {words}\n")
        self._end(1)

    def _let_go_first(self, other: int, silent: bool) -> None:
        """Until ``other`` is gone, and rank 0 has saved what it has: a launcher shows the code of
        whoever ends first, and ends the rest, perhaps before they have printed why."""
        last = threading.Timer(_SAVING if self.rank == 0 else _PRINTING, self._end, [1])
        last.daemon = True
        last.start()
        if not silent:
            self._hear(other)
        if self.rank == 0:
            _interrupt_main()
            self._unwound.wait()

    def _interrupted(self) -> None:
        """Rank 0 saves as if the signal had been its own; nobody else has anything to save."""
        if self.rank == 0:
            _interrupt_main()
            self._unwound.wait(_SAVING)
        time.sleep(_PRINTING)
        self._end(128 + signal.SIGTERM)

    def _end(self, code: int) -> None:
        """Leave, although the main thread may wait for a process that is no more."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        os._exit(code)


def _interrupt_main() -> None:
    """SIGTERM for this process, also where a system call holds the main thread."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main()
