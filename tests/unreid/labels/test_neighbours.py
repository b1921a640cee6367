"""Neighbours of a set of features: cached searches, exact and approximate methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unreid.graph.jaccard import jaccard_distance
from unreid.graph.knn import knn
from unreid.labels import neighbours as module
from unreid.labels.neighbours import Search


def unit_rows(rng: np.random.Generator, num: int = 60) -> np.ndarray:
    rows = rng.normal(size=(num, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the k of every search."""
    found: list[int] = []

    def counted(features: Any, k: int, **options: Any) -> Any:
        found.append(k)
        return knn(features, k, **options)

    monkeypatch.setattr(module, "knn", counted)
    return found


def test_smaller_k__uses_the_cached_search_with_equal_results(
    rng: np.random.Generator, searches: list[int]
) -> None:
    features = unit_rows(rng)
    neighbours = Search()(features)
    assert searches == [] and neighbours.seconds == 0
    for k in (12, 5, 12, 1):
        for ours, theirs in zip(neighbours.knn(k), knn(features, k)):
            np.testing.assert_array_equal(ours, theirs)
    assert searches == [12] and neighbours.seconds > 0
    assert neighbours.knn(99)[0].shape == (60, 60)
    neighbours.knn(100)
    assert searches == [12, 60]


def test_jaccard__equals_that_of_the_features_and_uses_the_cached_search(
    rng: np.random.Generator, searches: list[int]
) -> None:
    features = unit_rows(rng)
    neighbours = Search()(features)
    neighbours.knn(15)
    ours, theirs = (
        neighbours.jaccard(10, 3, 0.8),
        jaccard_distance(features, 10, 3, max_distance=0.8),
    )
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(vars(ours)[name], vars(theirs)[name])
    assert searches == [15]


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_approximate_search__equals_that_of_its_method(
    method: str, rng: np.random.Generator
) -> None:
    features = unit_rows(rng, 200)
    ours = Search(method, num_probes=3, seed=5)(features).knn(7)
    theirs = knn(features, 7, method=method, num_probes=3, seed=5)
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one, other)


def test_unknown_method__is_refused() -> None:
    with pytest.raises(ValueError, match="method must be one of 'exact', 'ivf', 'hnsw'"):
        Search("faiss")
