"""Key filters: entries of published files under the names and shapes of the network.

A filter never invents values: it renames, reorders or interpolates what the file has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unreid.weights.positions import resize_positions


def adapt(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return ``state`` with the filters of the families that it and ``network`` belong to."""
    return _positions(dict(state), network)


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
