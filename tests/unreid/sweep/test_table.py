"""The table: paired differences, and notes about everything that is excluded."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import ttest_rel

from unreid.sweep.folds import Fold
from unreid.sweep.grid import Run
from unreid.sweep.table import Record, find_baseline, markdown

BASE, ROW = "CALR/small/baseline", "CALR/small/plus"
SCORES = {BASE: (20.0, 22.0, 25.0, 21.0), ROW: (21.0, 24.0, 26.0, 24.0)}


def record(label: str, fold: int, seed: int = 0, score: float | None = None, **more: Any) -> Record:
    run = Run("a.yml", label, (), seed, (), f"out/{label}-{fold}", "h", 1, Fold(f"fold{fold}", "r"),
              seed, "s", "CALR")  # fmt: skip
    if score is None:
        return Record(run, None, more.get("error", ""), more.get("stale", ""))
    test = more.get("test", [])
    scores = {"configured": {"mAP": score}, "plain": {"mAP": score - 5}}
    return Record(run, {"scores": scores, "labels": {"ari": score / 100}, "minutes": 2.0,
                        "test": test})  # fmt: skip


def records(**of_row: Any) -> list[Record]:
    return [record(label, fold, score=score, **(of_row if label == ROW else {}))
            for label, scores in SCORES.items() for fold, score in enumerate(scores)]  # fmt: skip


def test_table__has_the_paired_difference_and_its_interval() -> None:
    table = markdown(records(), BASE)
    low, high = ttest_rel(SCORES[ROW], SCORES[BASE]).confidence_interval(0.95)
    head, _, base, row = table.splitlines()[:4]
    assert head == "| row | folds | seeds | mAP | ARI | min | Δ mAP | Δ ARI |"
    assert base.endswith("| baseline | baseline |") and base.startswith(f"| {BASE} | 4 | 1 | 22.0 ")
    assert f"| +1.8 [{low:+.1f}, {high:+.1f}] |" in row
    assert "Mean ± sample standard deviation over folds and seeds." in table
    assert "95 % t interval over folds" in table and "†" not in table


def test_one_fold__has_a_difference_without_interval() -> None:
    table = markdown([record(BASE, 0, score=20.0), record(ROW, 0, score=21.5)], BASE)
    assert "| +1.5 | +0.015 |" in table and "[" not in table
    assert "an interval needs two folds at least" in table


def test_other_test_settings_than_the_baseline__are_named_in_the_table() -> None:
    table = markdown(records(test=["TEST.CENTER_CAMERAS", "TEST.FLIP"]), BASE)
    assert f"† {ROW} was tested with other settings (TEST.CENTER_CAMERAS, TEST.FLIP)" in table
    row = table.splitlines()[3]
    assert row.count("†") == 1  # label metrics do not depend on test settings
    equal = markdown(records(test=["TEST.CENTER_CAMERAS", "TEST.FLIP"]), BASE, "plain")
    assert "†" not in equal and "Test settings: plain (none)." in equal and "| 17.0 " in equal


def test_unmatched_pairs__are_named_and_excluded() -> None:
    table = markdown([*records(), record(ROW, 5, seed=1, score=90.0)], BASE)
    assert f"Without a pair, and left out of Δ: {ROW}: fold5 seed 1." in table
    assert "| +1.8 [" in table


def test_stale_row__is_named_and_excluded_from_means() -> None:
    given = [*records()[:-1], record(ROW, 3, stale="the code has changed", error="not trained")]
    table = markdown(given, BASE)
    assert "STALE, left out of every mean:" in table
    assert f"- {ROW}, fold3, seed 0: the code has changed" in table
    assert table.splitlines()[3].startswith(f"| {ROW} | 3 | 1 | 23.7 ")
    assert f"{ROW}: fold3 seed 0." in table


def test_baseline_without_a_run__is_named() -> None:
    given = [record(BASE, 0, error="exit code 1"), record(ROW, 0, score=21.0)]
    assert f"The baseline {BASE} has no finished run." in markdown(given, BASE)


def test_baseline__is_found_by_the_last_part_of_its_name() -> None:
    rows = [BASE, ROW, "SphereCluster/small/plus"]
    assert find_baseline(rows, "small/baseline") == find_baseline(rows, BASE) == BASE
    with pytest.raises(KeyError, match="--baseline hct is no row of this sweep, which has: CALR"):
        find_baseline(rows, "hct")
    with pytest.raises(KeyError, match="--baseline small/plus means several rows: CALR/small/plus"):
        find_baseline(rows, "small/plus")
