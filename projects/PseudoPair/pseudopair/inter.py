"""Inter-similarity: align one image to another, then compare their feature maps.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Dai et al., Deformable Convolutional Networks, 2017, https://arxiv.org/abs/1703.06211
[2] Wang et al., Non-local Neural Networks, 2018, https://arxiv.org/abs/1711.07971

Notation: B images or pairs, C channels of the feature map, W channels of the reduced map,
H x W' positions, p a position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from unreid.checks import check_integer

#: Factor of the offsets. The step size of Adam does not depend on the scale of a gradient, so this
#: factor acts as a learning-rate factor.
OFFSET_RATE = 0.1


class InterSimilarity(nn.Module):
    """Similarity s_inter(i, j) = cos(F_i, F_{j->i}) of two feature maps after alignment [0].

    F'_j = DeformConv(F_j) and F_{j->i} = F'_j + g(F'_j) A^T: the non-local block is residual, as
    in [2]. At initialisation the offsets are zero, the deformable convolution and g are the
    identity, and theta equals phi, so that a position attends to similar positions.

    Unlike the reconstruction mean over p of cos(F_i(p), g(F'_j) A^T(p)),

    - positions are weighted by their norm, so that background has little influence;
    - the attention uses cosines with a trained scale; with inner products it is so flat that the
      aligned map is nearly constant;
    - the deformable convolution is depth-wise, and its offsets have a tenth of the learning rate;
      otherwise images of different persons would be aligned until they match.

    Args:
        in_channels: C.
        width: W, channels after the 1x1 reduction.
        kernel: Kernel size of the deformable convolution, odd.
    """

    def __init__(self, in_channels: int, width: int = 128, kernel: int = 3) -> None:
        super().__init__()
        self.width = check_integer("width", width, 2)
        if check_integer("kernel", kernel, 1) % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        inner = max(width // 2, 1)
        self.reduce = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.offsets = nn.Conv2d(2 * width, 2 * kernel**2, 3, padding=1)
        self.deform = DeformConv2d(
            width, width, kernel, padding=kernel // 2, groups=width, bias=False
        )
        self.theta = nn.Conv2d(width, inner, 1, bias=False)
        self.phi = nn.Conv2d(width, inner, 1, bias=False)
        self.value = nn.Conv2d(width, width, 1, bias=False)
        # Scale of the cosines: from the start a position attends to a few others only.
        self.sharpness = nn.Parameter(torch.tensor(15.0))
        # Logit of "same person": steep around the middle of the range of s_inter.
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.shift = nn.Parameter(torch.tensor(-5.0))
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.orthogonal_(self.reduce.weight)
        nn.init.zeros_(self.offsets.weight)
        assert self.offsets.bias is not None
        nn.init.zeros_(self.offsets.bias)
        nn.init.dirac_(self.deform.weight, groups=self.width)
        nn.init.dirac_(self.value.weight)
        nn.init.orthogonal_(self.theta.weight)
        with torch.no_grad():
            self.phi.weight.copy_(self.theta.weight)

    def maps(self, features: Tensor) -> Tensor:
        """Return the reduced maps (B, W, H, W') of feature maps (B, C, H, W')."""
        return self.norm(self.reduce(features)).float()

    def align(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return F_{j->i}, the map of image j aligned to image i.

        Args:
            left: (B, W, H, W') reduced maps of i.
            right: (B, W, H, W') reduced maps of j.

        Returns:
            The aligned map (B, W, H, W'), the offsets (B, 2 kernel^2, H, W') in positions (y before
            x), and the attention (B, H W', H W') of positions of i over positions of j; its rows
            sum to 1.
        """
        # Without autocast, which the deformable convolution does not support.
        with torch.autocast(left.device.type, enabled=False):
            offsets = OFFSET_RATE * self.offsets(torch.cat([left, right], dim=1))
            warped = self.deform(right, offsets)
            query = F.normalize(self.theta(left).flatten(2), dim=1)
            key = F.normalize(self.phi(warped).flatten(2), dim=1)
            attention = torch.softmax(self.sharpness * (query.transpose(1, 2) @ key), dim=2)
            attended = self.value(warped).flatten(2) @ attention.transpose(1, 2)
        return warped + attended.view_as(left), offsets, attention

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return (B,) s_inter in -1..1 of pairs of reduced maps."""
        aligned, _, _ = self.align(left, right)
        return F.cosine_similarity(left.flatten(1), aligned.flatten(1))

    def loss(self, maps: Tensor, pairs: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross entropy of sigmoid(scale s_inter + shift) over pairs of a batch.

        Positives and negatives have half of the total weight each, independent of their numbers.

        Args:
            maps: (B, W, H, W') reduced maps.
            pairs: (M, 2) int64 positions in the batch.
            targets: (M,) 0 or 1.

        Returns:
            A scalar; zero with a gradient if there are no pairs.
        """
        if not len(pairs):
            return maps.sum() * 0 + (self.scale + self.shift) * 0
        similarity = self(maps[pairs[:, 0]], maps[pairs[:, 1]])
        logits = self.scale * similarity + self.shift
        targets = targets.to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        positive, negative = targets.sum(), (1 - targets).sum()
        weights = targets / positive.clamp(min=1) + (1 - targets) / negative.clamp(min=1)
        return (each * weights).sum() / weights.sum()


def choose_pairs(
    similarity: Tensor, positive: Tensor, ignored: Tensor, ratio: int
) -> tuple[Tensor, Tensor]:
    """Return all positive pairs of a batch, and ``ratio`` hard negatives for each of them.

    The negatives of a pair (i, j) are the images most similar to i by the whole-body features.

    Args:
        similarity: (B, B) similarities of the whole-body features.
        positive: (B, B) bool, symmetric: pairs. The diagonal is ignored.
        ignored: (B, B) bool: neither pairs nor negatives (possibly the same person).
        ratio: Negatives per positive, >= 0.

    Returns:
        Pairs of positions (M, 2) int64 and targets (M,) float; positives (i < j) first.
    """
    size = len(similarity)
    upper = torch.ones_like(positive).triu(1)
    places = (positive & upper).nonzero()
    excluded = positive | ignored | torch.eye(size, dtype=torch.bool, device=positive.device)
    hard = similarity.detach().masked_fill(excluded, -torch.inf)
    found, order = hard.sort(dim=1, descending=True)
    anchors = places[:, 0]
    kept = order[anchors, :ratio], found[anchors, :ratio] > -torch.inf
    left = anchors[:, None].expand_as(kept[0])[kept[1]]
    negatives = torch.stack([left, kept[0][kept[1]]], dim=1)
    targets = torch.cat([torch.ones(len(places)), torch.zeros(len(negatives))])
    return torch.cat([places, negatives]), targets.to(similarity.device)
