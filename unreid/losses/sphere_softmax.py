"""Softmax over unit-length class weights without a bias.

[0] Fan et al., SphereReID: Deep Hypersphere Manifold Embedding for Person Re-Identification,
    2018, https://arxiv.org/abs/1807.00537

Notation: B batch, C classes, D channels; v feature, w_j weight of class j, s scale.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from unreid.checks import check_number
from unreid.losses.cluster_nce import cluster_nce


def sphere_softmax(
    features: torch.Tensor, weights: torch.Tensor, targets: torch.Tensor, scale: float = 14.0
) -> torch.Tensor:
    """Return the mean cross entropy of the logits s v . w_j / ||w_j|| [0, Eq. 3].

    Features are not normalised: unit rows give s cos, other rows multiply the logits by their norm.

    Args:
        features: (B, D) floating; half precision is converted to float32.
        weights: (C, D) floating; only directions count. A row of zeros has logit 0.
        targets: (B,) integer in 0..C-1.
        scale: s > 0.

    Returns:
        () float32, with gradient to ``features`` and ``weights``.

    Raises:
        ValueError: Inconsistent shapes, a target outside 0..C-1, or s <= 0.
    """
    check_number("scale", scale, 0, open_minimum=True)
    if features.ndim != 2 or weights.ndim != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(
            "features and weights must have shapes (B, D) and (C, D), got"
            f" {tuple(features.shape)} and {tuple(weights.shape)}"
        )
    with torch.autocast(features.device.type, enabled=False):
        logits = scale * features.float() @ functional.normalize(weights.float()).t()
    return cluster_nce(logits, targets)
