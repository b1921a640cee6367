"""Inter-similarity: one image aligned to another, then compared place by place.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Dai et al., Deformable Convolutional Networks, 2017, https://arxiv.org/abs/1703.06211
[2] Wang et al., Non-local Neural Networks, 2018, https://arxiv.org/abs/1711.07971

Notation: B images or pairs, C channels of the backbone's map, W channels of the reduced one,
H x W' positions, p one of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from unreid.checks import check_integer

#: Of the offsets: Adam's steps have one length, so a factor here is a rate.
OFFSET_RATE = 0.1


class InterSimilarity(nn.Module):
    """s_inter(i, j) = cos(F_i, F_{j->i}) [0], of the aligned maps as a whole.

    F'_j = DeformConv(F_j), F_{j->i} = F'_j + g(F'_j) A^T: the non-local block adds to what stands
    there already, as in [2]. It starts as a plain comparison: the offsets are zero, the deformable
    convolution and g are the identity, theta and phi are alike, so that a place attends to what
    looks like it.

    Other than in the reconstruction mean over p of cos(F_i(p), g(F'_j) A^T(p)),

    - a place counts as much as it is active: empty background does not outvote a person;
    - the attention is that of cosines, sharpened by a factor that is learned: of plain products it
      is so flat that the aligned map is nearly the same everywhere;
    - the deformable convolution is one per channel, and its offsets learn at a tenth of the rate:
      pairs that are none would otherwise be aligned until they match.

    Args:
        in_channels: C.
        width: W, after the 1x1 reduction.
        kernel: Odd side of the deformable convolution.
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
        # Of the attention's cosines: a place looks at a few others from the start.
        self.sharpness = nn.Parameter(torch.tensor(15.0))
        # s -> logit of "one person": steep around the middle of the scale.
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.shift = nn.Parameter(torch.tensor(-5.0))
        self._start()

    def _start(self) -> None:
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
        """(B, C, H, W') map of the backbone -> (B, W, H, W') reduced map, once per image."""
        return self.norm(self.reduce(features)).float()

    def align(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F_{j->i}: what of image j stands where image i is.

        Args:
            left, right: (B, W, H, W') reduced maps of i and j.

        Returns:
            The aligned map (B, W, H, W'), the offsets (B, 2 kernel^2, H, W') in cells (y before
            x), and the attention (B, H W', H W') of places of i over places of j, rows of sum 1.
        """
        # In the maps' precision, also under autocast, which the deformable part does not know.
        with torch.autocast(left.device.type, enabled=False):
            offsets = OFFSET_RATE * self.offsets(torch.cat([left, right], dim=1))
            warped = self.deform(right, offsets)
            query = F.normalize(self.theta(left).flatten(2), dim=1)
            key = F.normalize(self.phi(warped).flatten(2), dim=1)
            attention = torch.softmax(self.sharpness * (query.transpose(1, 2) @ key), dim=2)
            attended = self.value(warped).flatten(2) @ attention.transpose(1, 2)
        return warped + attended.view_as(left), offsets, attention

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(B,) s_inter in -1..1 of pairs of reduced maps."""
        aligned, _, _ = self.align(left, right)
        return F.cosine_similarity(left.flatten(1), aligned.flatten(1))

    def loss(self, maps: Tensor, pairs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross entropy of sigmoid(scale s_inter + shift) over chosen pairs of a batch.

        Positives and negatives have one half of the weight each, however many there are.

        Args:
            maps: (B, W, H, W') reduced maps.
            pairs: (M, 2) int64 places in the batch.
            targets: (M,) 0 or 1.

        Returns:
            A scalar; zero, still on the graph, without pairs.
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
    """All positive pairs of a batch, and for each ``ratio`` mined negatives.

    The negatives of a pair (i, j) are those others of i that are most similar to it: the ones
    that a comparison of whole images confuses.

    Args:
        similarity: (B, B) of the whole-body features.
        positive: (B, B) bool, symmetric: pairs. Its diagonal is not looked at.
        ignored: (B, B) bool, neither pairs nor negatives (one person, or unsure).
        ratio: Negatives per positive, >= 0.

    Returns:
        places (M, 2) int64 and targets (M,) float: positives (i < j) first.
    """
    size = len(similarity)
    upper = torch.ones_like(positive).triu(1)
    places = (positive & upper).nonzero()
    barred = positive | ignored | torch.eye(size, dtype=torch.bool, device=positive.device)
    hard = similarity.detach().masked_fill(barred, -torch.inf)
    found, order = hard.sort(dim=1, descending=True)
    anchors = places[:, 0]
    kept = order[anchors, :ratio], found[anchors, :ratio] > -torch.inf
    left = anchors[:, None].expand_as(kept[0])[kept[1]]
    negatives = torch.stack([left, kept[0][kept[1]]], dim=1)
    targets = torch.cat([torch.ones(len(places)), torch.zeros(len(negatives))])
    return torch.cat([places, negatives]), targets.to(similarity.device)
