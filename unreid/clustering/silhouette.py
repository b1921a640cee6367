"""Silhouette scores of a partition, without ground truth.

[0] Rousseeuw, Silhouettes: a graphical aid, J. Comput. Appl. Math. 20, 1987.
[1] Hruschka, de Castro, Campello, Evolutionary algorithms for clustering, ICDM 2004
    (simplified silhouette: distances to centroids).

Notation: N images, C clusters, D channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import silhouette_score

from unreid.checks import check_features
from unreid.clustering.partition import centroids


def silhouette(distance: Any, labels: np.ndarray) -> float:
    """Return the mean silhouette [0] on a precomputed distance matrix.

    Args:
        distance: (N, N) distances, dense or sparse; entries that are not stored are 1.
        labels: (N,) int64, every image in a cluster.

    Returns:
        The score in [-1, 1]; -1 if it is not defined (one cluster, or all singletons).
    """
    num_clusters = len(np.unique(labels))
    if not 2 <= num_clusters < len(labels):
        return -1.0
    if not isinstance(distance, np.ndarray):
        stored = distance.tocoo()
        dense = np.ones(distance.shape, dtype=np.float32)
        dense[stored.row, stored.col] = stored.data
        distance = dense
    distance = distance.copy()
    np.fill_diagonal(distance, 0.0)
    return float(silhouette_score(distance, labels, metric="precomputed"))


def sphere_silhouette(features: np.ndarray, labels: np.ndarray, *, block_size: int = 2048) -> float:
    """Return the mean simplified silhouette (b - a) / max(a, b) [1].

    a is the cosine distance of an image to the mean of the other images of its cluster, b that to
    the nearest mean of another cluster. The cost is O(N C D), without an N x N matrix.

    Args:
        features: (N, D) float32, unit rows.
        labels: (N,) int64; images with label -1 are ignored; a singleton has score 0.
        block_size: Number of images per block of the computation.

    Returns:
        The score in [-1, 1]; -1 if there are fewer than two clusters.
    """
    check_features("features", features)
    kept = np.flatnonzero(labels >= 0)
    own = labels[kept]
    if own.size == 0 or own.max() < 1:
        return -1.0
    means = centroids(features, labels)
    sums = np.zeros_like(means)
    np.add.at(sums, own, features[kept])
    sizes = np.bincount(own)
    total = 0.0
    for start in range(0, len(kept), block_size):
        rows = slice(start, start + block_size)
        block, mine = features[kept[rows]], own[rows]
        cosines = block @ means.T
        cosines[np.arange(len(mine)), mine] = -np.inf
        b = 1.0 - cosines.max(axis=1)
        others = sums[mine] - block
        lengths = np.linalg.norm(others, axis=1)
        a = 1.0 - np.einsum("ij,ij->i", block, others) / np.maximum(lengths, 1e-12)
        score = (b - a) / np.maximum(np.maximum(a, b), 1e-12)
        total += float(np.where(sizes[mine] > 1, score, 0.0).sum())
    return total / len(kept)
