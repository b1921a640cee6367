"""Camera centring against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.graph.centering import camera_means, center_cameras, subtract_means


def unit(rng: np.random.Generator, num: int, width: int = 5) -> np.ndarray:
    features = rng.normal(size=(num, width)) + 1
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0, 16.0]),
)
def test_centring__equals_a_loop(seed: int, num: int, cameras: int, shrinkage: float) -> None:
    rng = np.random.default_rng(seed)
    features, camids = unit(rng, num), rng.integers(0, cameras, num)
    kept = features.copy()
    overall = sum(features.astype(np.float64)) / num
    expected = []
    for i in range(num):
        own = [features[j].astype(np.float64) for j in range(num) if camids[j] == camids[i]]
        mean = (sum(own) + shrinkage * overall) / (len(own) + shrinkage)
        left = features[i] - mean
        length = np.sqrt((left**2).sum())
        expected.append(left / length if length > 1e-6 else features[i])
    np.testing.assert_allclose(center_cameras(features, camids, shrinkage), expected, atol=2e-5)
    np.testing.assert_array_equal(features, kept)


def test_shrinkage__pulls_a_small_camera_to_the_mean_of_all(rng: np.random.Generator) -> None:
    features = unit(rng, 21)
    camids = np.array([0] * 20 + [1])
    overall = features.mean(0)
    distances = [
        np.linalg.norm(camera_means(features, camids, 2, s)[1] - overall) for s in (0, 1, 16, 1000)
    ]
    assert distances == sorted(distances, reverse=True)
    np.testing.assert_allclose(camera_means(features, camids, 2, 0)[1], features[20], atol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 16.0])
def test_camera_without_an_image__has_the_mean_of_all(
    rng: np.random.Generator, shrinkage: float
) -> None:
    features = unit(rng, 6)
    means = camera_means(features, np.zeros(6, dtype=np.int64), 3, shrinkage)
    np.testing.assert_allclose(means[2], features.mean(0), atol=1e-6)


def test_query__of_a_camera_unseen_in_the_gallery_is_centred_by_the_mean_of_all(
    rng: np.random.Generator,
) -> None:
    gallery, query = unit(rng, 8), unit(rng, 2)
    means = camera_means(gallery, np.arange(8) % 2, 3)
    centred = subtract_means(query, np.array([2, 2]), means)
    left = query - gallery.mean(0)
    np.testing.assert_allclose(
        centred, left / np.linalg.norm(left, axis=1, keepdims=True), atol=1e-5
    )


def test_identical_images__stay_as_they_were() -> None:
    features = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (5, 1))
    np.testing.assert_array_equal(center_cameras(features, np.zeros(5, np.int64), 0.0), features)


def test_rows__are_unit_and_float32(rng: np.random.Generator) -> None:
    centred = center_cameras(unit(rng, 40), rng.integers(0, 4, 40))
    assert centred.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-5)


def test_errors__name_what_is_wrong(rng: np.random.Generator) -> None:
    features = unit(rng, 3)
    with pytest.raises(ValueError, match=r"camids must be in 0..1, got 0..2"):
        camera_means(features, np.arange(3), 2)
    with pytest.raises(ValueError, match="shrinkage must be a number >= 0, got -1"):
        camera_means(features, np.zeros(3, np.int64), 1, -1)
    features[1, 0] = np.nan
    with pytest.raises(ValueError, match="features must be finite, but row 1"):
        camera_means(features, np.zeros(3, np.int64), 1)
