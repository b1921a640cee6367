"""Camera, id and tracklet of an image from its path: plain patterns and regular expressions.

Three forms are accepted::

    cam{camera}/person{id}_*.jpg            plain: ``*`` and ``?`` as in a shell, not across ``/``
    cam(?P<camera>[0-9]+)/(?P<id>[0-9]+)_   a regular expression with named groups
    cam([0-9]+)                             a regular expression with one group: the default field
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

#: What a path may say, by the names of groups and placeholders.
FIELDS = ("camera", "id", "tracklet")
#: Processor seconds that one search in one path may take, and the mean over all paths.
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
        written: As it was given, for messages.
        expression: The regular expression that is searched in a path.
        groups: Field -> number of its group.
    """

    written: str
    expression: re.Pattern[str]
    groups: dict[str, int]

    @classmethod
    def compile(cls, written: str, field: str = "camera") -> PathPattern:
        """Compile a pattern of one of the three forms.

        Args:
            written: The pattern.
            field: What the group of a regular expression with one unnamed group holds.

        Raises:
            ValueError: no regular expression, or a named group that is no field.
        """
        source = _of_plain(written) if _PLACEHOLDER.search(written) else written
        try:
            expression = re.compile(source)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"pattern must be a regular expression, or a plain pattern such as"
                f" 'cam{{camera}}/*', got {written!r} ({error})"
            ) from error
        for group in expression.groupindex:
            check_choice("a named group of the pattern", group, FIELDS)
        groups = dict(expression.groupindex)
        if not groups and expression.groups == 1:
            groups = {field: 1}
        return cls(written, expression, groups)

    def search(self, paths: Sequence[str]) -> list[dict[str, str | None] | None]:
        """Return the fields of each path, or None for a path that does not match.

        Unlike ``re.search`` this ends: a search that takes more processor time than
        :data:`SECONDS_PER_PATH` (or :data:`MEAN_SECONDS` on average) is an error.

        Raises:
            ValueError: names the pattern, and the path where it is known.
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
        """A thread cannot be interrupted by a timer: a process can be ended."""
        limit = SECONDS_PER_PATH + MEAN_SECONDS * len(paths)
        question = json.dumps([self.expression.pattern, self.groups, list(paths)])
        try:
            # Four times the limit: this is wall time, and a process has to start.
            done = subprocess.run(
                [sys.executable, "-c", _MATCH_IN_CHILD],
                input=question,
                capture_output=True,
                text=True,
                check=True,
                timeout=4 * limit,
            )
        except subprocess.TimeoutExpired:
            raise self._too_slow("") from None
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def _too_slow(self, where: str) -> ValueError:
        return ValueError(
            f"pattern {self.written!r} takes too long to search{where}: repeated groups inside each"
            " other, such as (a+)+, take a time that doubles with every character; write it"
            " without them, or as a plain pattern such as 'cam{camera}/*'"
        )


def _of_plain(written: str) -> str:
    """The regular expression of a plain pattern: it begins and ends at a ``/`` or an end."""
    parts, seen = [], set()
    for part in re.split(r"(\{\w+\}|[*?])", written):
        name = part[1:-1] if _PLACEHOLDER.fullmatch(part) else ""
        if name in seen:
            raise ValueError(f"pattern must name {{{name}}} once, got {written!r}")
        if name:
            seen.add(name)
            # A file's field ends before the next character that is written out.
            parts.append(rf"(?P<{name}>[^/]+?)")
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return rf"(?:^|/){''.join(parts)}(?=/|$)"


class _TooSlowError(Exception):
    """The processor time of one search is over."""


@contextlib.contextmanager
def _processor_limit() -> Iterator[Callable[[float], object]]:
    """Yield a function that (re)starts the timer of so many processor seconds; 0 stops it.

    The timer counts this process's own time, so a busy machine ends nothing; ``re`` looks for
    signals while it searches.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
