"""Patch surrogate classes: all augmentations of a patch of an image are one class.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
[1] Dosovitskiy et al., Discriminative Unsupervised Feature Learning with Exemplar Convolutional
    Neural Networks, 2014, https://arxiv.org/abs/1406.6909
[2] Yang et al., Patch-Based Discriminative Feature Learning for Unsupervised Person
    Re-identification, CVPR 2019 (PatchNet: stripes, 128 channels each).

Notation: N images, B batch, C channels of the map, P patches, d channels of a patch, M sampled
memory rows, R partners; T(p)_i^k patch k of the augmented image i, w_i^k its memory row, tau
temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from pseudopair.losses import pair_nce
from pseudopair.memory import RowMemory, RowSample
from unreid.checks import check_choice, check_integer, check_number

#: Kinds of patches.
KINDS = ("stripes", "crops")
#: Range of the height and width of a crop, relative to the map.
_CROP_HEIGHT, _CROP_WIDTH = (0.25, 0.5), (0.6, 1.0)


def crop_boxes(indices: Tensor, num_patches: int, height: int, width: int) -> Tensor:
    """Return (B P, 5) boxes (position in the batch, x1, y1, x2, y2) in cells of a map.

    Box k of image i is a pseudo-random function of (i, k). It is the same in every epoch and on
    every device, and is not stored.

    Args:
        indices: (B,) int64 images.
        num_patches: P.
        height: Height of the map.
        width: Width of the map.
    """
    keys = indices[:, None] * num_patches + torch.arange(num_patches, device=indices.device)
    shares = torch.stack([_uniform(keys.reshape(-1) * 4 + axis) for axis in range(4)], dim=1)
    low = torch.tensor([_CROP_HEIGHT[0], _CROP_WIDTH[0]], device=shares.device)
    high = torch.tensor([_CROP_HEIGHT[1], _CROP_WIDTH[1]], device=shares.device)
    size = low + (high - low) * shares[:, :2]
    start = (1 - size) * shares[:, 2:]
    cells = torch.tensor([height, width], device=shares.device)
    (y1, x1), (y2, x2) = (start * cells).unbind(1), ((start + size) * cells).unbind(1)
    places = torch.arange(len(indices), device=indices.device).repeat_interleave(num_patches)
    return torch.stack([places.float(), x1, y1, x2, y2], dim=1)


def _uniform(keys: Tensor) -> Tensor:
    """Hash int64 keys to float32 in 0..1, with equal results on every device."""
    mixed = keys & 0x7FFFFFFF
    for factor in (0x45D9F3B, 0x119DE1F3, 0x45D9F3B):
        mixed = ((mixed ^ (mixed >> 16)) * factor) & 0x7FFFFFFF
    return ((mixed ^ (mixed >> 15)) & 0xFFFFFF).float() / 0xFFFFFF


class SurrogateClasses(nn.Module):
    """Surrogate classes with a memory row per image and patch, and their loss L_sur [0].

    L_sur is an InfoNCE loss: the positive of a patch is the memory row of its own image, the
    negatives are the rows of M other images. Patches are cut from the feature map, so that one
    forward pass gives all of them. The random augmentations T are the training transforms
    (``INPUT.*``) of the whole image ([R] in the README: not specified by [0]).

    Args:
        in_channels: C.
        num_patches: P.
        kind: ``"stripes"``, P horizontal stripes [2], or ``"crops"``, P fixed boxes per image.
        num_features: d.
        temperature: tau > 0.
        momentum: Weight of the old row in an update of the memory, in 0..1.
        num_negatives: M, sampled in every step. With 0 all N are used and the loss is that of [0];
            otherwise it is a sampled softmax with an unbiased estimate of the denominator.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_patches: int = 6,
        kind: str = "stripes",
        num_features: int = 128,
        temperature: float = 0.1,
        momentum: float = 0.2,
        num_negatives: int = 4096,
    ) -> None:
        super().__init__()
        self.num_patches = check_integer("num_patches", num_patches, 1)
        self.kind = check_choice("kind", kind, KINDS)
        self.temperature = check_number("temperature", temperature, 0, open_minimum=True)
        self.num_negatives = check_integer("num_negatives", num_negatives, 0)
        self.embed = nn.Conv1d(
            in_channels * num_patches, num_features * num_patches, 1, groups=num_patches, bias=False
        )
        self.norm = nn.BatchNorm1d(num_features * num_patches)
        self.memory = RowMemory(num_patches, num_features, momentum=momentum, saved=True)

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        """Return (B, P, d) unit rows of patches for maps (B, C, H, W) of images (B,)."""
        num, channels, height, width = features.shape
        if self.kind == "stripes":
            cut = F.adaptive_avg_pool2d(features, (self.num_patches, 1))[..., 0].transpose(1, 2)
        else:
            boxes = crop_boxes(indices, self.num_patches, height, width)
            cut = roi_align(features.float(), boxes, 1, aligned=True)
        flat = cut.reshape(num, self.num_patches * channels, 1)
        embedded = self.norm(self.embed(flat)).float()
        return F.normalize(embedded.view(num, self.num_patches, -1), dim=2)

    def loss(
        self,
        patches: Tensor,
        indices: Tensor,
        partners: Tensor | None = None,
        sample: RowSample | None = None,
    ) -> Tensor:
        """Return L_sur [0] of a batch.

        Args:
            patches: (B, P, d) of :meth:`forward`.
            indices: (B,) int64 images.
            partners: (B, R) int64 pairs of each image, padded with -1; excluded from the negatives.
            sample: Memory rows used as negatives; sampled if None.

        Returns:
            A scalar. Images without an initialised row are neither anchors nor negatives.
        """
        memory = self.memory
        if not self.ready:
            return patches.sum() * 0
        sample = sample or memory.sample(self.num_negatives)
        return row_nce(patches, indices, memory, sample, self.temperature, partners)

    @property
    def ready(self) -> bool:
        """Whether the memory is initialised."""
        return len(self.memory) > 0

    def fill(self, num_images: int, extracted: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Initialise the memory from extracted patches; does nothing if it is already initialised.

        Rows are standardised over all images, as batch norm does in training, because its running
        statistics are not meaningful before the first step.

        Args:
            num_images: N.
            extracted: Batches of (indices (B,), patches (B, P, d) of :meth:`forward`) on the CPU.
                Images that are in no batch get rows of zeros.
        """
        if self.ready:
            return
        width = self.memory.num_features
        rows = torch.zeros(num_images, self.num_patches, width)
        for indices, patches in extracted:
            # An image and its flip are extracted separately; their features are added.
            rows.index_add_(0, indices, patches)
        known = rows.abs().sum(dim=(1, 2)) > 0
        if known.sum() > 1:
            seen = F.normalize(rows[known], dim=2)
            rows[known] = (seen - seen.mean(0)) / seen.std(0).clamp(min=1e-6)
        self.memory.reset(rows.transpose(0, 1))

    def extra_repr(self) -> str:
        return (
            f"kind={self.kind!r}, temperature={self.temperature},"
            f" num_negatives={self.num_negatives}"
        )


def row_nce(
    features: Tensor,
    indices: Tensor,
    memory: RowMemory,
    sample: RowSample,
    temperature: float,
    partners: Tensor | None = None,
) -> Tensor:
    """Return the InfoNCE loss of each image with its memory row, averaged over groups and batch.

    Args:
        features: (B, G, D) unit rows.
        indices: (B,) int64 images.
        memory: Memory of (G, N, D) rows.
        sample: Memory rows that are used as negatives.
        temperature: tau > 0.
        partners: (B, R) int64 images that are excluded from the negatives, padded with -1.
    """
    own = memory.rows[:, indices].transpose(0, 1)
    positives = (features * own).sum(2).T.unsqueeze(2) / temperature
    rows = memory.rows_of(sample)
    negatives = features.transpose(0, 1) @ rows.transpose(1, 2) / temperature
    others = sample.indices != indices[:, None]
    excluded: Tensor | int = 1
    if partners is not None:
        others &= ~is_partner(sample.indices, partners)
        excluded = 1 + (partners >= 0).sum(1)
    correction = sample.correction(others, excluded)
    known = rows[0].abs().sum(1) > 0
    weights = (own[:, :1].abs().sum(2) > 0).float()
    return pair_nce(positives, weights, negatives, others & known, correction)


def is_partner(images: Tensor, partners: Tensor) -> Tensor:
    """Return (B, M) bool: whether ``images[m]`` is one of the partners (B, R) of anchor b."""
    found = torch.zeros(len(partners), len(images), dtype=torch.bool, device=images.device)
    for partner in partners.unbind(1):
        found |= images == partner[:, None]
    return found
