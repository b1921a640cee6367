"""Tests of the two-dimensional embedding: shape, range, degenerate features."""

from __future__ import annotations

import numpy as np
import pytest

from unreid.visualization.embedding import METHODS, project_2d


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, 10, 40])
def test_points__lie_in_the_frame(rng: np.random.Generator, method: str, n: int) -> None:
    points = project_2d(rng.standard_normal((n, 6)).astype(np.float32), method)
    assert points.shape == (n, 2) and np.isfinite(points).all()
    assert np.abs(points).max(initial=0) <= 1 + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_identical_images__are_one_point(method: str) -> None:
    points = project_2d(np.ones((20, 4), np.float32), method)
    np.testing.assert_array_equal(points, 0)


@pytest.mark.parametrize("method", METHODS)
def test_one_channel__is_a_line(rng: np.random.Generator, method: str) -> None:
    assert project_2d(rng.standard_normal((8, 1)).astype(np.float32), method).shape == (8, 2)


@pytest.mark.parametrize("method", METHODS)
def test_two_groups__lie_apart(rng: np.random.Generator, method: str) -> None:
    rows = 0.05 * rng.standard_normal((60, 16)).astype(np.float32)
    rows[:30, 0] += 1
    points = project_2d(rows, method)
    a, b = points[:30], points[30:]
    within = max(np.linalg.norm(g - g.mean(axis=0), axis=1).mean() for g in (a, b))
    assert np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) > 2 * within


def test_same_seed__same_map(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((30, 8)).astype(np.float32)
    np.testing.assert_array_equal(project_2d(rows, seed=3), project_2d(rows, seed=3))


def test_unknown_method__is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="tsne"):
        project_2d(np.eye(3, dtype=np.float32), "umap")
