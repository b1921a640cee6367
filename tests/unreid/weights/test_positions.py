"""Position embeddings: grids of published sizes, interpolated as the reference libraries do."""

from __future__ import annotations

import pytest
import torch

from unreid.weights.positions import resize_positions, source_grid


@pytest.mark.parametrize(
    ("patches", "grid"),
    [(196, (14, 14)), (256, (16, 16)), (128, (16, 8)), (192, (24, 8)), (1, (1, 1)), (2, (2, 1))],
)
def test_grid__of_published_sizes(patches: int, grid: tuple[int, int]) -> None:
    assert source_grid(patches) == grid


@pytest.mark.parametrize("patches", [0, 5, 130, 197])
def test_grid__of_another_ratio_is_refused(patches: int) -> None:
    with pytest.raises(ValueError, match=rf"1:1, 2:1 or 3:1 patches, got {patches}"):
        source_grid(patches)


@pytest.mark.parametrize("num_prefix", [0, 1, 4])
def test_bicubic__equals_timm(num_prefix: int) -> None:
    timm = pytest.importorskip("timm.layers")
    positions = torch.randn(1, num_prefix + 128, 6)
    ours = resize_positions(positions, (24, 8), num_prefix=num_prefix)
    theirs = timm.resample_abs_pos_embed(
        positions, [24, 8], old_size=[16, 8], num_prefix_tokens=num_prefix
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_bilinear__equals_fastreid() -> None:
    from fastreid.modeling.backbones.vision_transformer import resize_pos_embed

    positions = torch.randn(1, 1 + 196, 6)
    ours = resize_positions(positions, (16, 8), mode="bilinear")
    theirs = resize_pos_embed(positions, torch.zeros(1, 1 + 128, 6), 16, 8)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_same_grid__returns_the_tensor() -> None:
    positions = torch.randn(1, 129, 6)
    assert resize_positions(positions, (16, 8)) is positions
