"""Shares of the kNN search and the Jaccard distance: together they are what one process finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unreid.graph.jaccard import encode, jaccard_distance
from unreid.graph.knn import knn
from unreid.graph.shares import (
    jaccard_share,
    join_jaccard,
    join_knn,
    knn_share,
    strips,
)


def unit_rows(rng: np.random.Generator, num: int, channels: int = 16) -> np.ndarray:
    rows = rng.standard_normal((num, channels)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_duplicates(rng: np.random.Generator, num: int) -> np.ndarray:
    """Return rows with exact duplicates, because results may differ only at ties."""
    return unit_rows(rng, num)[np.sort(rng.integers(0, num, num))]


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 60), k=st.integers(1, 12),
       parts=st.integers(1, 5), block=st.sampled_from([8, 30]))
@settings(max_examples=15)
def test_shares_of_the_search__make_the_neighbours_of_one_process(
    seed: int, num: int, k: int, parts: int, block: int
) -> None:
    features = with_duplicates(np.random.default_rng(seed), num)
    k = min(k, num)
    shares = [knn_share(features, k, part, parts, block_size=block) for part in range(parts)]
    expected = knn(features, k)
    for found, right in zip(join_knn(features, k, shares[::-1]), expected):
        assert found.dtype == right.dtype
        np.testing.assert_array_equal(found, right)


def test_shares_by_rows__as_a_gpu_makes_them_or_a_machine_without_a_compiler(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = with_duplicates(rng, 50)
    expected = knn(features, 7)
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    shares = [knn_share(features, 7, part, 3, block_size=8) for part in range(3)]
    assert [len(share[0]) for share in shares] == [17, 17, 16]
    for found, right in zip(join_knn(features, 7, shares), expected):
        np.testing.assert_array_equal(found, right)


def test_row_that_a_share_cannot_vouch_for__is_searched_anew(rng: np.random.Generator) -> None:
    features = unit_rows(rng, 40)
    shares = [list(knn_share(features, 5, part, 2)) for part in range(2)]
    shares[1][3] = np.array([3, 17])
    shares[1][2][[3, 17]] = 9.0  # wrong, and said to be
    found = join_knn(features, 5, shares)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[0], knn(features, 5)[0])


@given(num=st.integers(1, 400), parts=st.integers(1, 9))
def test_strips__cover_every_row_once_and_are_equal_work(num: int, parts: int) -> None:
    every = [strips(num, part, parts) for part in range(parts)]
    rows = sorted(r for two in every for start, end in two for r in range(start, end))
    assert rows == list(range(num))
    work = [sum(num - r for start, end in two for r in range(start, end)) for two in every]
    assert max(work) - min(work) <= 3 * num


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(2, 80), parts=st.integers(1, 5),
       k2=st.integers(1, 4), limit=st.sampled_from([1.0, 0.6]))
@settings(max_examples=15)
def test_shares_of_the_distance__make_the_matrix_of_one_process(
    seed: int, num: int, parts: int, k2: int, limit: float
) -> None:
    features = with_duplicates(np.random.default_rng(seed), num)
    k1 = min(6, num)
    neighbours = knn(features, k1)
    expected = jaccard_distance(features, 6, k2, neighbours=neighbours, max_distance=limit)
    encoded = encode(features, np.ascontiguousarray(neighbours[0]), 6, k2)
    shares = [jaccard_share(encoded, limit, part, parts) for part in range(parts)]
    found = join_jaccard(num, shares)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.data, expected.data)


def test_inputs__are_left_alone(rng: np.random.Generator) -> None:
    features = unit_rows(rng, 30)
    features.setflags(write=False)
    neighbours = knn(features, 6)
    encoded = encode(features, neighbours[0], 6, 2)
    for array in encoded:
        array.setflags(write=False)
    jaccard_share(encoded, 1.0, 1, 2)
    join_knn(features, 6, [knn_share(features, 6, 0, 1)])
    assert torch.get_num_threads() >= 1
