"""Aligns cameras: a discriminator names the camera, the features learn to leave it guessing.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
[1] Ganin, Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015,
    https://arxiv.org/abs/1409.7495

Letters: B images, D channels, M cameras.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -factor [1, Eq. 14-15]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """``features`` unchanged; its gradient comes back times ``-factor``."""
    return _ReverseGradient.apply(features, factor)


def dann_factor(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1 [1, Sec. 5.2.2]: from 0 at p = 0 to nearly 1 at p = 1."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


class CameraAdversary(nn.Module):
    """Linear, BN, ReLU, dropout .5 -> Linear, BN, ReLU -> Linear [0, Sec. III-D].

    Unlike the released program of [0], which feeds a softmax to a loss that takes logits, the
    softmax is taken once.

    Args:
        num_features: D.
        num_cameras: M >= 2.
        hidden: Width of both hidden layers.
    """

    def __init__(self, num_features: int, num_cameras: int, hidden: int = 100) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Linear(num_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, num_cameras),
        )

    def forward(self, features: Tensor, camids: Tensor, factor: float = 1.0) -> Tensor:
        """Cross entropy against the camera; the gradient to ``features`` is reversed.

        Args:
            features: (B, D), unit rows.
            camids: (B,) int64 in 0..M-1.
            factor: Of the reversed gradient, >= 0.
        """
        return F.cross_entropy(self.discriminator(reverse_gradient(features, factor)), camids)
