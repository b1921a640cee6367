"""One merge pass of BUC by its published formula, with all pairs stored and sorted.

[0] Lin et al.: A bottom-up clustering approach to unsupervised person re-identification (BUC),
    2019, https://doi.org/10.1609/aaai.v33i01.33018738

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

import numpy as np


def merge_pass(
    features: np.ndarray, labels: np.ndarray, num_merges: int, weight: float
) -> np.ndarray:
    """Merge the nearest pairs by minimum distance plus ``weight`` times the sum of both sizes.

    Args:
        features: (N, D) float32 unit rows.
        labels: (N,) 0..C-1.
        num_merges: Number of merges.
        weight: Weight of the sum of both cluster sizes in the distance.

    Returns:
        (N,) int64, ids with gaps.
    """
    distance = 2 - 2 * (features @ features.T)
    sizes = np.bincount(labels)
    if len(sizes) < len(labels):  # the minimum distance over each pair's members
        order = np.argsort(labels, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        distance = np.minimum.reduceat(distance[order], starts, axis=0)
        distance = np.minimum.reduceat(distance[:, order], starts, axis=1)
    distance += (weight * (sizes[:, None] + sizes)).astype(np.float32)
    distance[np.tril_indices(len(sizes))] = np.inf
    rows, columns = np.unravel_index(np.argsort(distance, axis=None), distance.shape)
    member = np.arange(len(sizes))
    merged = 0
    for i, j in zip(rows, columns):
        if member[i] != member[j]:
            member[member == member[j]] = member[i]
            merged += 1
            if merged == num_merges:
                break
    return member[labels]
