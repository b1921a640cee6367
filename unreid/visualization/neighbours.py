"""Cameras of the nearest neighbours: a measure of the camera gap.

Notation: n images, D channels, M cameras, k neighbours.
"""

from __future__ import annotations

import numpy as np

from unreid.graph.knn import knn


def camera_confusion(
    features: np.ndarray, camids: np.ndarray, num_cameras: int, k: int = 10
) -> np.ndarray:
    """Return the shares of cameras among the k nearest neighbours.

    Entry (a, b) is the share of camera b among the neighbours of camera a's images. An image is
    not its own neighbour.

    Args:
        features: (n, D) float32 unit rows, n >= 2.
        camids: (n,) integer cameras 0..M-1.
        num_cameras: M.
        k: Neighbours; at most n - 1 are used.

    Returns:
        (M, M) float64; rows sum to 1, or to 0 for a camera without images.
    """
    n = len(features)
    k = min(k, n - 1)
    found, _ = knn(np.ascontiguousarray(features, dtype=np.float32), k + 1)
    others = found != np.arange(n)[:, None]
    # If identical images displace the image itself from its list, the farthest entry is dropped.
    others[others.all(axis=1), -1] = False
    neighbours = found[others].reshape(n, k)
    counts = np.zeros((num_cameras, num_cameras))
    np.add.at(counts, (np.repeat(camids, k), camids[neighbours].ravel()), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def chance(camids: np.ndarray, num_cameras: int) -> np.ndarray:
    """Return the expected :func:`camera_confusion` of random neighbours, (M, M)."""
    counts = np.bincount(camids, minlength=num_cameras)
    shares = np.tile(counts.astype(np.float64), (num_cameras, 1)) - np.eye(num_cameras)
    shares = np.where(counts[:, None] > 0, shares, 0.0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)


def same_camera(confusion: np.ndarray, camids: np.ndarray) -> float:
    """Return the share of neighbours from the image's own camera, over all images, 0..1."""
    counts = np.bincount(camids, minlength=len(confusion))
    return float((np.diag(confusion) * counts).sum() / counts.sum())
