"""Tests of the camera confusion among neighbours against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.visualization.neighbours import camera_confusion, chance, same_camera


def unit_rows(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    rows = rng.standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_confusion(features: np.ndarray, camids: np.ndarray, num: int, k: int) -> np.ndarray:
    counts = np.zeros((num, num))
    n = len(features)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        others.sort(key=lambda j: -float(features[i].astype(float) @ features[j].astype(float)))
        for j in others[: min(k, n - 1)]:
            counts[camids[i], camids[j]] += 1
    for a in range(num):
        if counts[a].sum():
            counts[a] /= counts[a].sum()
    return counts


@given(st.integers(2, 40), st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**31))
def test_confusion__equals_the_slow_loop(n: int, num: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, camids = unit_rows(rng, n), rng.integers(num, size=n)
    found = camera_confusion(features, camids, num, k)
    np.testing.assert_allclose(found, slow_confusion(features, camids, num, k), atol=1e-12)


def test_cameras_far_apart__have_neighbours_of_their_own_only(rng: np.random.Generator) -> None:
    camids = np.repeat([0, 1], 20)
    features = unit_rows(rng, 40) * 0.01
    features[np.arange(40), camids] += 1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = camera_confusion(features, camids, 2, 5)
    np.testing.assert_array_equal(found, np.eye(2))
    assert same_camera(found, camids) == 1


def test_identical_images__leave_k_neighbours_each() -> None:
    features = np.tile(np.array([[1, 0]], np.float32), (30, 1))
    camids = np.arange(30) % 3
    found = camera_confusion(features, camids, 3, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_camera_without_an_image__is_a_row_of_zeros(rng: np.random.Generator) -> None:
    found = camera_confusion(unit_rows(rng, 6), np.array([0, 0, 2, 2, 2, 0]), 3, 10)
    assert found[1].sum() == 0 and found[:, 1].sum() == 0
    np.testing.assert_allclose(found[[0, 2]].sum(axis=1), 1)


def test_chance__is_what_random_neighbours_come_to(rng: np.random.Generator) -> None:
    camids = np.array([0] * 6 + [1] * 3 + [3])
    found = chance(camids, 4)
    np.testing.assert_allclose(found[0], [5 / 9, 3 / 9, 0, 1 / 9])
    np.testing.assert_allclose(found[2], 0)
    wanted = np.mean([(camids[np.arange(10) != i] == c).mean() for i, c in enumerate(camids)])
    assert same_camera(found, camids) == pytest.approx(wanted)


def test_input__is_not_modified(rng: np.random.Generator) -> None:
    features, camids = unit_rows(rng, 20), rng.integers(3, size=20)
    kept = features.copy(), camids.copy()
    camera_confusion(features, camids, 3)
    np.testing.assert_array_equal(features, kept[0])
    np.testing.assert_array_equal(camids, kept[1])
