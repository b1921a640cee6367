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
RAISED: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}

#: The signals that came since :func:`signals_raise` began, in their order.
_received: list[int] = []

#: How many :func:`held` blocks are open.
_holding = 0


def exit_code(error: KeyboardInterrupt) -> int:
    """143 after SIGTERM, 130 after Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    """The first one raises, and the third: a second must not break off the saving."""
    _received.append(number)
    if (len(_received) == 1 and not _holding) or len(_received) > 2:
        raise RAISED[number]


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT raise while this lasts. In another than the main thread nothing changes,
    and neither does a signal that a parent (nohup, a shell's background job) has told to ignore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in RAISED}
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


def received() -> type[KeyboardInterrupt] | None:
    """What the first signal raises that came since :func:`signals_raise` began, or None."""
    return RAISED[_received[0]] if _received else None


def raise_again() -> None:
    """Raise for a signal whose exception was lost: Python only prints one that is raised inside a
    ``__del__`` or a callback, and goes on. Called where a loop comes round."""
    error = received()
    if error is not None:
        raise error


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal waits for the end of this block: what is being written gets written.

    Broken off, the writer of a zip file would raise an error of its own in place of the signal's.
    """
    global _holding
    before = len(_received)
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if not _holding and not before:
        raise_again()


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """A signal in this block that nobody has said anything about says ``what``."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if error.args else type(error)(what) from error
