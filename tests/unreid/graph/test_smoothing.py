"""Smoothing over mutual neighbours against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.graph.knn import knn
from unreid.graph.smoothing import smooth_mutual


def unit(rng: np.random.Generator, num: int, width: int = 5) -> np.ndarray:
    features = rng.normal(size=(num, width))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 35))
def test_smoothing__equals_a_loop(seed: int, num: int, k: int) -> None:
    features = unit(np.random.default_rng(seed), num)
    kept = features.copy()
    near = [sorted((-float(features[i] @ features[j]), j) for j in range(num) if j != i)[:k]
            for i in range(num)]  # fmt: skip
    names = [{j for _, j in row} for row in near]
    expected = []
    for i in range(num):
        total = features[i].astype(np.float64)
        for j in names[i]:
            if i in names[j]:
                total = total + max(float(features[i] @ features[j]), 0.0) * features[j]
        expected.append(total / np.sqrt((total**2).sum()))
    found = smooth_mutual(features, k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(features, kept)


def test_given_neighbours__give_the_same(rng: np.random.Generator) -> None:
    features = unit(rng, 50)
    found = smooth_mutual(features, 4, neighbours=knn(features, 12))
    np.testing.assert_allclose(found, smooth_mutual(features, 4), atol=1e-6)


def test_one_sided_neighbour__draws_nothing() -> None:
    # The first two are nearest neighbours of each other, so the third has no mutual neighbour.
    angles = np.array([0.0, 0.1, 0.5])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = smooth_mutual(features, 1)
    np.testing.assert_allclose(found[2], features[2], atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_identical_images__stay_as_they_were(rng: np.random.Generator) -> None:
    features = np.repeat(unit(rng, 1), 20, axis=0)
    np.testing.assert_allclose(smooth_mutual(features, 3), features, atol=1e-6)


def test_too_few_given_neighbours__are_refused(rng: np.random.Generator) -> None:
    features = unit(rng, 30)
    with pytest.raises(ValueError, match="neighbours must have at least 9 columns, got 5"):
        smooth_mutual(features, 8, neighbours=knn(features, 5))
    with pytest.raises(ValueError, match="k must be an integer >= 1, got 0"):
        smooth_mutual(features, 0)
