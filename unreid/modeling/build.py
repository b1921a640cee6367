"""Build a model, and start its backbone from the file of ``MODEL.BACKBONE.PRETRAIN_PATH``."""

from __future__ import annotations

from typing import Any

from torch import nn

from unreid.weights.fit import inner, load_backbone

#: The key that names a file of weights for the backbone.
KEY = "MODEL.BACKBONE.PRETRAIN_PATH"


def build_model(cfg: Any) -> nn.Module:
    """Return the model of ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``.

    Unlike fast-reid, whose backbones load their file themselves with ``strict=False``, the backbone
    is built with its random start and then loaded by :func:`unreid.weights.fit.load_backbone`. Both
    use the same random numbers, so a file that fits gives the same model to the bit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not cover the backbone.
    """
    from fastreid.modeling.meta_arch import build_model as build

    path = cfg.MODEL.BACKBONE.PRETRAIN_PATH if cfg.MODEL.BACKBONE.PRETRAIN else ""
    if not path:
        model: nn.Module = build(cfg)
        return model
    random_start = cfg.clone()
    random_start.defrost()
    random_start.MODEL.BACKBONE.PRETRAIN = False
    random_start.freeze()
    model = build(random_start)
    load_backbone(inner(model.get_submodule("backbone")), path, KEY)
    return model
