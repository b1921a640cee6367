"""InfoNCE loss over clusters, with an optional weight per cluster.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: B batch, C clusters; l_i loss of sample i, y_i its cluster, w_k weight of cluster k.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from unreid.checks import check_targets


def cluster_nce(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the InfoNCE loss over clusters, the (weighted) mean of l_i = -log softmax_y.

    With weights it is sum_i w_y l_i / sum_i w_y.

    Unlike the released code of [0], the loss is zero with a gradient instead of NaN if the weights
    of a batch sum to zero (every cluster is in one camera only), or if the batch is empty.

    Args:
        logits: (B, C) floating; half precision is converted to float32.
        targets: (B,) integer in 0..C-1.
        weights: (C,) floating, finite and >= 0, or None for the plain mean.

    Returns:
        () float32, with gradient to ``logits``.

    Raises:
        ValueError: Inconsistent shapes, a target outside 0..C-1, or a weight
            that is negative or not finite.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape (B, C), got {tuple(logits.shape)}")
    if targets.shape != logits.shape[:1]:
        raise ValueError(f"targets must have shape ({len(logits)},), got {tuple(targets.shape)}")
    check_targets("targets", targets, logits.shape[1])
    with torch.autocast(logits.device.type, enabled=False):
        losses = functional.cross_entropy(logits.float(), targets.long(), reduction="none")
    if weights is None:
        return losses.sum() / max(len(losses), 1)
    if weights.shape != logits.shape[1:]:
        raise ValueError(
            f"weights must have shape ({logits.shape[1]},), got {tuple(weights.shape)}"
        )
    if not bool(((weights >= 0) & torch.isfinite(weights)).all()):
        raise ValueError("weights must be finite and >= 0")
    of_sample = weights.detach().to(losses)[targets.long()]
    total = of_sample.sum()
    return (of_sample * losses).sum() / torch.where(total > 0, total, torch.ones_like(total))
