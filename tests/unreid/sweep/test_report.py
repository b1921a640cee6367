"""The files of a report: CSV with unrounded numbers, and a plot for each test setting."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from tests.unreid.sweep.test_table import BASE, ROW, SCORES, records
from unreid.sweep.report import write_report


def test_csv__has_unrounded_differences_for_every_test_setting(tmp_path: Path) -> None:
    table, _ = write_report(records(), [], str(tmp_path), BASE, ["plain"])
    assert table.count(f"Δ: paired difference to {BASE}") == 2
    with open(tmp_path / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["test"], line["row"]) for line in lines] == [
        ("configured", BASE), ("configured", ROW), ("plain", BASE), ("plain", ROW)
    ]  # fmt: skip
    expected = ttest_rel(SCORES[ROW], SCORES[BASE]).confidence_interval(0.95)
    for line in lines[1::2]:
        found = [float(line[f"after.mAP {end}"]) for end in ("low", "high")]
        assert found == pytest.approx([expected.low, expected.high])
        assert line["folds"] == line["after.mAP pairs"] == "4"
    assert lines[0]["after.mAP difference"] == ""


def test_plot__is_drawn_for_every_test_setting(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, no_plot = write_report(records(), [], str(tmp_path), BASE, ["plain"])
    assert no_plot is None
    one, other = ((tmp_path / name).read_bytes() for name in ("plot.svg", "plot_plain.svg"))
    assert b"<svg" in one and b"<svg" in other and one != other
    write_report(records(), [], str(tmp_path))
    assert (tmp_path / "plot.svg").read_bytes() != one  # without a baseline there is one panel less
