"""Camera whitening against a slow loop, and the covariance of each camera after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.graph.centering import camera_means, center_cameras
from unreid.graph.whitening import apply_transforms, camera_transforms, whiten_cameras


def unit(rng: np.random.Generator, num: int, width: int = 5) -> np.ndarray:
    features = rng.normal(size=(num, width)) * np.linspace(0.2, 2, width) + 1
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def slowly(
    features: np.ndarray, camids: np.ndarray, power: float, shrinkage: float, floor: float
) -> list[np.ndarray]:
    """Return the formulas' result, image by image; the power is a sum over eigenvectors."""
    means = camera_means(features, camids, int(camids.max()) + 1)
    apart = [features[i].astype(np.float64) - means[camids[i]] for i in range(len(features))]
    width = features.shape[1]
    common = sum(np.outer(x, x) for x in apart) / len(apart)
    rows = []
    for i, x in enumerate(apart):
        own = [y for y, camera in zip(apart, camids) if camera == camids[i]]
        kappa = shrinkage * width
        mixed = (sum(np.outer(y, y) for y in own) + kappa * common) / (len(own) + kappa)
        target = (1 - floor) * mixed + floor * np.trace(mixed) / width * np.eye(width)
        values, vectors = np.linalg.eigh(target)
        moved = sum(v**-power * (e @ x) * e for v, e in zip(values, vectors.T))
        length = np.sqrt((x**2).sum())
        rows.append(moved / np.sqrt((moved**2).sum()) if length > 1e-6 else features[i])
    return rows


@given(
    st.integers(0, 2**32 - 1), st.integers(3, 25), st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 0.5]), st.sampled_from([0.5, 4.0]), st.sampled_from([0.05, 1.0]),
)  # fmt: skip
def test_whitening__equals_a_loop(
    seed: int, num: int, cameras: int, power: float, shrinkage: float, floor: float
) -> None:
    rng = np.random.default_rng(seed)
    features, camids = unit(rng, num), rng.integers(0, cameras, num)
    kept = features.copy()
    found = whiten_cameras(features, camids, power=power, shrinkage=shrinkage, floor=floor)
    assert found.dtype == np.float32
    expected = slowly(features, camids, power, shrinkage, floor)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_array_equal(features, kept)


def test_power_zero__is_centring(rng: np.random.Generator) -> None:
    features, camids = unit(rng, 40), rng.integers(0, 3, 40)
    np.testing.assert_allclose(
        whiten_cameras(features, camids, power=0), center_cameras(features, camids), atol=1e-6
    )


def test_full_power__leaves_every_camera_the_same_spread(rng: np.random.Generator) -> None:
    features, camids = unit(rng, 4000, 6), rng.integers(0, 2, 4000)
    features[camids == 1, 0] *= 4  # more variance in camera 1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    means, matrices = camera_transforms(
        features, camids, 2, power=0.5, shrinkage=0, floor=1e-6, mean_shrinkage=0
    )
    for camera in range(2):
        moved = (features[camids == camera] - means[camera]) @ matrices[camera]
        spread = np.cov(moved.T, bias=True)
        np.testing.assert_allclose(spread / np.trace(spread), np.eye(6) / 6, atol=1e-3)


def test_scale_of_the_spread__changes_nothing(rng: np.random.Generator) -> None:
    features, camids = unit(rng, 60), rng.integers(0, 2, 60)
    near = features.mean(0) + 0.01 * (features - features.mean(0))
    one, other = (whiten_cameras(x.astype(np.float32), camids) for x in (features, near))
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_camera_of_one_image_and_of_none__take_the_common_spread(
    rng: np.random.Generator,
) -> None:
    features = unit(rng, 30)
    camids = np.array([0] * 29 + [1])
    _, matrices = camera_transforms(features, camids, 3, shrinkage=1000.0)
    np.testing.assert_allclose(matrices[1], matrices[2], rtol=1e-2, atol=1e-3)
    assert np.isfinite(whiten_cameras(features, camids)).all()


def test_fewer_images_than_channels__stay_finite_unit_rows(rng: np.random.Generator) -> None:
    features = unit(rng, 6, 40)
    found = whiten_cameras(features, np.arange(6) % 2, power=0.5, shrinkage=0, floor=0.01)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_identical_images__stay_as_they_were(rng: np.random.Generator) -> None:
    features = np.repeat(unit(rng, 1), 5, axis=0)
    found = whiten_cameras(features, np.array([0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(found, features)


def test_query__is_evened_by_what_the_gallery_learnt(rng: np.random.Generator) -> None:
    gallery, camids = unit(rng, 50), rng.integers(0, 2, 50)
    learnt = camera_transforms(gallery, camids, 2)
    both = apply_transforms(np.concatenate([gallery, gallery[:5]]),
                            np.concatenate([camids, camids[:5]]), *learnt)  # fmt: skip
    np.testing.assert_allclose(both[50:], both[:5], atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"power": 0.6}, "power must be a number >= 0 and <= 0.5, got 0.6"),
        ({"shrinkage": -1}, "shrinkage must be a number >= 0, got -1"),
        ({"floor": 0}, "floor must be a number > 0 and <= 1, got 0"),
    ],
)
def test_values_out_of_range__are_named(
    setting: dict[str, float], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        whiten_cameras(unit(rng, 4), np.zeros(4, np.int64), **setting)
