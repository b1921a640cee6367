"""Merging one camera's images gives scikit-learn's partitions, dense or sparse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering

from tests.unreid.graph import oracle
from unreid.clustering.agglomerative import agglomerative
from unreid.clustering.partition import compact
from unreid.graph import jaccard_distance

LINKAGES = ("average", "complete", "single")


@given(
    num=st.integers(2, 50),
    share=st.floats(0, 1),
    linkage=st.sampled_from(LINKAGES),
    seed=st.integers(0, 999),
)
def test_equals_sklearn(num: int, share: float, linkage: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.random((num, num))
    distance = np.minimum(distance, distance.T)
    np.fill_diagonal(distance, 0)
    clusters = 1 + int(share * (num - 1))
    by_sklearn = AgglomerativeClustering(clusters, metric="precomputed", linkage=linkage)
    wanted = compact(by_sklearn.fit_predict(distance))
    found = agglomerative(distance, clusters, linkage)
    assert found.dtype == np.int64 and (found == wanted).all()


@pytest.mark.parametrize("linkage", LINKAGES)
def test_sparse_equals_dense_with_absent_entries_at_one(
    rng: np.random.Generator, linkage: str
) -> None:
    distance = jaccard_distance(oracle.unit(rng, 120, 16), 10, 3)
    full = np.ones(distance.shape, dtype=np.float32)
    full[np.repeat(np.arange(120), np.diff(distance.indptr)), distance.indices] = distance.data
    for clusters in (1, 12, 40, 119):
        labels = agglomerative(distance, clusters, linkage)
        assert (labels == agglomerative(full, clusters, linkage)).all()
        assert labels.max() == clusters - 1


def test_ids_follow_first_appearance() -> None:
    distance = np.ones((4, 4))
    distance[1, 3] = distance[3, 1] = distance[0, 2] = distance[2, 0] = 0.1
    np.fill_diagonal(distance, 0)
    assert agglomerative(distance, 2, "average").tolist() == [0, 1, 0, 1]


def test_fewer_images_than_clusters_gives_each_its_own() -> None:
    assert agglomerative(np.zeros((3, 3)), 8, "complete").tolist() == [0, 1, 2]
    assert agglomerative(np.zeros((1, 1)), 1, "single").tolist() == [0]


def test_identical_images_still_make_the_clusters_asked_for() -> None:
    labels = agglomerative(np.zeros((9, 9)), 4, "average")
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]


def test_isolated_images_merge_only_when_they_must() -> None:
    absent = sparse.csr_array((5, 5))
    assert len(set(agglomerative(absent, 3, "average").tolist())) == 3


def test_permuting_images_permutes_the_partition(rng: np.random.Generator) -> None:
    distance = rng.random((40, 40))
    distance = np.minimum(distance, distance.T)
    np.fill_diagonal(distance, 0)
    order = rng.permutation(40)
    labels = agglomerative(distance, 7, "average")
    moved = agglomerative(distance[np.ix_(order, order)], 7, "average")
    assert (compact(labels[order]) == moved).all()


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    distance = rng.random((20, 20))
    distance = distance + distance.T
    before = distance.copy()
    distance.setflags(write=False)
    agglomerative(distance, 3, "complete")
    assert (distance == before).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance": np.zeros((2, 3))}, "distance must have shape"),
        ({"distance": np.full((3, 3), np.nan)}, "distance must not contain NaN"),
        ({"num_clusters": 0}, "num_clusters must be an integer >= 1"),
        ({"linkage": "averge"}, "linkage must be one of .*did you mean 'average'"),
    ],
)
def test_bad_arguments_are_refused_by_name(change: dict, words: str) -> None:
    good = {"distance": np.zeros((3, 3)), "num_clusters": 2, "linkage": "average"}
    with pytest.raises(ValueError, match=words):
        agglomerative(**(good | change))
