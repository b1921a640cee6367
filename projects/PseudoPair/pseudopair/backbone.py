"""Set the last stride of backbones whose builder ignores ``MODEL.BACKBONE.LAST_STRIDE``.

The MobileNets of fast-reid ignore this key: the feature map of a 128x64 image is 4x2, which is too
small for stripes and for alignment.
"""

from __future__ import annotations

from torch import nn

#: Builders of fast-reid that ignore ``MODEL.BACKBONE.LAST_STRIDE``.
IGNORES_LAST_STRIDE = ("build_mobilenetv2_backbone", "build_mobilenetv3_backbone")


def remove_last_stride(backbone: nn.Module) -> str:
    """Set the stride of the last convolution with stride 2 to 1.

    The weights do not change. The final feature map is twice as high and wide; all feature maps
    before this convolution are unchanged.

    Returns:
        Name of the convolution in the backbone.

    Raises:
        ValueError: No convolution has stride 2.
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
