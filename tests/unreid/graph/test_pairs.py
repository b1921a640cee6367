"""Mutual pairs above a threshold, and the threshold of an expected number, against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unreid.graph import oracle
from unreid.graph import knn, pairs
from unreid.graph.pairs import expected_threshold, mutual_pairs


def slow_pairs(
    features: np.ndarray, k: int, beta: float, cross: float, camids: np.ndarray
) -> dict[tuple[int, int], float]:
    """Return pair -> confidence from the dense matrix and sorted neighbour lists."""
    indices, _ = oracle.neighbours(features, k + 1)
    nearest = [set(row[1:].tolist()) for row in indices]
    product = np.clip(features.astype(np.float64) @ features.T.astype(np.float64), 0, 1)
    found = {}
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            limit = beta if camids[i] == camids[j] else cross
            if j in nearest[i] and i in nearest[j] and product[i, j] > limit:
                found[i, j] = abs(product[i, j] - limit)
    return found


def dense_quantile(features: np.ndarray, expected: float, chosen: np.ndarray) -> float:
    """Return the value that round(expected N / 2) of the chosen pairs exceed, by np.quantile."""
    product = features.astype(np.float64) @ features.T.astype(np.float64)
    upper = np.triu(np.ones_like(product, dtype=bool), 1) & chosen
    values = np.clip(product[upper], 0, 1)
    wanted = max(1, round(expected * len(features) / 2))
    if wanted >= len(values):
        return 0.0
    level = 1 - wanted / (len(values) - 1)
    return float(np.quantile(values, max(0.0, level), method="nearest"))


@given(
    num=st.integers(1, 50),
    k=st.integers(1, 12),
    beta=st.sampled_from([0.0, 0.3, 0.6, 0.95]),
    cross=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    cameras=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_pairs__equal_the_dense_double_loop(
    num: int, k: int, beta: float, cross: float, cameras: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features, camids = oracle.unit(rng, num, 6), rng.integers(0, cameras, num)
    wanted = slow_pairs(features, k, beta, cross, camids)
    indices, confidence = mutual_pairs(
        knn(features, k + 3), k, beta, camids=camids, beta_cross=cross
    )
    assert indices.dtype == np.int64 and confidence.dtype == np.float32
    assert [tuple(pair) for pair in indices.tolist()] == sorted(wanted)
    np.testing.assert_allclose(confidence, [wanted[p] for p in sorted(wanted)], atol=1e-6)


@given(
    num=st.integers(2, 60),
    neighbours=st.integers(1, 30),
    expected=st.floats(0.1, 20),
    kind=st.sampled_from(["all", "same", "cross"]),
    seed=st.integers(0, 99),
)
def test_threshold__equals_the_dense_quantile_however_short_the_lists(
    num: int, neighbours: int, expected: float, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features, camids = oracle.unit(rng, num, 5), rng.integers(0, 3, num)
    alike = camids[:, None] == camids
    chosen = {"all": np.ones_like(alike), "same": alike, "cross": ~alike}[kind]
    found = expected_threshold(
        features,
        knn(features, neighbours),
        expected,
        camids=None if kind == "all" else camids,
        cross=kind == "cross",
    )
    assert found.exact
    assert found.beta == pytest.approx(dense_quantile(features, expected, chosen), abs=2e-6)


def test_threshold__leaves_the_expected_number_above_it(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 700, 24)
    beta = expected_threshold(features, knn(features, 9), 5).beta
    product = features @ features.T
    np.fill_diagonal(product, -1)
    assert (product > beta + 1e-6).sum() / 700 == pytest.approx(5, abs=0.01)


def test_long_lists__need_no_completion_and_short_ones_do(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 300, 24)
    short = expected_threshold(features, knn(features, 4), 5)
    monkeypatch.setattr(pairs, "_similarities_within", None)
    whole = expected_threshold(features, knn(features, 200), 5)
    assert short.saturated > 1 >= whole.saturated
    assert short.beta == pytest.approx(whole.beta, abs=1e-6)


def test_block_size__changes_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 90, 12, copies=20)
    whole = expected_threshold(features, knn(features, 3), 4)
    monkeypatch.setattr(pairs, "BLOCK_SIZE", 7)
    assert expected_threshold(features, knn(features, 3), 4).beta == pytest.approx(
        whole.beta, abs=1e-6
    )


@pytest.mark.parametrize("cross", [None, False, True])
def test_too_many_saturated_rows__give_an_estimate_that_says_so(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, cross: bool | None
) -> None:
    features, camids = oracle.unit(rng, 900, 16), rng.integers(0, 2, 900)
    given = {} if cross is None else {"camids": camids, "cross": cross}
    exact = expected_threshold(features, knn(features, 400), 20, **given)
    monkeypatch.setattr(pairs, "COMPLETED_ROWS", 0)
    found = expected_threshold(features, knn(features, 3), 20, **given)
    assert exact.exact and not found.exact
    assert found.beta == pytest.approx(exact.beta, abs=0.03)


def test_an_estimate_from_all_rows__is_the_quantile(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 200, 8)
    wanted = expected_threshold(features, knn(features, 200), 6).beta
    monkeypatch.setattr(pairs, "COMPLETED_ROWS", 0)
    found = expected_threshold(features, knn(features, 2), 6)
    assert not found.exact and found.beta == pytest.approx(wanted, abs=1e-6)


def test_identical_images__have_threshold_one_and_no_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = np.tile(np.float32([0.6, 0.8]), (50, 1))
    neighbours = knn(features, 5)
    found = expected_threshold(features, neighbours, 3)
    assert found.exact and found.beta == pytest.approx(1, abs=1e-6)
    assert mutual_pairs(neighbours, 4, 1.0)[0].shape == (0, 2)
    monkeypatch.setattr(pairs, "COMPLETED_ROWS", 0)
    assert expected_threshold(features, neighbours, 3).beta == pytest.approx(1, abs=1e-6)


def test_identical_images__below_one_pair_by_their_order() -> None:
    neighbours = knn(np.tile(np.float32([0.6, 0.8]), (6, 1)), 3)
    indices, confidence = mutual_pairs(neighbours, 2, 0.25)
    # The neighbours of 0 are 1, 2; those of 1 are 0, 2; those of all others are 0, 1.
    assert indices.tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_allclose(confidence, 0.75, atol=1e-6)


def test_one_image__has_no_pair_and_no_threshold() -> None:
    features = np.float32([[0.6, 0.8]])
    indices, confidence = mutual_pairs(knn(features, 4), 3, 0.1)
    assert indices.shape == (0, 2) and confidence.shape == (0,)
    with pytest.raises(ValueError, match="at least 2 rows"):
        expected_threshold(features, knn(features, 4), 1)


def test_fewer_images_than_k__pair_all_above_beta(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 5, 4)
    product = features @ features.T
    indices, _ = mutual_pairs(knn(features, 30), 8, 0.1)
    assert len(indices) == np.triu(product > 0.1, 1).sum()
    assert expected_threshold(features, knn(features, 30), 9).beta == 0


def test_k_of_one__gives_each_image_one_partner_at_most(rng: np.random.Generator) -> None:
    indices, _ = mutual_pairs(knn(oracle.unit(rng, 80, 8), 2), 1, 0.0)
    assert len(indices) and np.bincount(indices.reshape(-1)).max() == 1


def test_no_pair_above_beta__is_an_empty_answer(rng: np.random.Generator) -> None:
    indices, confidence = mutual_pairs(knn(oracle.unit(rng, 30, 8), 5), 4, 1.0)
    assert indices.shape == (0, 2) and confidence.shape == (0,)


def test_one_camera__has_no_cross_pair_and_the_other_threshold_no_say(
    rng: np.random.Generator,
) -> None:
    features, camids = oracle.unit(rng, 40, 8), np.full(40, 3)
    neighbours = knn(features, 9)
    apart = mutual_pairs(neighbours, 4, 0.5, camids=camids, beta_cross=0.0)
    plain = mutual_pairs(neighbours, 4, 0.5)
    assert (apart[0] == plain[0]).all() and (apart[1] == plain[1]).all()
    found = expected_threshold(features, neighbours, 3, camids=camids, cross=True)
    assert found.exact and found.beta == 0


def test_opposite_images__have_similarity_zero_and_never_pair() -> None:
    neighbours = knn(np.float32([[1, 0], [-1, 0]]), 2)
    assert len(mutual_pairs(neighbours, 1, 0.0)[0]) == 0


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 60, 8)
    neighbours = knn(features, 6)
    before = [x.copy() for x in (features, *neighbours)]
    for array in (features, *neighbours):
        array.setflags(write=False)
    mutual_pairs(neighbours, 3, expected_threshold(features, neighbours, 2).beta)
    assert all((a == b).all() for a, b in zip(before, (features, *neighbours)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": 0}, "k must be an integer >= 1"),
        ({"k": 9}, "neighbours must list 9 other images per image, got 4"),
        ({"beta": 1.5}, "beta must be a number >= 0.0 and <= 1.0"),
        ({"beta_cross": 0.5}, "beta_cross requires camids"),
        ({"beta_cross": -1, "camids": np.zeros(30)}, "beta_cross must be a number"),
        ({"beta_cross": 0.5, "camids": np.zeros(7)}, r"camids must have shape \(30,\)"),
    ],
)
def test_bad_settings_are_refused(rng: np.random.Generator, given: dict, words: str) -> None:
    neighbours = knn(oracle.unit(rng, 30, 8), 5)
    with pytest.raises(ValueError, match=words):
        mutual_pairs(neighbours, **{"k": 4, "beta": 0.5, **given})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: (n[0], n[1][:, :3]), "of equal shape"),
        (lambda n: (n[0][:, ::-1], n[1]), "itself first in each row"),
        (lambda n: (n[0][:7], n[1][:7]), "indices in 0..6|must have 30 rows"),
    ],
)
def test_bad_neighbours_are_refused(rng: np.random.Generator, change, words: str) -> None:
    features = oracle.unit(rng, 30, 8)
    with pytest.raises(ValueError, match=words):
        expected_threshold(features, change(knn(features, 5)), 3)


def test_expected_of_zero_is_refused(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 30, 8)
    with pytest.raises(ValueError, match="expected must be a number > 0"):
        expected_threshold(features, knn(features, 5), 0)
