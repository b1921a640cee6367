"""SIGTERM and Ctrl-C end a run by an exception, so that it can save what it has first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came; whoever handles Ctrl-C handles it, too."""


#: Signal -> what it raises in the main thread, and what a shell reports (128 + its number).
EXCEPTIONS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}

#: The signals that came since :func:`raise_on_signals` began, in their order.
_received: list[int] = []

#: How many :func:`defer_signals` blocks are open.
_deferrals = 0


def exit_code(error: KeyboardInterrupt) -> int:
    """143 after SIGTERM, 130 after Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    """The first one raises, and the third: a second must not break off the saving."""
    _received.append(number)
    if (len(_received) == 1 and not _deferrals) or len(_received) > 2:
        raise EXCEPTIONS[number]


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise while this lasts. In another than the main thread nothing changes,
    and neither does a signal that a parent (nohup, a shell's background job) has told to ignore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in EXCEPTIONS}
    _received.clear()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        _received.clear()


def received_signal() -> type[KeyboardInterrupt] | None:
    """What the first signal raises that came since :func:`raise_on_signals` began, or None."""
    return EXCEPTIONS[_received[0]] if _received else None


def reraise_signal() -> None:
    """Raise for a signal whose exception was lost: Python only prints one that is raised inside a
    ``__del__`` or a callback, and goes on. Called where a loop comes round."""
    error = received_signal()
    if error is not None:
        raise error


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """A signal waits for the end of this block: what is being written gets written.

    Broken off, the writer of a zip file would raise an error of its own in place of the signal's.
    """
    global _deferrals
    before = len(_received)
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
    if not _deferrals and not before:
        reraise_signal()


@contextlib.contextmanager
def interrupt_message(what: str) -> Iterator[None]:
    """A signal in this block that nobody has said anything about says ``what``."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if error.args else type(error)(what) from error
