"""What came of a grid: one row per run as CSV, one per setting as markdown, and a plot.

Runs that differ in nothing but the seed share a row of the markdown table and a point of the
plot: their mean, and the sample standard deviation beside it.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unreid.ablation.grid import short
from unreid.ablation.runs import Outcome
from unreid.config import flat_keys
from unreid.engine.atomic import replace_file

#: Columns of the markdown table: heading, entry of the CSV, decimals.
COLUMNS = (
    ("mAP before", "before.mAP", 1),
    ("mAP", "after.mAP", 1),
    ("Rank-1", "after.Rank-1", 1),
    ("mAP selected", "selected.mAP", 1),
    ("ARI", "labels.ari", 3),
    ("F", "labels.f_score", 3),
    ("P", "labels.precision", 3),
    ("R", "labels.recall", 3),
    ("purity", "labels.purity", 3),
    ("clusters", "labels.clusters", 0),
    ("noise", "labels.noise", 0),
    ("min", "minutes", 1),
)
#: The plot's panels: heading, entries of the CSV.
PANELS = (
    ("retrieval, %", ("after.mAP", "after.Rank-1")),
    ("labels of the last epoch", ("labels.ari", "labels.f_score")),
)


def collect(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One flat row per run: its settings, then every number of its results by dotted name.

    Scores of several test sets have the set's name in theirs (``after.Market1501.mAP``).
    """
    rows = []
    for outcome in outcomes:
        run = outcome.run
        row: dict[str, Any] = {"config": run.label, **dict(run.varied)}
        if run.seed is not None:
            row["seed"] = run.seed
        row["folder"], row["failed"] = run.folder, outcome.error
        for key in ("before", "after", "selected", "labels", "seconds"):
            found = (outcome.results or {}).get(key)
            for name, value in flat_keys(found) if isinstance(found, Mapping) else ():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    row[f"{key}.{name}"] = value
        seconds = [value for name, value in row.items() if name.startswith("seconds.")]
        if seconds:
            row["minutes"] = sum(seconds) / 60
        rows.append(row)
    return rows


def write_report(
    outcomes: Sequence[Outcome], keys: Sequence[str], folder: str
) -> tuple[str, str | None]:
    """Write ``table.csv``, ``table.md`` and ``plot.svg`` into ``folder``.

    Args:
        outcomes: of all runs of the grid.
        keys: the varied keys; the first of them is the plot's axis (the config without any).

    Returns:
        The markdown table; and why there is no plot, or None.
    """
    rows = collect(outcomes)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table = markdown(rows, keys)
    for name, content in (("table.csv", text.getvalue()), ("table.md", table)):
        with replace_file(f"{folder}/{name}", "w") as file:
            file.write(content)
    return table, plot(rows, keys, f"{folder}/plot.svg")


def _groups(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[Any, list[dict[str, Any]]]:
    """Rows by (config, values of the varied keys): those of one group differ in the seed."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["config"], *(row[key] for key in keys)), []).append(row)
    return groups


def _columns(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """The columns that some run fills; a test set's name goes before its scores."""
    found = []
    for heading, entry, digits in COLUMNS:
        stage, _, score = entry.partition(".")
        names = dict.fromkeys(
            name for row in rows for name in row
            if name == entry or (stage in ("before", "after", "selected")
                                 and name.startswith(f"{stage}.") and name.endswith(f".{score}"))
        )  # fmt: skip
        for name in names:
            inner = name.removeprefix(f"{stage}.").removesuffix(score).rstrip(".")
            found.append((f"{inner} {heading}" if inner and score else heading, name, digits))
    return found


def markdown(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """The table: a row per setting, in the order of the grid; failed runs named below it."""
    groups, columns = _groups(rows, keys), _columns(rows)
    several = len({row["config"] for row in rows}) > 1 or not keys
    seeds = max((len(members) for members in groups.values()), default=1) > 1
    head = (["config"] if several else []) + [short(key) for key in keys]
    head += (["seeds"] if seeds else []) + [heading for heading, _, _ in columns]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (config, *values), members in groups.items():
        cells = ([config] if several else []) + [str(value) for value in values]
        cells += [str(sum(not row["failed"] for row in members))] if seeds else []
        for _, entry, digits in columns:
            cells.append(_cell([row[entry] for row in members if entry in row], digits))
        lines.append("| " + " | ".join(cells) + " |")
    failed = [f"- {row['folder']}: {row['failed']}" for row in rows if row["failed"]]
    if seeds:
        lines += ["", "Mean over the seeds ± sample standard deviation."]
    return "\n".join(lines + (["", "Failed:", "", *failed] if failed else [])) + "\n"


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def plot(rows: Sequence[dict[str, Any]], keys: Sequence[str], path: str) -> str | None:
    """Retrieval and label quality against the first varied key, a line for each other setting.

    Values stand side by side in the order given, whatever their scale: 0, 0.003 and 0.1 are
    as readable as names. Error bars are the spread over seeds.

    Returns:
        Why nothing was drawn, or None.
    """
    drawn = [row for row in rows if not row["failed"]]
    panels = [(title, [e for e in entries if any(e in row for row in drawn)])
              for title, entries in PANELS]  # fmt: skip
    panels = [(title, entries) for title, entries in panels if entries]
    if not panels:
        return "no run has a score to draw"
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed (pip install matplotlib)"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axis = keys[0] if keys else "config"
    ticks = list(dict.fromkeys(str(row[axis]) for row in rows))
    # The same numbers give the same file: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "unreid", "font.size": 9}):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.4))
        for panel, (title, entries) in zip([axes] if len(panels) == 1 else axes, panels):
            for entry in entries:
                for name, points in _lines(drawn, keys, axis, entry).items():
                    x = [ticks.index(tick) for tick in points]
                    y = [statistics.fmean(values) for values in points.values()]
                    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in points.values()]
                    label = f"{name} {entry.rsplit('.', 1)[-1]}".strip()
                    panel.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=label)
            panel.set_xticks(range(len(ticks)), ticks, rotation=0 if len(ticks) < 7 else 45)
            panel.set_xlabel(axis)
            panel.set_title(title)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return None


def _lines(
    rows: Sequence[dict[str, Any]], keys: Sequence[str], axis: str, entry: str
) -> dict[str, dict[str, list[float]]]:
    """Line -> tick -> values (one per seed): lines differ in all but the axis and the seed."""
    many = len({row["config"] for row in rows}) > 1 and axis != "config"
    lines: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        words = [str(row["config"])] if many else []
        words += [f"{short(key)} {row[key]}" for key in keys if key != axis]
        if entry in row:
            line = lines.setdefault(", ".join(words), {})
            line.setdefault(str(row[axis]), []).append(row[entry])
    return lines
