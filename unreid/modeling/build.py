"""Builds a model, and names the file of weights where its backbone cannot start from them."""

from __future__ import annotations

from typing import Any

from torch import nn


def build_model(cfg: Any) -> nn.Module:
    """The model of ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``.

    Raises:
        ValueError: ``MODEL.BACKBONE.PRETRAIN_PATH`` holds weights of another backbone.
    """
    from fastreid.modeling.meta_arch import build_model as build

    backbone = cfg.MODEL.BACKBONE
    try:
        model: nn.Module = build(cfg)
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        if not (backbone.PRETRAIN and backbone.PRETRAIN_PATH):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"MODEL.BACKBONE.PRETRAIN_PATH {backbone.PRETRAIN_PATH} is of another"
            f" backbone than {backbone.NAME} {backbone.DEPTH} ({reason})"
        ) from error
    return model
