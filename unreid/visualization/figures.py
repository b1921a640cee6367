"""Figures of the report: chart data as JSON for Chart.js, and as a table.

``templates/charts.js`` draws the charts. The table is shown without JavaScript.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Longer lines are subsampled to about this number of points.
MAX_POINTS = 1000
#: Groups named in the table of a scatter plot.
_MAX_GROUPS = 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """One chart.

    Attributes:
        title: Heading.
        spec: ``kind`` (``line``, ``bar``, ``heat`` or ``scatter``) and its data, as charts.js
            expects them.
        header: Column names of the table.
        rows: Cells of the table; an absent value is an empty text.
        note: Explanation below the chart.
    """

    title: str
    spec: dict[str, Any]
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    @property
    def json(self) -> str:
        """``spec`` as compact JSON."""
        return json.dumps(self.spec, separators=(",", ":"), allow_nan=False)

    @property
    def height(self) -> int:
        """Height in pixels; 0 for a square."""
        if self.spec["kind"] == "bar":
            return 44 + 26 * len(self.spec["names"])
        return 260 if self.spec["kind"] == "line" else 0


def number(value: float) -> str:
    """Return the value as text with at most six significant digits; integers have no exponent."""
    return f"{value:.6g}" if value != int(value) or abs(value) >= 1e15 else str(int(value))


def line_figure(
    title: str,
    lines: Mapping[str, Points],
    x_name: str,
    *,
    note: str = "",
    zero: bool = False,
    unit: str = "",
) -> Figure | None:
    """Return a line chart over a common x axis, or None without a finite point.

    Args:
        title: Heading.
        lines: Name -> (x, y) pairs, x ascending. A value that is not finite is a gap.
        x_name: Name of the x axis and of the first column.
        note: Explanation below the chart.
        zero: Whether the y axis starts at 0.
        unit: Suffix of values of the y axis.
    """
    shown = {name: _thinned(points) for name, points in lines.items()}
    if not any(math.isfinite(y) for points in shown.values() for _, y in points):
        return None
    if any(len(shown[name]) < len(points) for name, points in lines.items()):
        note = f"{note} Shown: about {MAX_POINTS} points of each line.".strip()
    spec = {
        "kind": "line", "x": x_name, "unit": unit, "zero": zero,
        "lines": [{"name": name, "points": [[x, y if math.isfinite(y) else None]
                                            for x, y in points]}
                  for name, points in shown.items()],
    }  # fmt: skip
    return Figure(title, spec, [x_name, *shown], _table(shown), note)


def _thinned(points: Points) -> list[tuple[float, float]]:
    """Return every n-th point, and always the last point."""
    points = list(points)
    step = -(-len(points) // MAX_POINTS)
    if step <= 1:
        return points
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _table(lines: Mapping[str, Points]) -> list[list[str]]:
    values = [dict(points) for points in lines.values()]
    xs = sorted({x for points in values for x in points})
    return [[number(x), *(number(v[x]) if x in v and math.isfinite(v[x]) else "" for v in values)]
            for x in xs]  # fmt: skip


def bar_figure(title: str, bars: Mapping[str, float], *, note: str = "", unit: str = "") -> Figure:
    """Return a chart of horizontal bars in the given order, including zeros."""
    spec = {"kind": "bar", "unit": unit, "names": list(bars), "values": list(bars.values())}
    rows = [[name, number(value)] for name, value in bars.items()]
    return Figure(title, spec, ["", f"value{unit}"], rows, note)


def heat_figure(title: str, values: np.ndarray, names: Sequence[str], *, note: str = "") -> Figure:
    """Return a heat map of shares, with one row and one column per name.

    Args:
        title: Heading.
        values: (M, M) in 0..1.
        names: M names.
        note: Explanation below the chart.
    """
    shares = [[round(float(v), 6) for v in row] for row in values]
    rows = [[name, *(f"{100 * v:.1f}" for v in row)] for name, row in zip(names, shares)]
    spec = {"kind": "heat", "names": list(names), "values": shares}
    return Figure(title, spec, ["percent", *names], rows, note)


def scatter_figure(
    title: str, points: np.ndarray, groups: np.ndarray, names: Mapping[int, str], *, note: str = ""
) -> Figure:
    """Return a scatter plot with points coloured by group.

    Args:
        title: Heading.
        points: (n, 2) in -1..1.
        groups: (n,) integer; -1 is grey, below the others.
        names: Group -> name in the legend; empty for clusters, whose colours repeat.
        note: Explanation below the chart.
    """
    order = np.argsort(groups, kind="stable")
    spec = {
        "kind": "scatter",
        "points": [[round(float(x), 4), round(float(y), 4)] for x, y in points[order]],
        "groups": groups[order].tolist(),
        "names": {str(group): name for group, name in names.items()},
    }
    found, counts = np.unique(groups, return_counts=True)
    rows = [
        [names.get(int(g), "noise" if g < 0 else f"cluster {g}"), str(c)]
        for g, c in zip(found, counts)
    ]
    if len(rows) > _MAX_GROUPS:
        rows = [*rows[:_MAX_GROUPS], [f"{len(rows) - _MAX_GROUPS} more", ""]]
    return Figure(title, spec, ["group", "images"], rows, note)
