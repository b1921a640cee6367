"""Charts as inline SVG: no script, no font and no file is needed to look at them.

Colours are CSS variables of the page (``--c0`` ...), so that dark mode changes them. Every line
chart carries its numbers as a table, and its axes as ``data-*``: what is drawn can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

#: Colours that the style sheet knows; a ninth line begins anew, dashed.
NUM_COLOURS = 8
_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34
#: A line is drawn with so many points at most.
_MAX_POINTS = 1000

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A drawing with its words.

    Attributes:
        title: Above it.
        svg: The drawing.
        legend: (colour number, dashed, name) of each line.
        header: Of the table of numbers; empty for none.
        rows: Of the table; an absent value is an empty text.
        note: Below it.
    """

    title: str
    svg: Markup
    legend: list[tuple[int, bool, str]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def number(value: float) -> str:
    """Six significant digits at most, without an exponent where that is readable."""
    return f"{value:.6g}" if value != int(value) or abs(value) >= 1e15 else str(int(value))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, some ``count`` of them."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-290):  # as good as one value
        high = low + (abs(low) if abs(low) > 1e-290 else 1.0)
    raw = (high - low) / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    x_name: str,
    *,
    note: str = "",
    zero: bool = False,
    unit: str = "",
) -> Chart | None:
    """Lines over a common x axis, or None where there is no finite point.

    Args:
        title: Above it.
        lines: Name -> (x, y) pairs, x ascending. Values that are not finite break the line.
        x_name: Of the x axis, and of the table's first column.
        note: Below it.
        zero: Whether the y axis starts at 0.
        unit: Behind the y axis' numbers.
    """
    drawn = {name: _thinned(points) for name, points in lines.items()}
    finite = [(x, y) for points in drawn.values() for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    y_ticks = ticks(min(0.0, *ys) if zero else min(ys), max(ys))
    x_ticks = [t for t in ticks(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    if all(x == int(x) for x in xs):  # there is no epoch 2.5
        x_ticks = [t for t in x_ticks if t == round(t)]
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    frame = _Frame(x_low, x_high, y_ticks[0], y_ticks[-1])
    parts = [frame.axes(x_ticks, y_ticks, x_name, unit)]
    legend = []
    for i, (name, points) in enumerate(drawn.items()):
        colour, dashed = i % NUM_COLOURS, i >= NUM_COLOURS
        parts.append(frame.line(name, points, colour, dashed))
        legend.append((colour, dashed, name))
    thin = any(len(drawn[name]) < len(points) for name, points in lines.items())
    if thin:
        note = f"{note} Drawn and listed: about {_MAX_POINTS} points of each line.".strip()
    svg = frame.svg(title, parts)
    return Chart(title, svg, legend, [x_name, *drawn], _table(drawn), note)


def _thinned(points: Points) -> list[tuple[float, float]]:
    """Every n-th point, and the last one always."""
    points = list(points)
    step = -(-len(points) // _MAX_POINTS)
    if step <= 1:
        return points
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _table(lines: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    values = [dict(points) for points in lines.values()]
    xs = sorted({x for points in values for x in points})
    return [[number(x), *(number(v[x]) if x in v and math.isfinite(v[x]) else "" for v in values)]
            for x in xs]  # fmt: skip


@dataclass(frozen=True)
class _Frame:
    """The data rectangle of a line chart."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        share = (value - self.x0) / (self.x1 - self.x0)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y0) / (self.y1 - self.y0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def axes(
        self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, unit: str
    ) -> Markup:
        parts = []
        for t in y_ticks:
            y = self.y(t)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
                         f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                         f"{_short(t)}{escape(unit)}</text>")
        base = _HEIGHT - _BOTTOM
        for t in x_ticks:
            x = self.x(t)
            anchor = "end" if x > _WIDTH - 24 else "middle"
            parts.append(f'<path class="tick" d="M{x:.1f} {base}v4"/><text x="{x:.1f}"'
                         f' y="{base + 16}" text-anchor="{anchor}">{_short(t)}</text>')
        parts.append(f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2}"'
                     f' y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
        return Markup("".join(parts))

    def line(self, name: str, points: Points, colour: int, dashed: bool) -> Markup:
        parts, piece = [], ""
        for x, y in points:
            if not math.isfinite(y):
                piece = ""
                continue
            piece = "L" if piece else "M"
            parts.append(f"{piece}{self.x(x):.2f} {self.y(y):.2f}")
        marks = ""
        if len(points) <= 60:
            marks = "".join(
                f'<circle class="f{colour}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2.6">'
                f"<title>{escape(name)}: {number(y)} at {number(x)}</title></circle>"
                for x, y in points if math.isfinite(y))
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        return Markup(f'<path class="line s{colour}"{dash} data-name="{escape(name)}"'
                      f' d="{"".join(parts)}"/>{marks}')

    def svg(self, title: str, parts: Sequence[Markup]) -> Markup:
        return Markup(
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
            f' aria-label="{escape(title)}" data-x0="{self.x0!r}" data-x1="{self.x1!r}"'
            f' data-y0="{self.y0!r}" data-y1="{self.y1!r}">{Markup("").join(parts)}</svg>'
        )


def _short(value: float) -> str:
    """A tick: 12k, 0.05, 3.5, 2.5e-4."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    if abs(value) < 1e-12:
        return "0"
    if abs(value) < 0.01:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.4g}"


def bar_chart(title: str, bars: dict[str, float], *, note: str = "", unit: str = "") -> Chart:
    """Horizontal bars with their names and values; empty bars stay, as a name and a 0."""
    height, top = 26, 4
    longest = max([*bars.values(), 0]) or 1.0
    left = min(150, 14 + 7 * max((len(name) for name in bars), default=0))
    room = _WIDTH - left - 64
    parts = []
    for i, (name, value) in enumerate(bars.items()):
        y = top + i * height
        width = room * value / longest
        parts.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(_clipped(name, 20))}'
            f'</text><rect class="f0" x="{left}" y="{y + 4}" width="{width:.1f}" height="16"'
            f' rx="3"/><text x="{left + width + 6:.1f}" y="{y + 16}">{_rounded(value)}'
            f"{escape(unit)}</text>"
        )
    svg = Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {top + height * len(bars) + 4}"'
                 f' role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>')
    return Chart(title, svg, note=note)


def _rounded(value: float) -> str:
    """Whole from 100 on, else a digit behind the point where there is something behind it."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def heat_map(
    title: str, values: np.ndarray, names: Sequence[str], *, note: str = ""
) -> Chart:
    """Shares in percent, a row and a column per name; the darker, the larger.

    Args:
        title: Above it.
        values: (M, M) in 0..1.
        names: M.
        note: Below it.
    """
    num = len(names)
    left, top, side = 52, 30, _WIDTH - 56
    cell = side / max(num, 1)
    parts = []
    for a in range(num):
        parts.append(f'<text x="{left - 6}" y="{top + (a + 0.5) * cell + 4:.1f}"'
                     f' text-anchor="end">{escape(_clipped(names[a], 6))}</text>')
        if num <= 16:
            parts.append(f'<text x="{left + (a + 0.5) * cell:.1f}" y="{top - 8}"'
                         f' text-anchor="middle">{escape(_clipped(names[a], 6))}</text>')
        for b in range(num):
            share = float(values[a, b])
            strong = " on" if share > 0.55 else ""
            text = ""
            if num <= 12:
                text = (f'<text class="cell{strong}" x="{left + (b + 0.5) * cell:.1f}"'
                        f' y="{top + (a + 0.5) * cell + 4:.1f}" text-anchor="middle">'
                        f"{100 * share:.0f}</text>")
            parts.append(
                f'<rect class="heat" x="{left + b * cell:.1f}" y="{top + a * cell:.1f}"'
                f' width="{cell - 1:.1f}" height="{cell - 1:.1f}" rx="2"'
                f' style="fill-opacity:{0.04 + 0.96 * share:.3f}" data-share="{share:.6f}"><title>'
                f"of {escape(names[a])}'s neighbours, {100 * share:.1f} % are of"
                f" {escape(names[b])}</title></rect>{text}"
            )
    svg = Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {top + side + 2:.0f}" role="img"'
                 f' aria-label="{escape(title)}">{"".join(parts)}</svg>')
    return Chart(title, svg, note=note)


def scatter(
    title: str, points: np.ndarray, groups: np.ndarray, names: dict[int, str], *, note: str = ""
) -> Chart:
    """Points in the plane, coloured by group.

    Args:
        title: Above it.
        points: (n, 2) in -1..1.
        groups: (n,) integer; -1 is drawn grey, below the others.
        names: Group -> name in the legend; without names, groups are told apart by hues that
            repeat, as clusters are.
        note: Below it.
    """
    side, edge = 360, 8
    where = edge + (points * [1, -1] + 1) / 2 * (side - 2 * edge)
    radius = 2.2 if len(points) > 400 else 3.2
    parts, legend = [], []
    for group in sorted(set(groups.tolist())):
        # Lines of no length with round ends: a point for ten bytes.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in where[groups == group])
        if group < 0:
            colour = ' class="dot none"'
        elif names:
            colour = f' class="dot s{group % NUM_COLOURS}"'
            legend.append((group % NUM_COLOURS, False, names[group]))
        else:
            hue, light = group * 137.508 % 360, (45, 60, 52)[group % 3]
            colour = f' class="dot" style="stroke:hsl({hue:.0f} 65% {light}%)"'
        parts.append(f'<path{colour} stroke-width="{2 * radius}" d="{dots}"/>')
    top, bottom = (where[:, 1].min() - edge, where[:, 1].max() + edge) if len(where) else (0, 0)
    tall = max(bottom - top, side / 4)
    svg = Markup(f'<svg class="chart map" viewBox="0 {top:.0f} {side} {tall:.0f}" role="img"'
                 f' aria-label="{escape(title)}">{"".join(parts)}</svg>')
    return Chart(title, svg, legend, note=note)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
