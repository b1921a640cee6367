"""DBSCAN on sparse and dense distances gives scikit-learn's labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from tests.unreid.graph import oracle
from unreid.clustering.dbscan import dbscan
from unreid.graph import jaccard_distance
from unreid.kernels import dbscan_reference


def sparsified(distance: np.ndarray) -> sparse.csr_array:
    """Return only the entries below 1 as a sparse matrix, with explicit zeros."""
    kept = distance < 1
    return sparse.csr_array((distance[kept], np.nonzero(kept)), shape=distance.shape)


def by_sklearn(distance: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance)


@given(
    num=st.integers(1, 60),
    levels=st.sampled_from([5, 10, 1000]),
    eps=st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    min_samples=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_equals_sklearn__numbers_and_border_points(
    num: int, levels: int, eps: float, min_samples: int, seed: int
) -> None:
    distance = np.floor(np.random.default_rng(seed).random((num, num)) * levels + 1) / levels
    distance = np.minimum(np.maximum(distance, distance.T), 1)
    np.fill_diagonal(distance, 0)
    wanted = by_sklearn(distance, eps, min_samples)
    for given_distance in (distance, sparsified(distance), sparse.coo_array(sparsified(distance))):
        found = dbscan(given_distance, eps, min_samples)
        assert found.dtype == np.int64 and (found == wanted).all()
    csr = sparsified(distance)
    pointers, columns = csr.indptr.astype(np.int64), csr.indices.astype(np.int32)
    reference = dbscan_reference.label(pointers, columns, csr.data, eps, min_samples)
    assert reference.dtype == np.int64 and (reference == wanted).all()


def test_equals_sklearn_on_jaccard_distances(rng: np.random.Generator) -> None:
    distance = jaccard_distance(oracle.unit(rng, 400, 16), 15, 4)
    full = np.ones(distance.shape, dtype=np.float32)
    rows = np.repeat(np.arange(400), np.diff(distance.indptr))
    full[rows, distance.indices] = distance.data
    for eps in (0.4, 0.6):
        wanted = by_sklearn(full, eps, 4)
        assert wanted.max() > 2 and (dbscan(distance, eps, 4) == wanted).all()
        assert (dbscan(full, eps, 4) == wanted).all()


def test_pure_python_gives_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    distance = jaccard_distance(oracle.unit(rng, 200, 16), 12, 4)
    wanted = dbscan(distance, 0.5, 4)
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    assert (dbscan(distance, 0.5, 4) == wanted).all()
    assert (dbscan(distance.astype(np.float64), 0.5, 4) == wanted).all()


def test_max_distance_at_eps_changes_no_label(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 300, 16)
    limited = jaccard_distance(features, 15, 4, max_distance=0.5)
    assert (dbscan(limited, 0.5, 4) == dbscan(jaccard_distance(features, 15, 4), 0.5, 4)).all()


def test_eps_is_inclusive() -> None:
    distance = np.array([[0.0, 0.5], [0.5, 0.0]])
    assert dbscan(distance, 0.5, 2).tolist() == [0, 0]
    assert dbscan(distance, 0.499, 2).tolist() == [-1, -1]


def test_an_image_counts_itself_with_or_without_a_stored_diagonal() -> None:
    pair = sparse.csr_array(([0.3, 0.3], ([0, 1], [1, 0])), shape=(2, 2))
    stored = sparse.csr_array(([0.0, 0.3, 0.3, 0.0], ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    for distance in (pair, stored):
        assert dbscan(distance, 0.5, 2).tolist() == [0, 0]
        assert dbscan(distance, 0.5, 3).tolist() == [-1, -1]


def test_all_noise_one_cluster_and_identical_images() -> None:
    apart = sparse.csr_array((7, 7))
    assert (dbscan(apart, 0.5, 2) == -1).all()
    assert dbscan(apart, 0.5, 1).tolist() == list(range(7))
    assert (dbscan(np.zeros((7, 7)), 0.5, 4) == 0).all()
    assert dbscan(np.zeros((1, 1)), 0.5, 4).tolist() == [-1]


def test_a_border_image_joins_the_lower_of_two_clusters() -> None:
    # Image 4 is within eps of core samples of both groups, but is not a core sample.
    distance = np.ones((9, 9))
    distance[:4, :4] = distance[5:, 5:] = 0.1
    distance[4, [3, 5]] = distance[[3, 5], 4] = 0.1
    np.fill_diagonal(distance, 0)
    wanted = by_sklearn(distance, 0.1, 4)
    assert wanted.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert (dbscan(distance, 0.1, 4) == wanted).all()


def test_permuting_images_permutes_the_core_partition(rng: np.random.Generator) -> None:
    distance = jaccard_distance(oracle.unit(rng, 200, 16), 12, 4)
    order = rng.permutation(200)
    labels = dbscan(distance, 0.5, 1)  # with min_samples=1 every image is a core sample
    moved = dbscan(distance[order][:, order], 0.5, 1)
    assert ((labels[order][:, None] == labels[order]) == (moved[:, None] == moved)).all()


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    distance = jaccard_distance(oracle.unit(rng, 80, 8), 10, 3)
    before = distance.copy()
    dbscan(distance, 0.4, 3)
    assert (distance.data == before.data).all() and (distance.indices == before.indices).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance": np.zeros((2, 3))}, "distance must have shape"),
        ({"distance": np.full((2, 2), np.nan)}, "distance must not contain NaN"),
        ({"eps": 0.0}, "eps must be a number > 0"),
        ({"min_samples": 0}, "min_samples must be an integer >= 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dbscan(**({"distance": np.zeros((2, 2)), "eps": 0.5, "min_samples": 2} | change))
    with pytest.raises(TypeError, match="distance must be a matrix"):
        dbscan([[0.0]], 0.5, 2)  # type: ignore[arg-type]
