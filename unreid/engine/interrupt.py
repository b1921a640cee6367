"""Turn SIGTERM and SIGINT into exceptions, so that a run saves a checkpoint before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM. A subclass, so that code that handles Ctrl-C handles SIGTERM too."""


#: Exception that each signal raises in the main thread.
EXCEPTIONS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}

#: Signals received since :func:`raise_on_signals` began, in order.
_received: list[int] = []

#: Number of open :func:`defer_signals` blocks.
_deferrals = 0


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a shell, 128 + signal number: 143 for SIGTERM, 130 for SIGINT."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    """Raise for the first signal and from the third on; a second one must not interrupt saving."""
    _received.append(number)
    if (len(_received) == 1 and not _deferrals) or len(_received) > 2:
        raise EXCEPTIONS[number]


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise :data:`EXCEPTIONS` inside this block.

    Without effect outside of the main thread, and for a signal that the parent process has set to
    be ignored (nohup, background jobs of a shell).
    """
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
    """Return the exception of the first signal since :func:`raise_on_signals` began, or None."""
    return EXCEPTIONS[_received[0]] if _received else None


def reraise_signal() -> None:
    """Re-raise the exception of a signal that has been received.

    Python prints and discards an exception that is raised inside ``__del__`` or some callbacks.
    The training loop therefore calls this function once per iteration.

    Raises:
        KeyboardInterrupt: A signal has been received; :class:`Terminated` for SIGTERM.
    """
    error = received_signal()
    if error is not None:
        raise error


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals to the end of this block, so that a file is written completely.

    Blocks may be nested. An exception inside the writer of a zip file would be replaced by another
    error of that writer, so the signal must not raise there.
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
def interrupt_message(message: str) -> Iterator[None]:
    """Add ``message`` to a KeyboardInterrupt of this block that has no message yet."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise error if error.args else type(error)(message) from error
