"""InfoNCE with several positives, each against the negatives alone.

[0] van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018,
    https://arxiv.org/abs/1807.03748

Notation: G groups, B anchors, R positives at most, M negatives at most; w weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Stands for log 0: far below any logit, and still finite, so that gradients stay numbers.
_NOTHING = -1e9


def pair_nce(
    positives: Tensor,
    weights: Tensor,
    negatives: Tensor,
    keep: Tensor,
    correction: Tensor | float = 0.0,
) -> Tensor:
    """Mean over groups and anchors of -(1 / sum_p w_p) sum_p w_p log softmax_p.

    softmax_p = exp(s_p) / (exp(s_p) + sum_j exp(s_j + c)) over the negatives j [0, Eq. 4]: the
    positives of an anchor do not push one another away.

    Args:
        positives: (..., B, R) logits.
        weights: (B, R) >= 0; 0 is no positive. An anchor without any is left out.
        negatives: (..., B, M) logits.
        keep: (B, M) bool, which of them count. An anchor without any costs nothing.
        correction: c, to be broadcast over (B, M): the log of how many one column stands for.

    Returns:
        A scalar >= 0; without any positive a zero that is still on the graph.
    """
    bottom = torch.logsumexp(torch.where(keep, negatives + correction, _NOTHING), dim=-1)
    each = F.softplus(bottom.unsqueeze(-1) - positives)
    total = weights.sum(-1)
    mean = (each * weights).sum(-1) / total.clamp(min=1e-12)
    anchors = (total > 0).to(mean.dtype)
    groups = mean.numel() // max(mean.shape[-1], 1)
    return (mean * anchors).sum() / (anchors.sum().clamp(min=1) * max(groups, 1))
