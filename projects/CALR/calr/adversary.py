"""Align cameras: a discriminator predicts the camera, reversed gradients train the features.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
[1] Ganin, Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015,
    https://arxiv.org/abs/1409.7495

Notation: B images, D channels, M cameras, z logits, e epoch, E epochs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ReverseGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by -factor [1, Eq. 14-15]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """Return ``features`` unchanged; multiply their gradient by ``-factor``."""
    return _ReverseGradient.apply(features, factor)


def dann_factor(progress: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1 [1, Sec. 5.2.2]: 0 at p = 0, .99991 at p = 1."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def reversal_factor(
    epoch: int, num_epochs: int, epochs: tuple[int, int], factor: float, schedule: str
) -> float:
    """Return the factor of the reversed gradient in one epoch.

    ``"constant"``: ``factor``. ``"dann"``: ``factor`` times :func:`dann_factor` of
    p = (e - start) / (end - start), so that it grows from 0 over the epochs with alignment.

    Unlike [1], p increases per epoch instead of per iteration.

    Args:
        epoch: e, from 0; outside of the epochs with alignment p is clipped to 0..1.
        num_epochs: E, used if the end is -1.
        epochs: (start, end) of the alignment, end excluded.
        factor: Largest factor, >= 0.
        schedule: ``"constant"`` or ``"dann"``.
    """
    if schedule == "constant":
        return factor
    start, end = epochs[0], num_epochs if epochs[1] < 0 else epochs[1]
    progress = (epoch - start) / max(end - start, 1)
    return factor * dann_factor(min(max(progress, 0.0), 1.0))


class CameraAdversary(nn.Module):
    """Linear, BN, ReLU, dropout .5 -> Linear, BN, ReLU -> Linear [0, Sec. III-D].

    The loss in the paper is the cross entropy -log softmax(z)_c. The released code of [0] applies a
    softmax to z before a loss with its own softmax: -log softmax(softmax(z))_c. If the
    discriminator is undecided, its gradient at the features is 1 / M of that of the first loss; if
    the discriminator is certain, both gradients vanish.

    Args:
        num_features: D.
        num_cameras: M >= 2.
        hidden: Width of both hidden layers.
        softmax_twice: Compute the loss as the released code does.
    """

    def __init__(
        self, num_features: int, num_cameras: int, hidden: int = 100, softmax_twice: bool = False
    ) -> None:
        super().__init__()
        self.softmax_twice = softmax_twice
        self.discriminator = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_cameras),
        )

    def forward(self, features: Tensor, camids: Tensor, factor: float = 1.0) -> Tensor:
        """Return the cross entropy against the camera; reverse the gradient of ``features``.

        Args:
            features: (B, D), unit rows.
            camids: (B,) int64 in 0..M-1.
            factor: Factor of the reversed gradient, >= 0.

        Returns:
            Scalar mean over the batch.
        """
        logits = self.discriminator(reverse_gradient(features, factor))
        if self.softmax_twice:
            logits = logits.softmax(dim=1)
        return F.cross_entropy(logits, camids)
