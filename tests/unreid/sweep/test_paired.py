"""Paired differences compared with the paired t-test of scipy and with manual results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from unreid.sweep.paired import paired_difference


def test_interval__equals_that_of_the_paired_t_test(rng: np.random.Generator) -> None:
    base, row = rng.normal(20, 3, 5), rng.normal(21, 3, 5)
    folds = [f"fold{i}" for i in range(5)]
    found = paired_difference(
        {(f, 0): v for f, v in zip(folds, row)}, {(f, 0): v for f, v in zip(folds, base)}
    )
    expected = ttest_rel(row, base).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert found.mean == pytest.approx(np.mean(row - base))


def test_seeds__are_averaged_before_the_interval_over_folds(rng: np.random.Generator) -> None:
    keys = [(f"fold{f}", s) for f in range(4) for s in range(3)]
    base, row = rng.normal(20, 3, (4, 3)), rng.normal(21, 3, (4, 3))
    found = paired_difference(dict(zip(keys, row.ravel())), dict(zip(keys, base.ravel())))
    expected = ttest_rel(row.mean(1), base.mean(1)).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert (found.folds, found.pairs) == (4, 12)
    wrong = ttest_rel(row.ravel(), base.ravel()).confidence_interval(0.95)
    assert found.interval != pytest.approx((wrong.low, wrong.high), abs=1e-3)


def test_two_folds__equal_the_manual_result() -> None:
    """Differences 1 and 3: mean 2, standard error 1, and t(0.975, 1) is 12.706."""
    found = paired_difference({("a", 0): 11.0, ("b", 0): 13.0}, {("a", 0): 10.0, ("b", 0): 10.0})
    assert found.mean == 2.0 and found.half_width == pytest.approx(12.706, abs=1e-3)


def test_one_fold__has_no_interval_for_any_number_of_seeds() -> None:
    found = paired_difference(
        {("a", s): 11.0 + s for s in range(3)}, {("a", s): 10.0 for s in range(3)}
    )
    assert found.mean == 2.0 and found.interval is None and found.folds == 1


def test_unmatched_pairs__are_named_and_excluded() -> None:
    found = paired_difference(
        {("a", 0): 1.0, ("a", 1): 50.0, ("b", 0): 2.0},
        {("a", 0): 0.0, ("b", 0): 0.0, ("c", 0): 9.0},
    )
    assert found.mean == 1.5 and found.unmatched == (("a", 1), ("c", 0)) and found.pairs == 2


def test_rows_without_a_common_pair__give_nan() -> None:
    found = paired_difference({("a", 0): 1.0}, {("b", 0): 1.0})
    assert math.isnan(found.mean) and found.interval is None and found.pairs == 0
