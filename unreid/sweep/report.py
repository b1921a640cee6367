"""Sweep report: markdown, CSV of rows and of runs, and a plot."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from unreid.engine.atomic import replace_file
from unreid.sweep.plot import plot
from unreid.sweep.rows import CONFIGURED
from unreid.sweep.table import Record, collect, columns, compared, differences, groups, markdown


def write_report(
    records: Sequence[Record],
    keys: Sequence[str],
    folder: str,
    baseline: str | None = None,
    settings: Sequence[str] = (),
) -> tuple[str, str | None]:
    """Write ``table.md``, ``table.csv``, ``runs.csv`` and ``plot.svg`` into ``folder``.

    Args:
        records: All runs of a sweep.
        keys: Varied keys; the first one is the x axis of the plot. Without any the x axis has the
            rows.
        folder: Output folder.
        baseline: The row that all others are compared with, or None.
        settings: Test settings in addition to those of the configs; each has its own table and plot
            ``plot_SETTING.svg``.

    Returns:
        The markdown tables, and the reason why there is no plot or None.
    """
    named = [CONFIGURED, *settings]
    tables = [markdown(records, baseline, setting) for setting in named]
    text = "\n".join(tables)
    summary = [line for setting in named for line in summaries(records, baseline, setting)]
    runs = [{"test": setting, **entry} for setting in named for entry in collect(records, setting)]
    contents = {"table.md": text, "table.csv": _csv(summary), "runs.csv": _csv(runs)}
    for name, content in contents.items():
        with replace_file(f"{folder}/{name}", "w") as file:
            file.write(content)
    reasons = []
    for setting in named:
        flat = collect(records, setting)
        found = differences(flat, baseline) if baseline else None
        name = "plot.svg" if setting == CONFIGURED else f"plot_{setting}.svg"
        reasons.append(plot(flat, keys, f"{folder}/{name}", found))
    return text, reasons[0]


def summaries(
    records: Sequence[Record], baseline: str | None, setting: str
) -> list[dict[str, Any]]:
    """Return one line per row: numbers of folds, seeds and runs, then every statistic by name."""
    flat = collect(records, setting)
    found = differences(flat, baseline) if baseline else {}
    lines = []
    for row, members in groups(flat).items():
        done = [record for record in members if not record["failed"]]
        line: dict[str, Any] = {"test": setting, "row": row, "runs": len(done)}
        line |= {f"{key}s": len({record[key] for record in done}) for key in ("fold", "seed")}
        for _, entry, _ in columns(flat):
            values = [record[entry] for record in members if entry in record]
            if values:
                line[f"{entry} mean"] = statistics.fmean(values)
            if len(values) > 1:
                line[f"{entry} std"] = statistics.stdev(values)
        for _, entry, _ in compared(flat) if row in found else ():
            difference = found[row][entry]
            line |= {f"{entry} difference": difference.mean, f"{entry} pairs": difference.pairs}
            if difference.interval is not None:
                low, high = difference.interval
                line |= {f"{entry} low": low, f"{entry} high": high}
        lines.append(line)
    return lines


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
