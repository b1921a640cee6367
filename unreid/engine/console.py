"""What a training prints: one line per epoch, progress inside it, a table at the end.

All else is in ``log.txt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

#: The scores in the tables, in percent.
SHOWN = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def score_table(scores: Mapping[str, Mapping[str, Any] | None], *, beside: str = "") -> str:
    """Return scores as a table: a row for each name of a score, a column for each evaluation.

    Args:
        scores: Title of a column -> scores in percent by name, of one test set or by the name of
            several; a column without scores is left out. Of "before" and "after" the gain is
            shown, too.
        beside: Test settings that must be named beside the numbers.
    """
    columns: dict[str, dict[str, float]] = {}
    for title, found in scores.items():
        if found:
            columns[title] = dict(_by_row(found))
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
    header = [f"percent{beside}", *columns]
    if {"before", "after"} <= columns.keys():
        header.append("gain")
        for name, row in zip(names, rows):
            pair = [columns[title].get(name) for title in ("before", "after")]
            row.append(None if None in pair else pair[1] - pair[0])  # type: ignore[operator]
    return tabulate(rows, header, floatfmt=".1f")


def _by_row(scores: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _by_row(value, f"{prefix}{key} ")
        elif key in SHOWN:
            yield f"{prefix}{key}", float(value)
