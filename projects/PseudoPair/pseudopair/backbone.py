"""The last stride of backbones whose builder does not ask for it.

fast-reid's MobileNets leave ``MODEL.BACKBONE.LAST_STRIDE`` unread: a 128x64
picture ends as a map of 4x2, too small for stripes and for an alignment.
"""

from __future__ import annotations

from torch import nn

#: Builders of fast-reid that leave ``MODEL.BACKBONE.LAST_STRIDE`` unread.
IGNORES_LAST_STRIDE = ("build_mobilenetv2_backbone", "build_mobilenetv3_backbone")


def remove_last_stride(backbone: nn.Module) -> str:
    """Give the last convolution of stride 2 a stride of 1; returns its name in the backbone.

    The weights stay, and the map is twice as high and wide. Every map before it is unchanged.

    Raises:
        ValueError: no convolution has a stride of 2.
    """
    found = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and tuple(module.stride) == (2, 2)
    ]
    if not found:
        raise ValueError(
            f"MODEL.BACKBONE.LAST_STRIDE 1: {type(backbone).__name__} has no convolution of"
            " stride 2 to change; set it to 2"
        )
    name, last = found[-1]
    last.stride = (1, 1)
    return name
