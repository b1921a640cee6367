"""Intra-similarity: channel attention finds several views of one image.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Hu et al., Squeeze-and-Excitation Networks, 2018, https://arxiv.org/abs/1709.01507

Letters: B batch, C channels of the map, D channels of the descriptor, K heads, H x W positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unreid.checks import check_integer


class ChannelAttention(nn.Module):
    """K heads a_k = sigmoid(W2 ReLU(W1 GAP(F))) [1].

    Args:
        in_channels: C.
        num_heads: K.
        out_channels: D, the channels that are weighted; C where the neck keeps them.
        reduction: C over the width between W1 and W2.
    """

    def __init__(
        self, in_channels: int, num_heads: int, out_channels: int | None = None,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self.num_heads = check_integer("num_heads", num_heads, 1)
        check_integer("reduction", reduction, 1)
        self.out_channels = out_channels or in_channels
        width = max(in_channels // reduction, 4) * num_heads
        self.squeeze = nn.Conv1d(in_channels * num_heads, width, 1, groups=num_heads)
        self.excite = nn.Conv1d(width, self.out_channels * num_heads, 1, groups=num_heads)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) map -> (B, K, D) weights in 0..1."""
        pooled = features.mean(dim=(2, 3)).repeat(1, self.num_heads).unsqueeze(2)
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
        return weights.view(len(features), self.num_heads, self.out_channels).float()


def local_features(attention: Tensor, descriptor: Tensor) -> Tensor:
    """l_k = normalise(a_k * g): (B, K, D) unit rows of the heads.

    Unlike the reconstruction l_k = GAP(a_k * F), the weights act behind pooling and neck. A
    weight per channel and the pooling commute, so only the neck makes a difference: its batch
    norm, if it came after, would divide every constant weight out again.

    Args:
        attention: (B, K, D) in 0..1.
        descriptor: (B, D) g, unit rows.
    """
    return F.normalize(attention * descriptor.unsqueeze(1), dim=2)


def diversity_loss(attention: Tensor) -> Tensor:
    """Mean over images of ||A A^T - I||_F^2, A = [a_1 .. a_K] with unit rows [0].

    0 where no two heads weigh a channel both, K (K - 1) where all are alike; 0 for one head.

    Args:
        attention: (B, K, D) in 0..1.
    """
    unit = F.normalize(attention, dim=2)
    gram = unit @ unit.transpose(1, 2)
    identity = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype)
    return (gram - identity).square().sum(dim=(1, 2)).mean()


def mean_head_cosine(attention: Tensor) -> Tensor:
    """Mean absolute cosine between two different heads, over images, in 0..1; 0 for one head."""
    unit = F.normalize(attention, dim=2)
    gram = (unit @ unit.transpose(1, 2)).abs()
    num = gram.shape[1]
    off = gram.sum(dim=(1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)
    return off.mean() / max(num * (num - 1), 1)
