"""Shared command-line code: parser, error messages, exit codes, progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from unreid.checks import nearest
from unreid.engine.interrupt import Terminated, exit_code, raise_on_signals, received_signal

#: Errors caused by bad input. They are reported in one line; other errors show a traceback.
EXPECTED = (KeyError, ValueError, OSError, ImportError, RuntimeError, FloatingPointError)


class Parser(argparse.ArgumentParser):
    """Parser that keeps the line breaks of its help and suggests the nearest known option.

    Args:
        description: The command's docstring; it must contain "example:".
        **settings: Arguments of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(description=description, **settings)
        self._earlier_names: dict[str, str] = {}

    def add_earlier_name(self, earlier: str, option: str) -> None:
        """Accept the deprecated name ``earlier`` of ``option`` with a warning; hide it in help."""
        self._earlier_names[earlier] = option

    def _renamed(self, words: Sequence[str]) -> list[str]:
        """Return the words with earlier option names replaced."""
        renamed = []
        for word in words:
            name, equals, value = word.partition("=")
            option = self._earlier_names.get(name)
            if option is not None:
                warn(f"{name} is deprecated, use {option}; the next version will remove {name}")
                word = f"{option}{equals}{value}"
            renamed.append(word)
        return renamed

    def add_key_values(self, help: str = "settings that override the file") -> None:
        """Add ``KEY VALUE`` pairs after all options, as ``args.opts``."""
        self.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=help)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; the error for an unknown option suggests the nearest one."""
        args = self._renamed(sys.argv[1:] if args is None else args)
        options = [o for o in self._option_string_actions if o.startswith("--")]
        # Checked first, because argparse would report missing options, not the misspelt one.
        for word in args:
            name = word.split("=")[0]
            if word.startswith("--") and word != "--" and name not in options:
                self.error(f"unknown option {name}{nearest(name, options)}")
        found, unknown = self.parse_known_args(args, namespace)
        # A VALUE may begin with "-", such as -1; a KEY may not.
        for word in [*unknown, *getattr(found, "opts", [])[::2]]:
            name = word.split("=")[0]
            if name in options:
                self.error(f"{name} must come before the KEY VALUE pairs")
            if word.startswith("-"):
                self.error(f"unknown option {name}{nearest(name, options)}")
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}; --help lists what there is")
        return found

    def error(self, message: str) -> NoReturn:
        """Print usage and a one-line error; exit with code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n({self.prog} --help has an example)\n")


def error_text(error: BaseException) -> str:
    """Return the message of an error, without the quotes that ``str`` adds to a KeyError."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def warn(text: str) -> None:
    """Write a one-line warning to stderr."""
    sys.stderr.write(f"warning: {text}\n")


def print_error(error: BaseException) -> None:
    """Write the error to stderr in one line; raise it if UNREID_TRACEBACK is set."""
    if os.environ.get("UNREID_TRACEBACK"):
        raise error
    sys.stderr.write(f"error: {error_text(error)}\n(UNREID_TRACEBACK=1 shows where)\n")


def guarded(work: Callable[[], int | None]) -> int:
    """Run ``work`` and return the exit code.

    Returns:
        The result of ``work``, where None is 0; 2 for bad input; 130 after Ctrl-C; 143 after
        SIGTERM. Both signals let ``work`` save its state before the process ends.
    """
    with raise_on_signals():
        try:
            return work() or 0
        except EXPECTED as error:
            stopped = received_signal()
            if stopped is None:
                print_error(error)
                return 2
            return print_interruption(stopped(error_text(error)))  # an error during shutdown
        except KeyboardInterrupt as error:
            return print_interruption(error)


def print_interruption(error: KeyboardInterrupt) -> int:
    """Print that a signal ended the run, and the error's message; return the exit code."""
    what = "terminated" if isinstance(error, Terminated) else "interrupted"
    sys.stderr.write(f"\n{what}: {error}\n" if error.args else f"\n{what}\n")
    return exit_code(error)


def duration(seconds: float) -> str:
    """Return a duration as text: ``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Progress and remaining time of a long task, on stderr.

    A terminal shows one line that is overwritten; a file gets a line every ten seconds.

    Args:
        total: Total number of steps.
        what: Name of the task, such as "reading".
        stream: Output stream; the current stderr by default.
        clock: Monotonic clock in seconds.
        terminal_only: Write nothing to a file; for library code.
    """

    def __init__(
        self,
        total: int,
        what: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        terminal_only: bool = False,
    ) -> None:
        self._total, self._what = total, what
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._done = 0
        self._terminal = self._stream.isatty()
        self._silent = terminal_only and not self._terminal
        self._started = self._last = clock()

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` steps."""
        self._done += count
        now = self._clock()
        if now - self._last >= (0.2 if self._terminal else 10.0):
            self._last = now
            left = (now - self._started) / self._done * (self._total - self._done)
            self._write(f"{self._what} {self._done} of {self._total}, {duration(left)} left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Clear the progress line."""
        if self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _write(self, text: str) -> None:
        if self._silent:
            return
        self._stream.write(f"\r\033[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()
