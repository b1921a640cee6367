"""Position embeddings of a vision transformer for another image size.

Notation: T prefix tokens (class, part or register tokens), N = h w patches, C channels.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, cat

#: Height : width of images that published transformers are trained on, the square first.
RATIOS = (1, 2, 3)


def source_grid(num_patches: int) -> tuple[int, int]:
    """Return the (height, width) in patches of N patches: 1:1, else 2:1, else 3:1.

    Raises:
        ValueError: No grid of these ratios has N patches.
    """
    for ratio in RATIOS:
        width = math.isqrt(num_patches // ratio) if num_patches > 0 else 0
        if width and ratio * width * width == num_patches:
            return ratio * width, width
    raise ValueError(
        f"a position embedding must be of a grid of 1:1, 2:1 or 3:1 patches, got {num_patches}"
    )


def resize_positions(
    positions: Tensor,
    grid: tuple[int, int],
    *,
    num_prefix: int = 1,
    mode: str = "bicubic",
) -> Tensor:
    """Interpolate position embeddings to another grid.

    Args:
        positions: (1, T + N, C) float.
        grid: (height, width) in patches of the network.
        num_prefix: T, whose embeddings stay as they are.
        mode: "bicubic", with anti-aliasing as timm does, or "bilinear" as fast-reid.

    Returns:
        (1, T + height * width, C); ``positions`` itself where the grid is the same.

    Raises:
        ValueError: See :func:`source_grid`.
    """
    prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
    height, width = source_grid(patches.shape[1])
    if (height, width) == tuple(grid):
        return positions
    image = patches.reshape(1, height, width, -1).permute(0, 3, 1, 2).float()
    image = F.interpolate(image, size=tuple(grid), mode=mode, antialias=mode == "bicubic")
    patches = image.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
    return cat([prefix, patches.to(positions.dtype)], dim=1)
