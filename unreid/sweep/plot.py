"""The plot of a sweep: scores of every row, and differences to the baseline with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unreid.sweep.grid import short
from unreid.sweep.paired import Difference

#: Panels: heading, entries of a record.
PANELS = (
    ("retrieval, %", ("after.mAP", "after.Rank-1")),
    ("labels of the last epoch", ("labels.ari", "labels.f_score")),
)


def plot(
    flat: Sequence[dict[str, Any]],
    keys: Sequence[str],
    path: str,
    differences: Mapping[str, Mapping[str, Difference]] | None = None,
) -> str | None:
    """Plot retrieval and label quality against the first varied key, or against the rows.

    The values of the key are equally spaced in their given order, so that 0, 0.003 and 0.1 are
    readable. Error bars are the sample standard deviation over folds and seeds.

    Args:
        flat: See :func:`unreid.sweep.table.collect`.
        keys: Varied keys.
        path: Output file, an SVG.
        differences: See :func:`unreid.sweep.table.differences`; shown in an additional panel.

    Returns:
        The reason why nothing was plotted, or None.
    """
    drawn = [record for record in flat if not record["failed"]]
    panels = [(title, [e for e in entries if any(e in record for record in drawn)])
              for title, entries in PANELS]  # fmt: skip
    panels = [(title, entries) for title, entries in panels if entries]
    if not panels:
        return "no run has a score to plot"
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed (pip install matplotlib)"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axis = keys[0] if keys else "row"
    # No date and no random ids, so that the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "unreid", "font.size": 9}):
        number = len(panels) + bool(differences)
        figure, axes = pyplot.subplots(1, number, figsize=(4.4 * number, 3.4), squeeze=False)
        for panel, (title, entries) in zip(axes[0], panels):
            _draw_scores(panel, flat, drawn, keys, axis, entries)
            panel.set_title(title)
        if differences:
            _draw_differences(axes[0][-1], differences)
        for panel in axes[0]:
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return None


def _draw_scores(
    panel: Any,
    flat: Sequence[dict[str, Any]],
    drawn: Sequence[dict[str, Any]],
    keys: Sequence[str],
    axis: str,
    entries: Sequence[str],
) -> None:
    ticks = list(dict.fromkeys(str(record[axis]) for record in flat))
    for entry in entries:
        for name, points in _lines(drawn, keys, axis, entry).items():
            x = [ticks.index(tick) for tick in points]
            y = [statistics.fmean(values) for values in points.values()]
            spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in points.values()]
            label = f"{name} {entry.rsplit('.', 1)[-1]}".strip()
            style = "o-" if axis != "row" else "o"  # rows have no order to draw a line along
            panel.errorbar(x, y, yerr=spread, fmt=style, capsize=3, label=label)
    if axis == "row":
        panel.set_xticks(range(len(ticks)), ticks, rotation=45, ha="right")
    else:
        panel.set_xticks(range(len(ticks)), ticks, rotation=0 if len(ticks) < 7 else 45)
        panel.set_xlabel(axis)


def _draw_differences(panel: Any, found: Mapping[str, Mapping[str, Difference]]) -> None:
    """Plot differences of retrieval scores; label scores have another scale."""
    rows = list(found)
    entries = [e for e in next(iter(found.values()), {}) if e.startswith("after.")]
    for number, entry in enumerate(entries):
        places = [i + 0.2 * (number - (len(entries) - 1) / 2) for i in range(len(rows))]
        means = [found[row][entry].mean for row in rows]
        widths = [found[row][entry].half_width or 0.0 for row in rows]
        label = entry.rsplit(".", 1)[-1]
        panel.errorbar(places, means, yerr=widths, fmt="o", capsize=3, label=label)
    panel.axhline(0.0, color="black", linewidth=0.8)
    panel.set_xticks(range(len(rows)), rows, rotation=45, ha="right")
    panel.set_title("difference to the baseline, 95 %")


def _lines(
    flat: Sequence[dict[str, Any]], keys: Sequence[str], axis: str, entry: str
) -> dict[str, dict[str, list[float]]]:
    """Return line -> x tick -> values; the runs of a line differ in tick, fold and seed."""
    many = len({record["row"].partition(",")[0] for record in flat}) > 1 and axis != "row"
    lines: dict[str, dict[str, list[float]]] = {}
    for record in flat:
        words = [record["row"].partition(",")[0]] if many else []
        words += [f"{short(key)} {record[key]}" for key in keys if key != axis and axis != "row"]
        if entry in record:
            line = lines.setdefault(", ".join(words), {})
            line.setdefault(str(record[axis]), []).append(record[entry])
    return lines
