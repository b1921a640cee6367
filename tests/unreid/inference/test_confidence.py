"""Confidence compared with a loop that follows the formula, and special cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.clustering.partition import compact
from unreid.clustering.silhouette import sphere_silhouette
from unreid.inference.confidence import confidence


def unit(rng: np.random.Generator, num: int, width: int) -> np.ndarray:
    rows = rng.normal(size=(num, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def oracle(features: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return (1 + (b - a) / max(a, b)) / 2, image by image, in double precision."""
    features = features.astype(np.float64)

    def direction(rows: np.ndarray) -> np.ndarray:
        mean = rows.mean(axis=0)
        return mean / np.linalg.norm(mean)

    result = []
    for i, (feature, label) in enumerate(zip(features, labels)):
        others = sorted(set(labels.tolist()) - {-1, label})
        mates = [j for j in range(len(labels)) if labels[j] == label and j != i]
        if label < 0:
            result.append(0.0)
        elif not others or not mates:
            result.append(0.5)
        else:
            a = 1 - feature @ direction(features[mates])
            b = min(1 - feature @ direction(features[labels == c]) for c in others)
            result.append((1 + (b - a) / max(a, b)) / 2)
    return result


@given(
    st.integers(1, 40),
    st.integers(2, 9),
    st.integers(1, 6),
    st.integers(1, 50),
    st.integers(0, 10**6),
)
def test_confidence__equals_the_formula(
    num: int, width: int, clusters: int, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = unit(rng, num, width)
    labels = compact(rng.integers(-1, clusters, num))
    found = confidence(features, labels, block_size=block)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found, oracle(features, labels), atol=2e-5)


def test_mean_confidence__follows_from_the_selection_silhouette(rng: np.random.Generator) -> None:
    features, labels = unit(rng, 200, 16), compact(rng.integers(0, 20, 200))
    mean = float((2 * confidence(features, labels).astype(np.float64) - 1).mean())
    assert mean == pytest.approx(sphere_silhouette(features, labels), abs=1e-5)


def test_centre_of_a_distant_cluster__has_higher_confidence_than_its_border() -> None:
    angles = np.radians([0, 5, 10, 40, 90, 95, 100])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    sure = confidence(features, np.array([0, 0, 0, 0, 1, 1, 1]))
    assert sure[1] > 0.95 and sure[3] < sure[1]


def test_image_in_the_wrong_cluster__has_confidence_below_half() -> None:
    angles = np.radians([0, 2, 88, 90, 92])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    sure = confidence(features, np.array([0, 0, 0, 1, 1]))
    assert sure[2] < 0.5 < sure[3]


def test_all_noise__is_zero(rng: np.random.Generator) -> None:
    assert confidence(unit(rng, 5, 4), np.full(5, -1)).tolist() == [0] * 5


def test_one_cluster_and_single_image__have_confidence_half(
    rng: np.random.Generator,
) -> None:
    assert confidence(unit(rng, 5, 4), np.zeros(5, np.int64)).tolist() == [0.5] * 5
    assert confidence(unit(rng, 1, 4), np.zeros(1, np.int64)).tolist() == [0.5]
    assert confidence(unit(rng, 3, 4), np.arange(3)).tolist() == [0.5] * 3


def test_identical_images_in_two_clusters__have_confidence_half(rng: np.random.Generator) -> None:
    features = unit(rng, 1, 300).repeat(6, axis=0)
    np.testing.assert_array_equal(confidence(features, np.array([0, 0, 0, 1, 1, 1])), 0.5)


def test_images_that_cancel__do_not_divide_by_zero() -> None:
    features = np.array([[1, 0], [-1, 0], [0, 1], [0, 1]], np.float32)
    found = confidence(features, np.array([0, 0, 1, 1]))
    assert np.isfinite(found).all()


def test_input__is_not_changed(rng: np.random.Generator) -> None:
    features, labels = unit(rng, 9, 4), compact(rng.integers(-1, 3, 9))
    before = features.copy(), labels.copy()
    confidence(features, labels)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])
