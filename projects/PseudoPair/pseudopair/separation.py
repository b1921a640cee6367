"""Guided similarity separation: high similarities are increased, low ones reduced.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Liu et al., Guided Similarity Separation for Image Retrieval, NeurIPS 2019.

Notation: B batch, D channels, N images; s similarity, beta its threshold, alpha a factor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def separation_loss(features: Tensor, beta: Tensor | float, alpha: float) -> Tensor:
    """Return -(alpha / 2) mean over i != j of (s_ij - beta)^2, s_ij = clip(g_i . g_j, 0, 1).

    The gradient with respect to s_ij is -alpha (s_ij - beta) divided by the number of pairs. Pairs
    with s > beta attract, the others repel, in proportion to the distance from beta [1]. The clip
    bounds the loss to -alpha / 2 .. 0.

    Args:
        features: (B, D) unit rows.
        beta: Threshold in 0..1.
        alpha: Factor >= 0.

    Returns:
        A scalar; zero with a gradient for fewer than two rows.
    """
    similarity = (features @ features.T).clamp(0, 1)
    rows, columns = torch.triu_indices(len(features), len(features), 1, device=features.device)
    off = similarity[rows, columns]
    return -0.5 * alpha * (off - beta).square().sum() / max(len(off), 1)


def mean_similarity(features: np.ndarray) -> float:
    """Return the mean of g_i . g_j over all i != j, in -1..1, without an (N, N) matrix.

    Args:
        features: (N, D) unit rows, N >= 2.
    """
    total = features.sum(axis=0, dtype=np.float64)
    num = len(features)
    return float((total @ total - num) / (num * (num - 1)))


def check_collapse(features: np.ndarray, limit: float, epoch: int) -> float:
    """Return the mean off-diagonal similarity of the features, and check it for collapse.

    Args:
        features: (N, D) unit rows, N >= 2.
        limit: Maximum mean; 1 turns the check off.
        epoch: Epoch, for the message.

    Raises:
        RuntimeError: The mean is above ``limit``; names the mean, the limit and its key.
    """
    mean = mean_similarity(features)
    if limit < 1 and mean > limit:
        raise RuntimeError(
            f"features have collapsed in epoch {epoch}: the mean off-diagonal similarity of"
            f" {len(features)} images is {mean:.4f}, above"
            f" PSEUDOPAIR.SEPARATION.MAX_SIMILARITY {limit}. Lower SOLVER.BASE_LR or"
            " PSEUDOPAIR.SEPARATION.ALPHA, or start from pre-trained weights"
        )
    return mean


def similarity_quantile(features: np.ndarray, expected: float, num_rows: int = 512) -> float:
    """Return the similarity in 0..1 that ``expected`` other images exceed on average.

    It is estimated in O(N) from ``num_rows`` evenly spaced rows (exact if N <= ``num_rows``). The
    label step uses the exact value of ``unreid.graph.pairs``.

    Args:
        features: (N, D) float32 unit rows.
        expected: Number of other images per image above the value, > 0.
        num_rows: Number of rows, >= 1.
    """
    num = len(features)
    rows = np.unique(np.linspace(0, num - 1, min(num, num_rows)).astype(np.int64))
    block = features[rows] @ features.T
    others = np.ones(block.shape, dtype=bool)
    others[np.arange(len(rows)), rows] = False
    values = block[others]
    place = max(len(values) - max(1, round(expected * len(rows))) - 1, 0)
    return float(np.clip(np.partition(values, place)[place], 0.0, 1.0))
