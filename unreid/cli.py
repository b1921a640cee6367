"""What all command lines share: the parser, error messages, exit codes, progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from unreid.checks import nearest
from unreid.engine.interrupt import Terminated, exit_code, received, signals_raise

#: What bad input raises; anything else is a mistake of ours, and shows its traceback.
EXPECTED = (KeyError, ValueError, OSError, ImportError, RuntimeError, FloatingPointError)


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of its help and suggests the nearest option for a misspelt one.

    Args:
        description: The command's docstring; it must hold an "example:".
        **settings: Of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(description=description, **settings)
        self._earlier_names: dict[str, str] = {}

    def add_earlier_name(self, earlier: str, option: str) -> None:
        """Accept ``earlier`` for ``option``, with a warning; the help does not list it."""
        self._earlier_names[earlier] = option

    def _renamed(self, words: Sequence[str]) -> list[str]:
        """The words with options under their names of today."""
        renamed = []
        for word in words:
            name, equals, value = word.partition("=")
            option = self._earlier_names.get(name)
            if option is not None:
                warn(f"{name} is called {option} now; the earlier name will go in the next version")
                word = f"{option}{equals}{value}"
            renamed.append(word)
        return renamed

    def add_key_values(self, help: str = "settings that override the file") -> None:
        """``KEY VALUE`` pairs after all options, as ``args.opts``."""
        self.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=help)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; an unknown option ends with the nearest one that exists."""
        args = self._renamed(sys.argv[1:] if args is None else args)
        options = [o for o in self._option_string_actions if o.startswith("--")]
        # Before argparse, which would name what is missing instead of the option that is misspelt.
        for word in args:
            name = word.split("=")[0]
            if word.startswith("--") and word != "--" and name not in options:
                self.error(f"unknown option {name}{nearest(name, options)}")
        found, unknown = self.parse_known_args(args, namespace)
        # A VALUE may be -1; a KEY is no option.
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
        """One line and where to look, exit code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n({self.prog} --help has an example)\n")


def words(error: BaseException) -> str:
    """The message of an error; a KeyError's without the quotes that ``str`` gives it."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def warn(text: str) -> None:
    """One line on stderr: what was done, and what changes it."""
    sys.stderr.write(f"warning: {text}\n")


def say_error(error: BaseException) -> None:
    """The error in one line on stderr; with UNREID_TRACEBACK set it is raised instead."""
    if os.environ.get("UNREID_TRACEBACK"):
        raise error
    sys.stderr.write(f"error: {words(error)}\n(UNREID_TRACEBACK=1 shows where)\n")


def guarded(work: Callable[[], int | None]) -> int:
    """The exit code of ``work()``: its own or 0; 2 for bad input, 130 after Ctrl-C, 143 after
    SIGTERM, which both let ``work`` save first."""
    with signals_raise():
        try:
            return work() or 0
        except EXPECTED as error:
            stopped = received()
            if stopped is None:
                say_error(error)
                return 2
            return _say_stopped(stopped(words(error)))  # an error on the way out
        except KeyboardInterrupt as error:
            return _say_stopped(error)


def _say_stopped(error: KeyboardInterrupt) -> int:
    what = "terminated" if isinstance(error, Terminated) else "interrupted"
    sys.stderr.write(f"\n{what}: {error}\n" if error.args else f"\n{what}\n")
    return exit_code(error)


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """How far a long piece of work is, and how long it will still take, on stderr.

    A terminal gets one line that is written over; a file gets a line every ten seconds.

    Args:
        total: Steps in all.
        what: What is done, such as "reading".
        stream: Where to; stderr as it is at the time.
        clock: Seconds that only grow.
    """

    def __init__(self, total: int, what: str, stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._what = total, what
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._done = 0
        self._terminal = self._stream.isatty()
        self._started = self._last = clock()

    def step(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = self._clock()
        if now - self._last >= (0.2 if self._terminal else 10.0):
            self._last = now
            left = (now - self._started) / self._done * (self._total - self._done)
            self._write(f"{self._what} {self._done} of {self._total}, {duration(left)} left")

    def end(self) -> None:
        """Take the line away again."""
        if self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\033[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()


