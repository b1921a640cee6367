"""Triplet loss with the hardest positive and the hardest negative of the batch.

[0] Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017,
    https://arxiv.org/abs/1703.07737

Notation: B batch, D channels; y_a label of anchor a, d Euclidean distance.
"""

from __future__ import annotations

import torch

from unreid.checks import check_number


def hard_triplet(
    features: torch.Tensor, targets: torch.Tensor, margin: float = 0.5
) -> torch.Tensor:
    """Return the mean over anchors a of [margin + max_p d(a, p) - min_n d(a, n)]_+ [0, Eq. 5].

    p are the other samples with the label of a, n the samples with other labels. Anchors without p
    or n are ignored; the loss of a batch without triplets is zero with a gradient.

    Args:
        features: (B, D) floating, of any length; half precision is converted to float32.
        targets: (B,) integer labels.
        margin: >= 0.

    Returns:
        () float32, with gradient to ``features``.

    Raises:
        ValueError: Inconsistent shapes, or a negative margin.
    """
    check_number("margin", margin, 0)
    if features.ndim != 2:
        raise ValueError(f"features must have shape (B, D), got {tuple(features.shape)}")
    if targets.shape != features.shape[:1]:
        raise ValueError(f"targets must have shape ({len(features)},), got {tuple(targets.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        rows = features.float()
        # Computed from differences: 2 - 2 cos of near duplicates is mostly rounding error, and the
        # square root increases it. The gradient at distance zero is zero.
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    same = targets[:, None] == targets[None, :]
    negative = ~same
    positive = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    anchors = positive.any(dim=1) & negative.any(dim=1)
    if not bool(anchors.any()):
        return rows.sum() * 0.0
    distances, positive, negative = distances[anchors], positive[anchors], negative[anchors]
    farthest = distances.masked_fill(~positive, -torch.inf).max(dim=1).values
    nearest = distances.masked_fill(~negative, torch.inf).min(dim=1).values
    return torch.relu(margin + farthest - nearest).mean()
