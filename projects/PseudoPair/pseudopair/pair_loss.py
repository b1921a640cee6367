"""L_pair: the images of a pair attract, all other images repel.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Zhuang et al., Local Aggregation for Unsupervised Learning of Visual Embeddings, ICCV 2019,
    https://arxiv.org/abs/1903.12355 (neighbours in a memory of instances)

Notation: N images, B batch, at most R partners, G groups (the whole body and K heads), D channels,
M sampled rows; s similarity, beta its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pseudopair.losses import pair_nce
from pseudopair.memory import RowMemory, RowSample
from pseudopair.surrogate import is_partner
from unreid.structures import PseudoPairs


@dataclass(frozen=True)
class Partners:
    """Table of the partners of every image.

    Attributes:
        indices: (N, R) int64; -1 if an image has fewer than R partners.
        weights: (N, R) float32, confidence divided by the mean confidence of all pairs; 0 for -1.
    """

    indices: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Partners:
        """Return the table on a device."""
        return Partners(self.indices.to(device), self.weights.to(device))

    def of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return partners and weights (B, R) of images (B,)."""
        return self.indices[images], self.weights[images]


def partner_table(pairs: PseudoPairs, num_images: int, *, by_confidence: bool) -> Partners:
    """Return the table of partners, with both directions of every pair.

    Args:
        pairs: M pairs; M may be 0.
        num_images: N.
        by_confidence: Whether the weight of a pair is |s - beta| divided by the mean; else 1.
    """
    images = np.concatenate([pairs.indices[:, 0], pairs.indices[:, 1]])
    partners = np.concatenate([pairs.indices[:, 1], pairs.indices[:, 0]])
    mean = float(pairs.confidence.mean()) if len(pairs) else 0.0
    relative = pairs.confidence / mean if by_confidence and mean > 0 else None
    weights = np.ones(len(pairs), np.float32) if relative is None else relative
    order = np.argsort(images, kind="stable")
    counts = np.bincount(images, minlength=num_images)
    places = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((num_images, int(counts.max(initial=0))), -1, dtype=np.int64)
    shares = np.zeros(table.shape, dtype=np.float32)
    table[images[order], places] = partners[order]
    shares[images[order], places] = np.tile(weights, 2)[order]
    return Partners(torch.from_numpy(table), torch.from_numpy(shares))


def memory_pair_loss(
    features: Tensor,
    indices: Tensor,
    partners: Tensor,
    weights: Tensor,
    memory: RowMemory,
    sample: RowSample,
    *,
    temperature: float,
    beta: Tensor | float | None,
) -> Tensor:
    """Return the InfoNCE loss of each group with a memory of all images.

    Positives are the memory rows of the image itself, with weight 1, and of its partners. An image
    without a pair is therefore its own class. Images that are not a pair but more similar than beta
    are neither positives nor negatives, because s > beta indicates a positive [0].

    Args:
        features: (B, G, D) unit rows; group 0 is the whole body, whose similarity is compared with
            beta.
        indices: (B,) int64 images.
        partners: (B, R) of :meth:`Partners.of`.
        weights: (B, R) of :meth:`Partners.of`.
        memory: Memory of (G, N, D) rows.
        sample: Memory rows that are used as negatives.
        temperature: tau > 0.
        beta: Threshold in 0..1, or None to use all images that are not partners as negatives.

    Returns:
        (G,) losses.
    """
    images = torch.cat([indices[:, None], partners.clamp(min=0)], dim=1)
    attracted = memory.rows[:, images]
    positives = torch.einsum("bgd,gbrd->gbr", features, attracted) / temperature
    # Matrix product of transposed views; einsum would copy all rows.
    negatives = features.transpose(0, 1) @ memory.rows_of(sample).transpose(1, 2)
    others = (sample.indices != indices[:, None]) & ~is_partner(sample.indices, partners)
    correction = sample.correction(others, 1 + (partners >= 0).sum(1))
    keep = others if beta is None else others & (negatives[0].detach() <= beta)
    shares = torch.cat([weights.new_ones(len(indices), 1), weights], dim=1)
    return torch.stack(
        [
            pair_nce(p, shares, n / temperature, keep, correction)
            for p, n in zip(positives, negatives)
        ]
    )


def batch_pair_loss(
    features: Tensor,
    positive: Tensor,
    weights: Tensor,
    *,
    temperature: float,
    beta: Tensor | float | None,
) -> Tensor:
    """Return the InfoNCE loss of each group within a batch, without a memory.

    Negatives are the other images of the batch; the gradient flows through them, too.

    Args:
        features: (B, G, D) unit rows.
        positive: (B, B) bool; the diagonal is ignored.
        weights: (B, B) weights of the positives.
        temperature: tau > 0.
        beta: See :func:`memory_pair_loss`.

    Returns:
        (G,) losses; zeros with a gradient for a batch without a pair.
    """
    similarity = torch.einsum("bgd,cgd->gbc", features, features)
    apart = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    keep = ~positive & apart
    if beta is not None:
        keep &= similarity[0].detach() <= beta
    shares = weights * (positive & apart)
    return torch.stack(
        [pair_nce(s / temperature, shares, s / temperature, keep) for s in similarity]
    )


def relations(indices: Tensor, partners: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return which positions of a batch are a pair or the same image, and their weights.

    Args:
        indices: (B,) int64 images, possibly with repetitions.
        partners: (B, R) of :meth:`Partners.of`.
        weights: (B, R) of :meth:`Partners.of`.

    Returns:
        (B, B) bool and (B, B) weights.
    """
    same = indices[:, None] == indices
    shares = same.to(weights.dtype)
    for partner, weight in zip(partners.unbind(1), weights.unbind(1)):
        shares = torch.where(partner[:, None] == indices, weight[:, None], shares)
    return same | is_partner(indices, partners), shares
