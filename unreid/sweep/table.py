"""The table of a sweep: per row mean ± standard deviation, and the difference to a baseline row.

Notation: Delta, mean paired difference to the baseline with its 95 % confidence interval
(:mod:`unreid.sweep.paired`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unreid.config import flat_keys
from unreid.sweep.grid import Run
from unreid.sweep.paired import Difference, paired_difference
from unreid.sweep.rows import CONFIGURED, active_settings

#: Columns: heading, entry of a record, decimals.
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
#: Entries whose differences to the baseline are reported; with several test sets, the name of the
#: test set precedes the score.
COMPARED = ("after.mAP", "after.Rank-1", "labels.ari")
_TESTED = ("before", "after", "selected")


@dataclass(frozen=True)
class Record:
    """A run of a sweep: its current row, or the reason why there is none.

    Attributes:
        run: The run.
        row: See :mod:`unreid.sweep.rows`; None if the run failed or was not trained.
        error: Reason why there is no row.
        stale: Reason why an older row of the run is stale; "" if there is none.
    """

    run: Run
    row: Mapping[str, Any] | None
    error: str = ""
    stale: str = ""

    @property
    def fold(self) -> str:
        """Name of the fold."""
        return self.run.fold.name if self.run.fold else "all"


def collect(records: Sequence[Record], setting: str = CONFIGURED) -> list[dict[str, Any]]:
    """Return one flat record per run: row, varied keys, fold, seed, and all numbers by dotted name.

    With several test sets, names include the test set (``after.Market1501.mAP``).

    Args:
        records: Records of one sweep.
        setting: Test setting of the scores ``after``; ``before`` and ``selected`` are measured
            under the settings of the config only.
    """
    flat = []
    for record in records:
        entry: dict[str, Any] = {
            "row": record.run.row, **dict(record.run.varied), "fold": record.fold,
            "seed": record.run.seed_value, "folder": record.run.folder, "failed": record.error,
        }  # fmt: skip
        row = record.row or {}
        parts = {"after": row.get("scores", {}).get(setting), "labels": row.get("labels")}
        if setting == CONFIGURED:
            parts |= {"before": row.get("before"), "selected": row.get("selected")}
        for part in ("before", "after", "selected", "labels"):
            found = parts.get(part)
            for name, value in flat_keys(found) if isinstance(found, Mapping) else ():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    entry[f"{part}.{name}"] = value
        if "minutes" in row:
            entry["minutes"] = row["minutes"]
        flat.append(entry)
    return flat


def groups(flat: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of each row, in the order of the sweep."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in flat:
        found.setdefault(entry["row"], []).append(entry)
    return found


def columns(flat: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Return the columns with a value in any run; with several test sets, one for each of them."""
    found = []
    for heading, entry, digits in COLUMNS:
        stage, _, score = entry.partition(".")
        names = dict.fromkeys(
            name for record in flat for name in record
            if name == entry or (stage in _TESTED and name.startswith(f"{stage}.")
                                 and name.endswith(f".{score}"))
        )  # fmt: skip
        for name in names:
            inner = name.removeprefix(f"{stage}.").removesuffix(score).rstrip(".")
            found.append((f"{inner} {heading}" if inner and score else heading, name, digits))
    return found


def compared(flat: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Return the columns that are compared with the baseline."""

    def is_compared(entry: str) -> bool:
        stage, _, rest = entry.partition(".")
        return f"{stage}.{rest.rpartition('.')[2]}" in COMPARED

    return [column for column in columns(flat) if is_compared(column[1])]


def find_baseline(rows: Sequence[str], wanted: str) -> str:
    """Return the row named ``wanted``, or the only row that ends with ``/wanted``.

    Raises:
        KeyError: There is no such row, or several; the message lists them.
    """
    if wanted in rows:
        return wanted
    found = [row for row in dict.fromkeys(rows) if row.endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(found or dict.fromkeys(rows))
    why = "means several rows" if found else "is no row of this sweep, which has"
    raise KeyError(f"--baseline {wanted} {why}: {listed}")


def differences(flat: Sequence[dict[str, Any]], baseline: str) -> dict[str, dict[str, Difference]]:
    """Return row -> entry -> paired difference, for all rows except the baseline."""
    rows = groups(flat)

    def scores(row: str, entry: str) -> dict[tuple[str, int], float]:
        return {(r["fold"], r["seed"]): r[entry] for r in rows[row] if entry in r}

    entries = [entry for _, entry, _ in compared(flat)]
    return {
        row: {e: paired_difference(scores(row, e), scores(baseline, e)) for e in entries}
        for row in rows if row != baseline
    }  # fmt: skip


def markdown(
    records: Sequence[Record], baseline: str | None = None, setting: str = CONFIGURED
) -> str:
    """Return the table as markdown, followed by notes about excluded and failed runs."""
    flat = collect(records, setting)
    found = differences(flat, baseline) if baseline else {}
    shown, against = columns(flat), compared(flat) if baseline else []
    head = ["row", "folds", "seeds", *(heading for heading, _, _ in shown)]
    head += [f"Δ {heading}" for heading, _, _ in against]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    others = _other_settings(records, baseline, setting) if baseline else {}
    for row, members in groups(flat).items():
        done = [record for record in members if not record["failed"]]
        cells = [row, *(str(len({r[key] for r in done})) for key in ("fold", "seed"))]
        cells += [_cell([r[e] for r in members if e in r], digits) for _, e, digits in shown]
        for _, entry, digits in against:
            cell = "baseline" if row == baseline else _delta(found[row][entry], digits)
            tested = entry.startswith("after.")
            cells.append(f"{cell} †" if cell and tested and row in others else cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_notes(records, baseline, setting, found, others)]) + "\n"


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _delta(difference: Difference, digits: int) -> str:
    if math.isnan(difference.mean):
        return ""
    mean, interval = f"{difference.mean:+.{digits}f}", difference.interval
    if interval is None:
        return mean
    return f"{mean} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"


def _other_settings(
    records: Sequence[Record], baseline: str, setting: str
) -> dict[str, tuple[str, str]]:
    """Return row -> (its test settings, the baseline's) where they differ."""

    def active(row: str) -> str:
        for record in records:
            if record.run.row == row and record.row is not None:
                return ", ".join(active_settings(record.row, setting)) or "none"
        return ""

    rows = dict.fromkeys(record.run.row for record in records)
    base = active(baseline)
    return {row: (active(row), base) for row in rows if active(row) and base != active(row)}


def _notes(
    records: Sequence[Record],
    baseline: str | None,
    setting: str,
    found: Mapping[str, Mapping[str, Difference]],
    others: Mapping[str, tuple[str, str]],
) -> list[str]:
    if setting == CONFIGURED:
        what = "Test settings: those of each config"
    else:
        active = next((active_settings(r.row, setting) for r in records if r.row is not None), [])
        what = f"Test settings: {setting} ({', '.join(active) or 'none'})"
    lines = [f"{what}. Mean ± sample standard deviation over folds and seeds."]
    if baseline:
        several = any(d.half_width is not None for row in found.values() for d in row.values())
        lines.append(
            f"Δ: paired difference to {baseline} (same fold, same seed; seeds averaged first)"
            + (", with the 95 % t interval over folds." if several
               else "; an interval needs two folds at least.")
        )  # fmt: skip
        if not any(r.row is not None and r.run.row == baseline for r in records):
            lines.append(f"The baseline {baseline} has no finished run.")
    lines += [
        f"† {row} was tested with other settings ({own}) than the baseline ({base}): the"
        " difference is not the method's alone." for row, (own, base) in others.items()
    ]  # fmt: skip
    for row, by_entry in found.items():
        unmatched = {pair for difference in by_entry.values() for pair in difference.unmatched}
        if unmatched:
            named = ", ".join(f"{fold} seed {seed}" for fold, seed in sorted(unmatched))
            lines.append(f"Without a pair, and left out of Δ: {row}: {named}.")
    for title, reasons in (
        ("STALE, left out of every mean:", [(r.run.name, r.stale) for r in records if r.stale]),
        ("Failed:", [(r.run.folder, r.error) for r in records if r.error]),
    ):
        if reasons:
            lines += ["", title, "", *(f"- {name}: {reason}" for name, reason in reasons)]
    return lines
