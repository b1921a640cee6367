"""Cluster weights from the entropy of the cameras of a cluster.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: N images, C clusters, M cameras.
"""

from __future__ import annotations

import numpy as np


def camera_entropy(labels: np.ndarray, camids: np.ndarray) -> np.ndarray:
    """Return the entropy H_k = -sum_c p_kc log p_kc over the cameras c of cluster k, in nats.

    Args:
        labels: (N,) int64 in -1..C-1; -1 is ignored.
        camids: (N,) int64 from 0.

    Returns:
        (C,) float64; 0 for a cluster of one camera, at most log M.
    """
    kept = labels >= 0
    counts = np.zeros((labels.max() + 1, camids.max() + 1))
    np.add.at(counts, (labels[kept], camids[kept]), 1.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    return -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1)


def cluster_weights(labels: np.ndarray, camids: np.ndarray) -> np.ndarray:
    """Return w_k = log(1 + H_k) [0], (C,) float32 >= 0; 0 for a cluster of one camera."""
    return np.log1p(np.maximum(camera_entropy(labels, camids), 0.0)).astype(np.float32)
