"""Keys of timm's networks below ``MODEL.BACKBONE``, their checks, and derived settings."""

from __future__ import annotations

import logging
from collections.abc import Collection

from fastreid.config import CfgNode

from unreid.checks import check_choice, check_integer, check_number

logger = logging.getLogger("fastreid.unreid.config")

#: The backbone that these keys belong to.
TIMM = "build_timm_backbone"
#: Keys that have no effect on another backbone, so that hashes of its settings leave them out.
KEYS = (
    "TIMM",
    "TIMM_OPTIONS",
    "VARIANT",
    "OUTPUT",
    "PATCH_STRIDE",
    "DROP_PATH",
    "CHECKPOINTING",
    "FREEZE_STEM",
)


def add_backbone_config(cfg: CfgNode) -> None:
    """Declare the keys of ``MODEL.BACKBONE.NAME build_timm_backbone``."""
    backbone = cfg.MODEL.BACKBONE
    # Network of timm for MODEL.BACKBONE.NAME build_timm_backbone, such as vit_small_patch16_224.
    backbone.TIMM = ""
    # Further arguments of timm.create_model: ["depth=6", "patch_size=14"].
    backbone.TIMM_OPTIONS = []
    # Published change of timm's vision transformer: "ics", the convolution stem of TransReID-SSL;
    # "pass", three part tokens; "" for none.
    backbone.VARIANT = ""
    # Output of a vision transformer: "map" of its patches, "class" token, or "parts", the mean of
    # class and part tokens. All but "map" are maps of one cell.
    backbone.OUTPUT = "map"
    # Pixels between the patches of a vision transformer; 0: the patch size, without overlap.
    backbone.PATCH_STRIDE = 0
    # Largest rate of stochastic depth of timm's networks, 0 to 1 (excluded).
    backbone.DROP_PATH = 0.0
    # Gradient checkpointing of timm's networks: less memory, more time.
    backbone.CHECKPOINTING = False
    # Keep the patch embedding (or conv_stem) of timm's networks as it starts.
    backbone.FREEZE_STEM = False


def check_backbone(cfg: CfgNode) -> None:
    """Refuse settings of timm's networks that cannot be built.

    Raises:
        ImportError: timm is not installed.
        KeyError: No such network.
        ValueError: A value is out of range.
    """
    from unreid.modeling.timm_backbone import OUTPUTS, VARIANTS, check_name

    backbone = cfg.MODEL.BACKBONE
    check_choice("MODEL.BACKBONE.VARIANT", backbone.VARIANT, VARIANTS)
    check_choice("MODEL.BACKBONE.OUTPUT", backbone.OUTPUT, OUTPUTS)
    check_integer("MODEL.BACKBONE.PATCH_STRIDE", backbone.PATCH_STRIDE, 0)
    check_number("MODEL.BACKBONE.DROP_PATH", backbone.DROP_PATH, 0, 0.999)
    if backbone.NAME == TIMM:
        check_name(backbone.TIMM)
    elif backbone.TIMM:
        raise ValueError(
            f"MODEL.BACKBONE.TIMM must be empty for MODEL.BACKBONE.NAME {backbone.NAME}, got"
            f" {backbone.TIMM}; set MODEL.BACKBONE.NAME {TIMM}"
        )


def complete_backbone(cfg: CfgNode, given: Collection[str]) -> None:
    """Set what follows from timm's network: ``FEAT_DIM``, and ``PIXEL_MEAN`` and ``PIXEL_STD``.

    Args:
        cfg: Changed in place; already checked by :func:`check_backbone`.
        given: Keys that the user has set, whose values stay. ``FEAT_DIM`` always follows.
    """
    if cfg.MODEL.BACKBONE.NAME != TIMM:
        return
    from unreid.modeling.timm_backbone import Spec, probe, statistics

    cfg.MODEL.BACKBONE.FEAT_DIM = probe(Spec.from_config(cfg))[1]
    for key, value in statistics(cfg).items():
        if f"MODEL.{key}" not in given:
            cfg.MODEL[key] = value
            logger.info(f"MODEL.{key} {value}, of timm's {cfg.MODEL.BACKBONE.TIMM}")
