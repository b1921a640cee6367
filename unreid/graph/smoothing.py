"""Neighbour smoothing: query expansion over mutual nearest neighbours.

Weighted query expansion [0] over mutual neighbours only. Two images that are among each other's
k nearest mostly show the same person, so their mean is less noisy than each feature.

[0] Radenovic, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation, 2018,
    https://arxiv.org/abs/1711.02512

Notation: N images, D channels, k neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from unreid.checks import check_integer
from unreid.graph.knn import knn


def smooth_mutual(
    features: np.ndarray,
    k: int = 12,
    *,
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return unit rows of v_i + sum over mutual neighbours j of max(v_i . v_j, 0) v_j.

    Args:
        features: (N, D) float32, unit rows.
        k: Neighbours of each image, itself not counted, >= 1.
        neighbours: (N, K) indices and similarities with K > k, sorted, as of
            :func:`unreid.graph.knn`; computed when None.

    Returns:
        (N, D) float32, unit rows; the input is not changed.
    """
    k = check_integer("k", k, 1)
    num = len(features)
    indices, similarities = knn(features, min(k + 1, num)) if neighbours is None else neighbours
    if indices.shape[1] < min(k + 1, num):
        raise ValueError(f"neighbours must have at least {k + 1} columns, got {indices.shape[1]}")
    rows = np.arange(num)
    # The first neighbour is the image itself, except among exact duplicates.
    others = indices != rows[:, None]
    others &= np.cumsum(others, axis=1) <= k
    row, at = np.nonzero(others)
    shape = (num, num)
    ones = np.ones(len(row), dtype=np.float32)
    column = indices[row, at]
    listed = csr_array((ones, (row, column)), shape=shape)
    # A neighbour with similarity zero has weight zero.
    weights = csr_array((np.maximum(similarities[row, at], 0), (row, column)), shape=shape)
    mutual = weights.multiply(listed.T.tocsr()).tocsr()
    smoothed = (mutual @ features + features).astype(np.float32)
    return smoothed / np.linalg.norm(smoothed, axis=1, keepdims=True)
