"""Intra-similarity: several local features of an image by channel attention.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Hu et al., Squeeze-and-Excitation Networks, 2018, https://arxiv.org/abs/1709.01507
[2] Sun et al., Beyond Part Models: Person Retrieval with Refined Part Pooling (PCB), 2018,
    https://arxiv.org/abs/1711.09349 (a separate neck for every part)

Notation: B batch, C channels of the map, D channels of the descriptor, K heads, H x W positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unreid.checks import check_choice, check_integer

#: Inputs of a head.
KINDS = ("patches", "body")
#: Height of a patch relative to H / K; patches overlap.
OVERLAP = 1.5


class ChannelAttention(nn.Module):
    """Channel attention of K heads, a_k = sigmoid(W2 ReLU(W1 x_k)) [1].

    Args:
        in_channels: C.
        num_heads: K.
        out_channels: D, number of weighted channels; C by default.
        reduction: C divided by the width between W1 and W2.
    """

    def __init__(
        self,
        in_channels: int,
        num_heads: int,
        out_channels: int | None = None,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self.num_heads = check_integer("num_heads", num_heads, 1)
        check_integer("reduction", reduction, 1)
        self.out_channels = out_channels or in_channels
        width = max(in_channels // reduction, 4) * num_heads
        self.squeeze = nn.Conv1d(in_channels * num_heads, width, 1, groups=num_heads)
        self.excite = nn.Conv1d(width, self.out_channels * num_heads, 1, groups=num_heads)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return weights (B, K, D) in 0..1 for the inputs x_k of the heads, (B, K, C)."""
        flat = pooled.flatten(1).unsqueeze(2)
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(flat))))
        return weights.view(-1, self.num_heads, self.out_channels).float()


class IntraSimilarity(nn.Module):
    """Compute K local features l_k = normalise(a_k * g_k) of an image [0].

    Unlike the reconstruction l_k = GAP(a_k * F), the weights are applied after pooling and neck.
    Weights per channel commute with pooling. A batch norm after the weights would cancel every
    constant weight.

    Args:
        in_channels: C.
        num_heads: K.
        out_channels: D.
        reduction: See :class:`ChannelAttention`.
        kind: ``"patches"``: input of head k is the k-th of K overlapping horizontal patches of
            height 1.5 H / K, with a separate batch norm [2]; ``"body"``: input of every head is the
            whole body.
    """

    def __init__(
        self,
        in_channels: int,
        num_heads: int,
        out_channels: int | None = None,
        reduction: int = 16,
        kind: str = "patches",
    ) -> None:
        super().__init__()
        self.kind = check_choice("kind", kind, KINDS)
        self.attention = ChannelAttention(in_channels, num_heads, out_channels, reduction)
        self.num_heads = num_heads
        width = self.attention.out_channels
        self.neck: nn.Sequential | None = None
        if kind == "patches":
            norm = nn.BatchNorm1d(width * num_heads)
            norm.bias.requires_grad_(False)
            embed: list[nn.Module] = []
            if width != in_channels:
                embed = [
                    nn.Conv1d(
                        in_channels * num_heads, width * num_heads, 1, groups=num_heads, bias=False
                    )
                ]
            self.neck = nn.Sequential(*embed, norm)

    def forward(
        self, maps: Tensor, body: Tensor, pool: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return local features (B, K, D), unit rows, and the attention weights.

        See :meth:`describe` for the arguments and the weights.
        """
        described, weights = self.describe(maps, body, pool)
        return F.normalize(weights * described, dim=2), weights

    def describe(
        self, maps: Tensor, body: Tensor, pool: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the descriptors of the heads before weighting, and the attention weights.

        Args:
            maps: (B, C, H, W) feature maps.
            body: (B, D) unit rows g of the whole image.
            pool: Pooling layer of the head, (B, C, h, W) -> (B, C, 1, 1).

        Returns:
            g_k (B, K, D), unit rows, and a_k (B, K, D) in 0..1.
        """
        rows = self.rows(maps.shape[2])
        pooled = torch.stack([maps[:, :, top:end].mean(dim=(2, 3)) for top, end in rows], dim=1)
        weights = self.attention(pooled)
        if self.neck is None:
            return body.unsqueeze(1).expand_as(weights), weights
        cut = torch.cat([pool(maps[:, :, top:end]).flatten(1) for top, end in rows], dim=1)
        described = self.neck(cut.unsqueeze(2)).float().view_as(weights)
        return F.normalize(described, dim=2), weights

    def rows(self, height: int) -> list[tuple[int, int]]:
        """Return the row range (start, end) of each head for a map of this height."""
        if self.kind == "body" or self.num_heads == 1:
            return [(0, height)] * self.num_heads
        part = min(round(OVERLAP * height / self.num_heads) or 1, height)
        steps = [k * (height - part) / (self.num_heads - 1) for k in range(self.num_heads)]
        return [(round(step), round(step) + part) for step in steps]


def diversity_loss(attention: Tensor) -> Tensor:
    """Return the mean over images of ||A A^T - I||_F^2, A = [a_1 .. a_K] with unit rows [0].

    It is 0 if no two heads share a channel, K (K - 1) if all heads are equal, and 0 for one head.

    Args:
        attention: (B, K, D) in 0..1.
    """
    unit = F.normalize(attention, dim=2)
    gram = unit @ unit.transpose(1, 2)
    identity = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype)
    return (gram - identity).square().sum(dim=(1, 2)).mean()


def mean_head_cosine(attention: Tensor) -> Tensor:
    """Return the mean absolute cosine of different heads over images, in 0..1; 0 for one head."""
    unit = F.normalize(attention, dim=2)
    gram = (unit @ unit.transpose(1, 2)).abs()
    num = gram.shape[1]
    off = gram.sum(dim=(1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)
    return off.mean() / max(num * (num - 1), 1)
