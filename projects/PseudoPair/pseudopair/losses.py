"""InfoNCE with several positives; each is compared with the negatives only.

[0] van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018,
    https://arxiv.org/abs/1807.03748

Notation: G groups, B anchors, at most R positives and M negatives; w weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Used as log 0: below all logits but finite, so that gradients are finite.
_LOG_ZERO = -1e9


def pair_nce(
    positives: Tensor,
    weights: Tensor,
    negatives: Tensor,
    keep: Tensor,
    correction: Tensor | float = 0.0,
) -> Tensor:
    """Return the mean over groups and anchors of -(1 / sum_p w_p) sum_p w_p log softmax_p.

    softmax_p = exp(s_p) / (exp(s_p) + sum_j exp(s_j + c)) over the negatives j [0, Eq. 4]. The
    positives of an anchor are not in each other's denominator, so they do not repel each other.

    Args:
        positives: (..., B, R) logits.
        weights: (B, R) >= 0; 0 for a padded entry. Anchors without a positive are ignored.
        negatives: (..., B, M) logits.
        keep: (B, M) bool mask of the negatives that are used. An anchor without any has loss 0.
        correction: c, broadcast over (B, M): log of the number of negatives that a sampled column
            represents.

    Returns:
        A scalar >= 0; without any positive a zero with a gradient.
    """
    bottom = torch.logsumexp(torch.where(keep, negatives + correction, _LOG_ZERO), dim=-1)
    each = F.softplus(bottom.unsqueeze(-1) - positives)
    total = weights.sum(-1)
    mean = (each * weights).sum(-1) / total.clamp(min=1e-12)
    anchors = (total > 0).to(mean.dtype)
    groups = mean.numel() // max(mean.shape[-1], 1)
    return (mean * anchors).sum() / (anchors.sum().clamp(min=1) * max(groups, 1))
