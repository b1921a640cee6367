"""Every check lets the right value through and words its refusal as the rest does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from unreid.checks import (
    UNIT_TOLERANCE,
    check_choice,
    check_features,
    check_integer,
    check_number,
    check_targets,
    nearest,
)


@pytest.mark.parametrize("value", [2, 7, np.int64(5), np.uint8(3)])
def test_integer__in_range_comes_back_as_int(value: object) -> None:
    found = check_integer("K", value, 2, 7)
    assert type(found) is int and found == value


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (0, (2,), "CALR.KNN.K must be an integer >= 2, got 0"),
        (9, (None, 7), "CALR.KNN.K must be an integer <= 7, got 9"),
        (9, (2, 7), "CALR.KNN.K must be an integer >= 2 and <= 7, got 9"),
        (True, (0,), "CALR.KNN.K must be an integer >= 0, got True"),
        (2.0, (), "CALR.KNN.K must be an integer, got 2.0"),
        ("2", (), "CALR.KNN.K must be an integer, got '2'"),
        (None, (), "CALR.KNN.K must be an integer, got None"),
    ],
)
def test_integer__out_of_range_or_of_another_kind_is_refused(
    value: object, limits: tuple[int | None, ...], words: str
) -> None:
    with pytest.raises(ValueError) as error:
        check_integer("CALR.KNN.K", value, *limits)
    assert str(error.value) == words


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25), Fraction(1, 2)])
def test_number__in_range_comes_back_as_float(value: object) -> None:
    found = check_number("EPS", value, 0, 1)
    assert type(found) is float and found == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "EPS must be a number > 0 and <= 1, got 0"),
        (1.5, "EPS must be a number > 0 and <= 1, got 1.5"),
        (float("nan"), "EPS must be a number > 0 and <= 1, got nan"),
        (float("inf"), "EPS must be a number > 0 and <= 1, got inf"),
        (True, "EPS must be a number > 0 and <= 1, got True"),
        ("0.5", "EPS must be a number > 0 and <= 1, got '0.5'"),
    ],
)
def test_number__outside_an_open_range_is_refused(value: object, words: str) -> None:
    with pytest.raises(ValueError) as error:
        check_number("EPS", value, 0, 1, open_minimum=True)
    assert str(error.value) == words


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_number__without_range_must_still_be_finite(bad: float) -> None:
    assert check_number("X", -1e300) == -1e300
    with pytest.raises(ValueError, match="X must be a number, got"):
        check_number("X", bad)


def test_nearest__finds_a_slip_of_any_case_and_nothing_far() -> None:
    known = ["infomap", "dbscan", "Agglomerative"]
    assert nearest("dbscna", known) == "; did you mean 'dbscan'?"
    assert nearest("AGLOMERATIVE", known) == "; did you mean 'Agglomerative'?"
    assert nearest("kmeans", known) == ""
    assert nearest("anything", []) == ""


def test_choice__comes_back_or_lists_all_and_the_nearest() -> None:
    assert check_choice("CLUSTER", "dbscan", ("infomap", "dbscan")) == "dbscan"
    with pytest.raises(ValueError) as error:
        check_choice("CLUSTER", "dbscn", ("infomap", "dbscan"))
    assert str(error.value) == (
        "CLUSTER must be one of 'infomap', 'dbscan', got 'dbscn'; did you mean 'dbscan'?"
    )


@pytest.mark.parametrize("value", [1, True, "None", 0.0])
def test_choice__does_not_take_a_value_of_another_kind_for_equal(value: object) -> None:
    choices = (False, "1", None, 0)
    with pytest.raises(ValueError, match="must be one of"):
        check_choice("X", value, choices)
    assert [check_choice("X", c, choices) for c in choices] == list(choices)


def unit_rows(dtype: str = "float32") -> np.ndarray:
    return np.eye(4, 6, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_features__of_any_float_pass_as_array_and_tensor_and_are_not_changed(dtype: str) -> None:
    features = unit_rows(dtype)
    before = features.copy()
    check_features("f", features)
    check_features("f", torch.from_numpy(features))
    assert np.array_equal(features, before)


def test_features__in_bfloat16_pass_though_rounded() -> None:
    features = torch.nn.functional.normalize(torch.ones(3, 3), dim=1).bfloat16()
    check_features("f", features, unit=False)
    check_features("f", torch.eye(3, dtype=torch.bfloat16))


def test_features__that_want_a_gradient_or_are_a_strided_view_pass() -> None:
    check_features("f", torch.eye(3, requires_grad=True))
    check_features("f", np.asfortranarray(unit_rows())[::2])
    check_features("f", unit_rows().T[:4].T @ np.eye(4, dtype="float32"))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features__that_are_not_finite_name_the_first_row(bad: float, as_tensor: bool) -> None:
    features = unit_rows()
    features[2, 1] = features[3, 1] = bad
    given = torch.from_numpy(features) if as_tensor else features
    for unit in (True, False):
        with pytest.raises(ValueError, match="f must be finite, but row 2 holds NaN or infinity"):
            check_features("f", given, unit=unit)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_features__that_are_not_unit_name_row_length_and_count(as_tensor: bool) -> None:
    features = unit_rows()
    features[1:3] *= 2
    given = torch.from_numpy(features) if as_tensor else features
    with pytest.raises(ValueError, match=r"row 1 has length 2 \(2 of 4 rows are off\)"):
        check_features("f", given)
    check_features("f", given, unit=False)


def test_features__are_unit_up_to_the_tolerance() -> None:
    check_features("f", unit_rows() * np.float32(1 + 0.9 * UNIT_TOLERANCE))
    with pytest.raises(ValueError, match="unit rows"):
        check_features("f", unit_rows() * np.float32(1 + 1.1 * UNIT_TOLERANCE))


def test_features__of_a_zero_row_are_refused_as_not_unit() -> None:
    features = unit_rows()
    features[3] = 0
    with pytest.raises(ValueError, match="row 3 has length 0"):
        check_features("f", features)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (0, 3), (3, 0)])
def test_features__of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    for features in (np.zeros(shape, "float32"), torch.zeros(shape)):
        with pytest.raises(ValueError, match=r"f must have shape \(N, D\) with N, D >= 1, got"):
            check_features("f", features)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([[1.0, 0.0]], "must be an array or tensor (N, D), got list"),
        (np.eye(2, dtype=int), "must be floating point, got int64"),
        (torch.eye(2, dtype=torch.int32), "must be floating point, got torch.int32"),
        (np.eye(2, dtype=complex), "must be floating point, got complex128"),
    ],
)
def test_features__of_another_kind_are_refused(features: object, words: str) -> None:
    with pytest.raises(TypeError) as error:
        check_features("f", features)
    assert words in str(error.value)


def test_targets__in_range_pass_whatever_the_integer_type() -> None:
    check_targets("targets", torch.tensor([0, 4]), 5)
    check_targets("targets", np.array([0, 4], dtype=np.int32), 5)
    check_targets("targets", torch.zeros(0, dtype=torch.long), 0)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_targets__out_of_range_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"^targets must be in 0\.\.4, got 5$"):
        check_targets("targets", kind([0, 5]), 5)
    with pytest.raises(ValueError, match=r"^targets must be in 0\.\.4, got -1$"):
        check_targets("targets", kind([-1, 5]), 5)
    with pytest.raises(TypeError, match="targets must be integers"):
        check_targets("targets", kind([0.0]), 5)


def test_number__too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be a number >= 0, got 1000"):
        check_number("x", 10**400, 0)
