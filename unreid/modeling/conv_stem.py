"""Patch embeddings in place of timm's: the convolution stem of TransReID-SSL, overlapping patches.

[0] Luo et al., Self-Supervised Pre-Training for Transformer-Based Person Re-Identification, 2021,
    arXiv 2111.12084: the IBN-based convolution stem (ICS). Names as in its released program.
[1] He et al., TransReID, ICCV 2021, arXiv 2102.04378: overlapping patches.

Notation: B images, C channels, h x w patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class IBN(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the second.

    Args:
        channels: Number of channels, even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.num_instance)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape, (B, channels, H, W)."""
        first, second = x[:, : self.num_instance], x[:, self.num_instance :]
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], 1)


class _Patches(nn.Module):
    """What timm's vision transformer reads of a patch embedding.

    Args:
        img_size: (height, width) of an image, or both.
        patch_size: Edge of a patch in pixels.
        stride: Pixels between patches.
        dynamic: Whether the output is a map, (B, h, w, C), for images of any size.
    """

    def __init__(self, img_size: Any, patch_size: Any, stride: int, dynamic: bool) -> None:
        super().__init__()
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        edge = patch_size if isinstance(patch_size, int) else patch_size[0]
        self.img_size, self.patch_size = size, (edge, edge)
        self.stride, self.dynamic = stride, dynamic
        self.grid_size = self.dynamic_feat_size(size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of an image."""
        height, width = ((s - p) // self.stride + 1 for s, p in zip(img_size, self.patch_size))
        return height, width

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Return pixels per cell of the map."""
        return self.stride if as_scalar else (self.stride, self.stride)

    def _check(self, images: Tensor) -> None:
        if not self.dynamic and tuple(images.shape[-2:]) != self.img_size:
            raise ValueError(
                f"images must be {self.img_size[0]} x {self.img_size[1]} (INPUT.SIZE_TRAIN), got"
                f" {images.shape[-2]} x {images.shape[-1]}"
            )

    def _shaped(self, patches: Tensor) -> Tensor:
        return patches.permute(0, 2, 3, 1) if self.dynamic else patches.flatten(2).transpose(1, 2)


class ConvStem(_Patches):
    """7x7/2, IBN, ReLU, 3x3, IBN, ReLU, 3x3, BN, ReLU, and a projection of 8 x 8 [0].

    Args:
        img_size, patch_size, in_chans, embed_dim, bias: As timm's ``PatchEmbed``.
        output_fmt: Given by timm where images of any size come.
        settings: Other arguments of timm, without effect.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        output_fmt: str | None = None,
        **settings: Any,
    ) -> None:
        edge = patch_size if isinstance(patch_size, int) else patch_size[0]
        super().__init__(img_size, patch_size, edge, output_fmt is not None)
        hidden = 64
        self.conv = nn.Sequential(
            nn.Conv2d(in_chans, hidden, 7, stride=2, padding=3, bias=False),
            IBN(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            IBN(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        self.proj = nn.Conv2d(hidden, embed_dim, edge // 2, stride=edge // 2, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, h w, C), or (B, h, w, C) where images of any size come."""
        self._check(images)
        return self._shaped(self.proj(self.conv(images)))


class OverlappingPatches(_Patches):
    """Patches with a stride below their size [1]; the weights are those of plain patches.

    Args:
        stride: Pixels between patches.
        others: See :class:`ConvStem`.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        *,
        stride: int,
        **others: Any,
    ) -> None:
        super().__init__(img_size, patch_size, stride, dynamic=False)
        self.proj = nn.Conv2d(in_chans, embed_dim, self.patch_size[0], stride=stride, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, h w, C)."""
        self._check(images)
        return self._shaped(self.proj(images))
