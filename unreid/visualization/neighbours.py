"""Whose cameras the neighbours of an image come from: the camera gap as a table.

Notation: n images, D channels, M cameras, k neighbours.
"""

from __future__ import annotations

import numpy as np

from unreid.graph.knn import knn


def camera_confusion(
    features: np.ndarray, camids: np.ndarray, num_cameras: int, k: int = 10
) -> np.ndarray:
    """Entry (a, b): share of the k nearest neighbours of camera a's images that are of camera b.

    An image is no neighbour of itself.

    Args:
        features: (n, D) float32 unit rows, n >= 2.
        camids: (n,) integer cameras 0..M-1.
        num_cameras: M.
        k: Neighbours; at most n - 1 are used.

    Returns:
        (M, M) float64; rows sum to 1, those of a camera without an image to 0.
    """
    n = len(features)
    k = min(k, n - 1)
    found, _ = knn(np.ascontiguousarray(features, dtype=np.float32), k + 1)
    others = found != np.arange(n)[:, None]
    # Where identical images pushed the image itself off its own list, the farthest one goes.
    others[others.all(axis=1), -1] = False
    neighbours = found[others].reshape(n, k)
    counts = np.zeros((num_cameras, num_cameras))
    np.add.at(counts, (np.repeat(camids, k), camids[neighbours].ravel()), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def chance(camids: np.ndarray, num_cameras: int) -> np.ndarray:
    """:func:`camera_confusion` if neighbours were drawn at random: (M, M), rows as there."""
    counts = np.bincount(camids, minlength=num_cameras)
    shares = np.tile(counts.astype(np.float64), (num_cameras, 1)) - np.eye(num_cameras)
    shares = np.where(counts[:, None] > 0, shares, 0.0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)


def same_camera(confusion: np.ndarray, camids: np.ndarray) -> float:
    """Share of all images' neighbours that are of the image's own camera, 0..1."""
    counts = np.bincount(camids, minlength=len(confusion))
    return float((np.diag(confusion) * counts).sum() / counts.sum())
