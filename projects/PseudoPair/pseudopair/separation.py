"""Pairwise gradient-guided similarity separation: what is similar is drawn together.

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
    """-(alpha / 2) mean over i != j of (s_ij - beta)^2, s_ij = clip(g_i . g_j, 0, 1).

    The gradient towards one s_ij is -alpha (s_ij - beta) over their number: its sign says
    whether a pair attracts (s > beta) or repels, its size how surely [1]. Clipped, s cannot run
    away, and the loss stays within -alpha / 2 .. 0.

    Args:
        features: (B, D), unit rows.
        beta: In 0..1.
        alpha: >= 0.

    Returns:
        A scalar; zero, still on the graph, for fewer than two rows.
    """
    similarity = (features @ features.T).clamp(0, 1)
    rows, columns = torch.triu_indices(len(features), len(features), 1, device=features.device)
    off = similarity[rows, columns]
    return -0.5 * alpha * (off - beta).square().sum() / max(len(off), 1)


def mean_similarity(features: np.ndarray) -> float:
    """Mean of g_i . g_j over all i != j, in -1..1, without forming them.

    Args:
        features: (N, D) unit rows, N >= 2.
    """
    total = features.sum(axis=0, dtype=np.float64)
    num = len(features)
    return float((total @ total - num) / (num * (num - 1)))


def refuse_collapse(features: np.ndarray, limit: float, epoch: int) -> float:
    """The mean off-diagonal similarity of a bank; an error where it passes a ``limit`` below 1.

    Raises:
        RuntimeError: names the mean, the limit and its key.
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
    """The similarity that ``expected`` other images pass on average, in 0..1.

    Estimated from ``num_rows`` rows at equal distances with all others (exact where N is no
    more), so that it costs O(N). Label mining takes the exact one of ``unreid.graph.pairs``.

    Args:
        features: (N, D) float32 unit rows.
        expected: Others per image above it, > 0.
        num_rows: Rows looked at, >= 1.
    """
    num = len(features)
    rows = np.unique(np.linspace(0, num - 1, min(num, num_rows)).astype(np.int64))
    block = features[rows] @ features.T
    others = np.ones(block.shape, dtype=bool)
    others[np.arange(len(rows)), rows] = False
    values = block[others]
    place = max(len(values) - max(1, round(expected * len(rows))) - 1, 0)
    return float(np.clip(np.partition(values, place)[place], 0.0, 1.0))
