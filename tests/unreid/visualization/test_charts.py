"""Charts: round ticks that enclose the data, few points for long runs, words escaped."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.visualization.charts import bar_chart, heat_map, line_chart, number, scatter, ticks

values = st.floats(-1e6, 1e6, allow_nan=False)


@given(values, values, st.integers(2, 8))
def test_ticks__enclose_the_data_in_even_steps(low: float, high: float, count: int) -> None:
    low, high = min(low, high), max(low, high)
    found = ticks(low, high, count)
    slack = 1e-6 * (max(abs(low), abs(high)) + 1e-9)
    assert found[0] <= low + slack and found[-1] >= high - slack
    assert 2 <= len(found) <= count + 2
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.123456789, "0.123457"), (-2.5, "-2.5"), (12345678.0, "12345678"), (0.0, "0")],
)
def test_number__keeps_six_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_long_lines__are_thinned_and_say_so() -> None:
    points = [(float(i), math.sin(i)) for i in range(5000)]
    chart = line_chart("t", {"loss": points}, "iteration")
    assert chart is not None and "Drawn and listed" in chart.note
    assert len(chart.rows) <= 1001
    assert chart.rows[0][0] == "0" and chart.rows[-1][0] == "4999"


def test_nothing_to_draw__is_no_chart() -> None:
    assert line_chart("t", {}, "x") is None
    assert line_chart("t", {"a": []}, "x") is None
    assert line_chart("t", {"a": [(0.0, math.nan)]}, "x") is None


def test_one_point__is_drawn_inside_the_frame() -> None:
    chart = line_chart("t", {"a": [(3.0, 7.0)]}, "x")
    assert chart is not None
    drawn = re.search(r'd="M([\d.]+) ([\d.]+)"/>', chart.svg.split("line s0")[1])
    assert drawn is not None
    x, y = float(drawn[1]), float(drawn[2])
    assert 44 <= x <= 350 and 10 <= y <= 186


def test_epochs__are_ticked_at_whole_numbers() -> None:
    chart = line_chart("t", {"a": [(float(i), 1.0 + i) for i in range(11)]}, "epoch")
    assert chart is not None
    labels = [float(t) for t in re.findall(r'y="202"[^>]*>([^<]+)<', chart.svg)]
    assert labels == [0, 5, 10]


def test_words__are_escaped_everywhere() -> None:
    bad = '<script>"&'
    chart = line_chart(bad, {bad: [(0.0, 1.0)]}, bad, unit=bad)
    assert chart is not None
    points = np.zeros((2, 2))
    drawings = [chart, bar_chart(bad, {bad: 1.0}, unit=bad), heat_map(bad, np.eye(1), [bad]),
                scatter(bad, points, np.array([0, 1]), {0: bad, 1: "b"})]
    for drawing in drawings:
        assert "<script" not in drawing.svg


def test_heat_map__has_the_shares(rng: np.random.Generator) -> None:
    shares = rng.random((3, 3))
    found = re.findall(r'data-share="([\d.]+)"', heat_map("t", shares, ["a", "b", "c"]).svg)
    np.testing.assert_allclose(np.array(found, float).reshape(3, 3), shares, atol=1e-6)


def test_many_cameras__are_drawn_without_numbers_in_the_cells() -> None:
    svg = heat_map("t", np.eye(40), [str(i) for i in range(40)]).svg
    assert svg.count("data-share") == 1600 and 'class="cell' not in svg


def test_scatter__draws_every_point_once() -> None:
    groups = np.array([-1, 0, 0, 1, 1, 1])
    chart = scatter("t", np.linspace(-1, 1, 12).reshape(6, 2), groups, {})
    assert chart.svg.count("h0") == 6 and 'class="dot none"' in chart.svg


def test_bars_of_nothing__are_zeros() -> None:
    chart = bar_chart("t", {"a": 0.0, "b": 0.0})
    assert chart.svg.count('width="0.0"') == 2 and ">0</text>" in chart.svg
