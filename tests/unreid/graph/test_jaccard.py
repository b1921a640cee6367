"""The sparse Jaccard distance against the dense definition; kernels against their references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tests.unreid.graph import oracle
from unreid.graph import jaccard_distance, knn
from unreid.graph.jaccard import encode
from unreid.kernels import jaccard_reference, kernel

needs_kernel = pytest.mark.skipif(kernel("jaccard") is None, reason="the kernel is not built")


def dense(distance: sparse.csr_array) -> np.ndarray:
    """Return the dense matrix; entries that are not stored are 1."""
    full = np.ones(distance.shape, dtype=np.float32)
    rows = np.repeat(np.arange(distance.shape[0]), np.diff(distance.indptr))
    full[rows, distance.indices] = distance.data
    return full


@settings(max_examples=60)
@given(
    num=st.integers(1, 45),
    k1=st.integers(1, 50),
    k2=st.integers(1, 12),
    copies=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_equals_the_dense_definition(num: int, k1: int, k2: int, copies: int, seed: int) -> None:
    features = oracle.unit(np.random.default_rng(seed), num, 12, min(copies, num - 1))
    rank, _ = knn(features, k1)
    found = jaccard_distance(features, k1, k2)
    np.testing.assert_allclose(dense(found), oracle.jaccard(features, rank, k1, k2), atol=1e-5)
    check_form(found)


def check_form(distance: sparse.csr_array) -> None:
    """Assert float32, sorted indices, exact symmetry, explicit zero diagonal, no entry at 1."""
    assert isinstance(distance, sparse.csr_array) and distance.dtype == np.float32
    full = dense(distance)
    assert (full == full.T).all()
    rows = np.repeat(np.arange(distance.shape[0]), np.diff(distance.indptr))
    assert (np.diff(rows * distance.shape[0] + distance.indices) > 0).all()
    assert (distance.data[rows == distance.indices] == 0).all()
    assert (rows == distance.indices).sum() == distance.shape[0]
    assert distance.data.max() < 1 and distance.data.min() >= 0


def test_equals_the_dense_definition_at_the_usual_setting(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 250, 32, copies=10)
    found = jaccard_distance(features)
    wanted = oracle.jaccard(features, knn(features, 30)[0], 30, 6)
    np.testing.assert_allclose(dense(found), wanted, atol=1e-5)


def test_neighbours_at_hand_give_the_same(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 120, 16)
    wanted = jaccard_distance(features, 20, 4)
    for given_neighbours in (
        knn(features, 20),
        knn(features, 33),
        knn(torch.from_numpy(features), 20),
    ):
        found = jaccard_distance(features, 20, 4, neighbours=given_neighbours)
        assert (found != wanted).nnz == 0 and found.nnz == wanted.nnz
    found = jaccard_distance(torch.from_numpy(features), 20, 4)
    assert (found != wanted).nnz == 0


@pytest.mark.parametrize("limit", [0.0, 0.35, 0.6, 2.0])
def test_max_distance_keeps_what_lies_within(rng: np.random.Generator, limit: float) -> None:
    features = oracle.unit(rng, 150, 16, copies=3)
    full = dense(jaccard_distance(features, 15, 3))
    limited = jaccard_distance(features, 15, 3, max_distance=limit)
    kept = (full <= np.float32(limit)) & (full < 1)
    assert (dense(limited) == np.where(kept, full, 1)).all() and limited.nnz == kept.sum()


def test_identical_images_are_at_no_distance() -> None:
    distance = jaccard_distance(np.repeat(np.eye(1, 8, dtype=np.float32), 12, axis=0), 12, 3)
    np.testing.assert_allclose(dense(distance), 0, atol=1e-6)


def test_more_identical_images_than_neighbours() -> None:
    features = np.repeat(np.eye(1, 8, dtype=np.float32), 40, axis=0)
    rank, _ = knn(features, 10)
    found = jaccard_distance(features, 10, 3)
    np.testing.assert_allclose(dense(found), oracle.jaccard(features, rank, 10, 3), atol=1e-5)


def test_one_image_and_two() -> None:
    features = np.eye(2, dtype=np.float32)
    assert jaccard_distance(features[:1]).toarray().tolist() == [[0.0]]
    assert jaccard_distance(features).shape == (2, 2)


def test_isolated_images_stay_apart() -> None:
    distance = jaccard_distance(np.eye(9, dtype=np.float32), 1, 1)
    assert distance.nnz == 9 and (distance.data == 0).all()


def test_groups_far_apart_share_no_entry(rng: np.random.Generator) -> None:
    blocks = np.zeros((60, 20), dtype=np.float32)
    for group in range(2):
        blocks[30 * group : 30 * group + 30, 10 * group : 10 * group + 10] = np.abs(
            oracle.unit(rng, 30, 10)
        )
    distance = dense(jaccard_distance(blocks, 8, 3))
    assert (distance[:30, 30:] == 1).all() and (distance[:30, :30] < 1).sum() > 30


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    features, before = oracle.unit(rng, 400, 24, copies=20), torch.get_num_threads()
    wanted = jaccard_distance(features, 20, 5)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = jaccard_distance(features, 20, 5)
            assert (found.indptr == wanted.indptr).all()
            assert (found.indices == wanted.indices).all() and (found.data == wanted.data).all()
    finally:
        torch.set_num_threads(before)


def test_permuting_images_permutes_distances(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 130, 16)
    order = rng.permutation(130)
    found = dense(jaccard_distance(features[order], 12, 4))
    wanted = dense(jaccard_distance(features, 12, 4))[np.ix_(order, order)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@needs_kernel
@settings(max_examples=50)
@given(num=st.integers(1, 60), k1=st.integers(1, 25), k2=st.integers(1, 8), seed=st.integers(0, 99))
def test_kernels_equal_their_references_to_the_bit(num: int, k1: int, k2: int, seed: int) -> None:
    features = oracle.unit(np.random.default_rng(seed), num, 10, copies=num // 5)
    indices, _ = knn(features, k1)
    fast = kernel("jaccard")
    assert fast is not None
    half = int(np.around(k1 / 2)) + 1
    sets, slow_sets = fast.expand(indices, k1, half, 2), jaccard_reference.expand(indices, k1, half)
    assert all((a == b).all() for a, b in zip(sets, slow_sets))
    values = np.random.default_rng(seed).random(len(sets[1]), dtype=np.float32) + 0.01
    values /= np.repeat(np.add.reduceat(values, sets[0][:-1]), np.diff(sets[0]))
    some = np.ascontiguousarray(indices[:, :k2])
    mean, slow_mean = (
        fast.mean_rows(*sets, values, some, 2),
        jaccard_reference.mean_rows(*sets, values, some),
    )
    assert all((a == b).all() for a, b in zip(mean, slow_mean))
    for rows, first, limit in ((num, 0, 1.0), (num, 0, 0.5), (num // 2, num // 2, 1.0)):
        found = fast.jaccard_rows(*mean, rows, first, limit, 2)
        wanted = jaccard_reference.jaccard_rows(*mean, rows, first, limit)
        assert all(a.shape == b.shape and (a == b).all() for a, b in zip(found, wanted))


def test_encodings_are_distributions(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 90, 12)
    indptr, columns, values = encode(features, knn(features, 15)[0], 15, 4)
    assert (values > 0).all() and (columns >= 0).all()
    np.testing.assert_allclose(np.add.reduceat(values, indptr[:-1]), 1, atol=1e-5)


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 60, 8)
    neighbours = knn(features, 10)
    copies = [x.copy() for x in (features, *neighbours)]
    for array in (features, *neighbours):
        array.setflags(write=False)
    jaccard_distance(features, 10, 3, neighbours=neighbours, max_distance=0.5)
    assert all((a == b).all() for a, b in zip((features, *neighbours), copies))


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"k1": 0}, "k1 must be an integer >= 1"),
        ({"k2": 0}, "k2 must be an integer >= 1"),
        ({"max_distance": -1.0}, "max_distance must be a number >= 0"),
        ({"max_distance": float("nan")}, "max_distance must be"),
    ],
)
def test_bad_settings_are_refused(
    rng: np.random.Generator, given_settings: dict, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        jaccard_distance(oracle.unit(rng, 10, 4), **given_settings)


def test_bad_features_are_refused_by_name(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 10, 4)
    features[7, 1] = np.nan
    with pytest.raises(ValueError, match="features must be finite, but row 7"):
        jaccard_distance(features)
    with pytest.raises(ValueError, match="features must have unit rows"):
        jaccard_distance(oracle.unit(rng, 10, 4) * 3)


def test_neighbours_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 40, 4)
    indices, similarities = knn(features, 20)
    for wrong in (indices[:, :5], indices[:30], indices[:, ::-1], indices - 1):
        with pytest.raises(ValueError, match="neighbours must be"):
            jaccard_distance(features, 20, neighbours=(wrong, similarities))
