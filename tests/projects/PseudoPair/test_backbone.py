"""The last stride of MobileNet, which fast-reid does not read from the config."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudopair.backbone import remove_last_stride
from tests.projects.PseudoPair.networks import network


@pytest.mark.parametrize(("last_stride", "size"), [(1, (4, 2)), (2, (2, 1))])
def test_map__is_twice_as_large_with_last_stride_one(
    last_stride: int, size: tuple[int, int]
) -> None:
    model = network(MODEL__BACKBONE__LAST_STRIDE=last_stride)
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, 64, 32))
    assert maps.shape[2:] == size


def test_removing_the_stride__changes_the_last_one_only_and_keeps_the_weights() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1))
    before = [p.clone() for p in layers.parameters()]
    assert remove_last_stride(layers) == "1"
    assert [layer.stride for layer in layers] == [(2, 2), (1, 1), (1, 1)]
    assert all(torch.equal(a, b) for a, b in zip(before, layers.parameters()))


def test_removing_the_stride__where_there_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"LAST_STRIDE 1: Conv2d has no convolution of stride 2"):
        remove_last_stride(nn.Conv2d(3, 4, 1))
