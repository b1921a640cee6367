"""Read camera, id and tracklet of an image from its path with a pattern.

A pattern has one of three forms::

    cam{camera}/person{id}_*.jpg            plain: ``*`` and ``?`` as in a shell, not across ``/``
    cam(?P<camera>[0-9]+)/(?P<id>[0-9]+)_   regular expression with named groups
    cam([0-9]+)                             regular expression with one group: the default field
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from unreid.checks import check_choice

#: Fields of a path: names of groups and placeholders.
FIELDS = ("camera", "id", "tracklet")
#: CPU seconds: limit of the search in one path, and limit of the mean over all paths.
SECONDS_PER_PATH, MEAN_SECONDS = 1.0, 1e-3

_PLACEHOLDER = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_MATCH_IN_CHILD = (
    "import json, re, sys\n"
    "expression, groups, paths = json.load(sys.stdin)\n"
    "found = map(re.compile(expression).search, paths)\n"
    "json.dump([m and {k: m[i] for k, i in groups.items()} for m in found], sys.stdout)\n"
)


@dataclass(frozen=True)
class PathPattern:
    """A compiled pattern.

    Attributes:
        text: The pattern as given, for messages.
        expression: The regular expression that is searched in a path.
        groups: Field -> number of its group in ``expression``.
    """

    text: str
    expression: re.Pattern[str]
    groups: dict[str, int]

    @classmethod
    def compile(cls, text: str, field: str = "camera") -> PathPattern:
        """Compile a pattern of one of the three forms.

        Args:
            text: The pattern.
            field: Field of a single unnamed group.

        Raises:
            ValueError: Not a regular expression, or a named group that is not a field.
        """
        source = _translate_plain(text) if _PLACEHOLDER.search(text) else text
        try:
            expression = re.compile(source)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"pattern must be a regular expression, or a plain pattern such as"
                f" 'cam{{camera}}/*', got {text!r} ({error})"
            ) from error
        for group in expression.groupindex:
            check_choice("a named group of the pattern", group, FIELDS)
        groups = dict(expression.groupindex)
        if not groups and expression.groups == 1:
            groups = {field: 1}
        return cls(text, expression, groups)

    def search(self, paths: Sequence[str]) -> list[dict[str, str | None] | None]:
        """Return the fields of each path, or None for a path that does not match.

        Some regular expressions take time exponential in the length of the path. A search that
        takes more CPU time than :data:`SECONDS_PER_PATH`, or :data:`MEAN_SECONDS` on average, is an
        error.

        Raises:
            ValueError: A search took too long; names the pattern, and the path if known.
        """
        if threading.current_thread() is not threading.main_thread() or not hasattr(
            signal, "setitimer"
        ):
            return self._search_in_child(paths)
        path, number = "", 0
        try:
            with _processor_limit() as start:
                found = []
                started = time.process_time()
                for number, path in enumerate(paths, 1):
                    start(SECONDS_PER_PATH)
                    match = self.expression.search(path)
                    found.append(match and {k: match[i] for k, i in self.groups.items()})
                    used = time.process_time() - started
                    if used > SECONDS_PER_PATH + MEAN_SECONDS * number:
                        raise _TooSlowError
        except _TooSlowError:
            raise self._too_slow(f" (path {number} of {len(paths)}, {path!r})") from None
        return found

    def _search_in_child(self, paths: Sequence[str]) -> list[dict[str, str | None] | None]:
        """Search in a child process, which can be stopped where no signal timer is available."""
        limit = SECONDS_PER_PATH + MEAN_SECONDS * len(paths)
        request = json.dumps([self.expression.pattern, self.groups, list(paths)])
        try:
            # Four times the limit: this is wall-clock time, and the process has to start.
            process = subprocess.run(
                [sys.executable, "-c", _MATCH_IN_CHILD],
                input=request,
                capture_output=True,
                text=True,
                check=True,
                timeout=4 * limit,
            )
        except subprocess.TimeoutExpired:
            raise self._too_slow("") from None
        return json.loads(process.stdout)  # type: ignore[no-any-return]

    def _too_slow(self, where: str) -> ValueError:
        """Return the error of a search that exceeded the time limit."""
        return ValueError(
            f"pattern {self.text!r} takes too long to search{where}: nested repetition such as"
            " (a+)+ takes time exponential in the length of the path; remove it, or use a plain"
            " pattern such as 'cam{camera}/*'"
        )


def _translate_plain(text: str) -> str:
    """Translate a plain pattern to a regular expression that matches whole path components."""
    parts, seen = [], set()
    for part in re.split(r"(\{\w+\}|[*?])", text):
        name = part[1:-1] if _PLACEHOLDER.fullmatch(part) else ""
        if name in seen:
            raise ValueError(f"pattern must name {{{name}}} once, got {text!r}")
        if name:
            seen.add(name)
            # Non-greedy: a field ends before the next literal character of the pattern.
            parts.append(rf"(?P<{name}>[^/]+?)")
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return rf"(?:^|/){''.join(parts)}(?=/|$)"


class _TooSlowError(Exception):
    """A search exceeded its CPU time limit."""


@contextlib.contextmanager
def _processor_limit() -> Iterator[Callable[[float], object]]:
    """Yield a function that starts a timer of CPU seconds (0 stops it); it raises when it expires.

    The timer counts CPU time of this process, so that other processes do not matter. ``re`` handles
    signals while it searches.
    """

    def on_timer(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGVTALRM, on_timer)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
