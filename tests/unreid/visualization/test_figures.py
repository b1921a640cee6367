"""Tests of figures: chart data equal the table and are valid JSON."""

from __future__ import annotations

import hashlib
import json
import math
import re

import numpy as np
import pytest

from tests.projects.overrides import ROOT
from unreid.visualization.figures import (
    bar_figure,
    heat_figure,
    line_figure,
    number,
    scatter_figure,
)
from unreid.visualization.render import VENDORED

VENDOR = ROOT / "unreid" / "visualization" / "vendor"


def test_vendored_files__are_those_that_are_documented() -> None:
    text = (VENDOR / "README.md").read_text()
    listed = re.findall(r"^\| `([\w.-]+\.js)` \| .* \| MIT \| `([0-9a-f]{64})` \|$", text, re.M)
    assert sorted(name for name, _ in listed) == sorted(VENDORED)
    assert sorted(p.name for p in VENDOR.glob("*.js")) == sorted(VENDORED)
    for name, digest in listed:
        content = (VENDOR / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
        assert len(content) < 400_000 and b"</script" not in content
        version = re.search(rf"{re.escape(name)}.*\) (\d+\.\d+\.\d+) \| MIT", text)
        assert version and f"v{version[1]}".encode() in content[:300], name
        license_file = VENDOR / f"{name.partition('.')[0]}.LICENSE.md"
        assert "Permission is hereby granted, free of charge" in license_file.read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.123456789, "0.123457"), (-2.5, "-2.5"), (12345678.0, "12345678"), (0.0, "0")],
)
def test_number__keeps_six_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_long_lines__are_thinned_and_say_so() -> None:
    points = [(float(i), math.sin(i)) for i in range(5000)]
    figure = line_figure("t", {"loss": points}, "iteration")
    assert figure is not None and "about 1000 points" in figure.note
    drawn = figure.spec["lines"][0]["points"]
    assert len(figure.rows) == len(drawn) <= 1001
    assert drawn[0] == [0, 0] and drawn[-1] == list(points[-1])
    assert figure.rows[0][0] == "0" and figure.rows[-1][0] == "4999"


def test_nothing_to_draw__is_no_figure() -> None:
    assert line_figure("t", {}, "x") is None
    assert line_figure("t", {"a": []}, "x") is None
    assert line_figure("t", {"a": [(0.0, math.nan)]}, "x") is None


def test_value_that_is_not_finite__is_a_gap() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]
    figure = line_figure("t", {"a": points}, "x")
    assert figure is not None
    assert json.loads(figure.json)["lines"][0]["points"] == [[0, 1], [1, None], [2, None], [3, 2]]
    assert figure.rows == [["0", "1"], ["1", ""], ["2", ""], ["3", "2"]]


def test_lines_of_other_places__share_a_table() -> None:
    figure = line_figure("t", {"a": [(0.0, 1.0)], "b": [(1.0, 2.0)]}, "epoch")
    assert figure is not None and figure.header == ["epoch", "a", "b"]
    assert figure.rows == [["0", "1", ""], ["1", "", "2"]]


def test_heat_figure__has_the_shares(rng: np.random.Generator) -> None:
    shares = rng.random((3, 3))
    figure = heat_figure("t", shares, ["a", "b", "c"])
    np.testing.assert_allclose(json.loads(figure.json)["values"], shares, atol=1e-6)
    table = np.array([row[1:] for row in figure.rows], float)
    np.testing.assert_allclose(table, 100 * shares, atol=0.051)
    assert figure.header[1:] == [row[0] for row in figure.rows] == ["a", "b", "c"]


def test_scatter_figure__has_every_point_once_with_its_group(rng: np.random.Generator) -> None:
    groups, points = np.array([1, -1, 0, 1, 0, 1]), rng.uniform(-1, 1, (6, 2))
    figure = scatter_figure("t", points, groups, {})
    spec = json.loads(figure.json)
    found = sorted((g, *p) for g, p in zip(spec["groups"], spec["points"]))
    wanted = sorted((g, *p.round(4)) for g, p in zip(groups.tolist(), points))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert spec["groups"] == sorted(groups.tolist()), "noise lies below the others"
    assert figure.rows == [["noise", "1"], ["cluster 0", "2"], ["cluster 1", "3"]]


def test_many_clusters__are_listed_in_part() -> None:
    figure = scatter_figure("t", np.zeros((60, 2)), np.arange(60), {})
    assert len(figure.rows) == 41 and figure.rows[-1] == ["20 more", ""]


def test_bars__keep_their_order_and_their_zeros() -> None:
    figure = bar_figure("t", {"b": 0.0, "a": 2.5}, unit=" s")
    assert (figure.spec["names"], figure.spec["values"]) == (["b", "a"], [0.0, 2.5])
    assert figure.rows == [["b", "0"], ["a", "2.5"]]
