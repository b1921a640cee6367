"""Key filters: entries of published files under the names and shapes of the network.

A filter never invents values: it renames, reorders or interpolates what the file has.

[1] Zhu et al., PASS: Part-Aware Self-Supervised Pre-Training for Person Re-Identification, ECCV
    2022, arXiv 2203.03931; names as in its released program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unreid.weights.positions import resize_positions


def adapt(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return ``state`` with the filters of the families that it and ``network`` belong to."""
    return _positions(_part_tokens(dict(state)), network)


def _part_tokens(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the part tokens of PASS [1] and the positions of all tokens under timm's names."""
    tokens = ("part_token1", "part_token2", "part_token3")
    positions = ("cls_pos", "part1_pos", "part2_pos", "part3_pos", "pos_embed")
    if not all(name in state for name in (*tokens, *positions)):
        return state
    renamed = {k: v for k, v in state.items() if k not in (*tokens, *positions)}
    renamed["reg_token"] = torch.cat([state[name] for name in tokens], dim=1)
    renamed["pos_embed"] = torch.cat([state[name] for name in positions], dim=1)
    return renamed


def _positions(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Interpolate ``pos_embed`` to the image size of the network."""
    own = network.state_dict().get("pos_embed")
    found = state.get("pos_embed")
    if own is None or found is None or own.ndim != 3 or found.ndim != 3:
        return state
    if found.shape == own.shape or found.shape[2] != own.shape[2]:
        return state
    num_prefix, grid, mode = _layout(network)
    state["pos_embed"] = resize_positions(found, grid, num_prefix=num_prefix, mode=mode)
    return state


def _layout(network: Any) -> tuple[int, tuple[int, int], str]:
    """Return prefix tokens with a position, grid in patches and interpolation of a network."""
    from fastreid.modeling.backbones.vision_transformer import VisionTransformer

    embed = network.patch_embed
    if isinstance(network, VisionTransformer):
        return 1, (embed.num_y, embed.num_x), "bilinear"  # as its builder does
    num_prefix = 0 if network.no_embed_class else network.num_prefix_tokens
    return int(num_prefix), tuple(embed.grid_size), "bicubic"
