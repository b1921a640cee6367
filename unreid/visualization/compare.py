"""Comparison page of several runs: scores, differing settings, common charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unreid
from unreid.engine.atomic import replace_file
from unreid.visualization.curves import overlaid
from unreid.visualization.history import Run, read_run
from unreid.visualization.render import render

#: Default file name of the page.
COMPARISON = "compare.html"
#: Placeholder of an unknown value.
ABSENT = "-"
#: Settings that differ between all runs and are not compared.
_IGNORED_SETTINGS = ("OUTPUT_DIR",)
#: (row, key in ``labels`` of the results, larger is better).
_LABELS = (
    ("Clusters", "clusters"),
    ("Noise", "noise"),
    ("Precision", "precision"),
    ("Recall", "recall"),
    ("F-score", "f_score"),
    ("ARI", "ari"),
    ("Purity", "purity"),
)


def write_comparison(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Write the comparison page of the runs in ``folders``, in the given order.

    Args:
        folders: ``OUTPUT_DIR`` of each run, at least two.
        output: HTML file to write.

    Returns:
        Path of the page.

    Raises:
        ValueError: There are fewer than two folders.
        FileNotFoundError: See :func:`unreid.visualization.history.read_run`.
        OSError: The page cannot be written.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs at least 2 runs, got {len(folders)}")
    runs = [read_run(folder) for folder in folders]
    names = names_of(runs)
    text = render(
        "compare.html.jinja",
        names=names,
        rows=_rows(runs),
        different=differences(runs),
        curves=overlaid(list(zip(names, runs))),
        runs=runs,
        version=unreid.__version__,
    )
    with replace_file(str(output)) as file:
        file.write(text.encode())
    return Path(output)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return the shortest path suffixes that distinguish the runs; duplicates are numbered."""
    parts = [run.folder.resolve().parts for run in runs]
    names = [run.name for run in runs]
    for depth in range(2, max(len(p) for p in parts) + 1):
        if len(set(names)) == len(set(parts)):
            break
        names = ["/".join(p[-depth:]) for p in parts]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the rows of the table: name, one text per run, and the best values."""
    rows = []
    for test_set in dict.fromkeys(s for run in runs for s in run.scores):
        for score in ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP"):
            values = [_final(run, test_set, score) for run in runs]
            if any(v is not None for v in values):
                rows.append(_row(f"{score}, {test_set}", values, "{:.2f}", best=True))
    for name, key in _LABELS:
        values = [(run.results.get("labels") or {}).get(key) for run in runs]
        if any(v is not None for v in values):
            whole = key in ("clusters", "noise")
            rows.append(_row(name, values, "{:.0f}" if whole else "{:.3f}", best=not whole))
    seconds: list[float | None] = [
        sum(run.results.get("seconds", {}).values()) or None for run in runs
    ]
    rows.append(_row("Seconds", seconds, "{:.0f}"))
    rows.append(_row("Epochs", [float(len(run.epochs)) for run in runs], "{:.0f}"))
    return rows


def _final(run: Run, test_set: str, score: str) -> float | None:
    values = run.scores.get(test_set, [])
    trained = [v[score] for epochs, v in values if epochs and score in v]
    return trained[-1] if trained else None


def _row(
    name: str, values: Sequence[float | None], form: str, *, best: bool = False
) -> dict[str, Any]:
    known = [v for v in values if v is not None]
    top = max(known) if best and len(known) > 1 else None
    return {
        "name": name,
        "cells": [
            (ABSENT if v is None else form.format(v), v is not None and v == top) for v in values
        ],
    }


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each run) of the settings that are not equal in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    found = []
    for key in keys:
        values = [str(run.settings.get(key, ABSENT)) for run in runs]
        if len(set(values)) > 1 and key not in _IGNORED_SETTINGS:
            found.append((key, values))
    hashes = [str(run.results.get("config_hash", ABSENT)) for run in runs]
    return [*found, ("config hash", hashes)] if found else found
