"""Check the ``INPUT`` keys of a config against the selected ``INPUT.BACKEND``."""

from __future__ import annotations

from typing import Any

from unreid.checks import check_choice, check_integer, check_number

BACKENDS = ("pil", "tensor")
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")


def check_input(cfg: Any) -> None:
    """Check that ``INPUT.BACKEND`` supports the other ``INPUT`` keys.

    Raises:
        ValueError: An invalid value; names the key.
    """
    check_choice("INPUT.BACKEND", cfg.INPUT.BACKEND, BACKENDS)
    check_integer("UNSUP.CACHE_IMAGES", cfg.UNSUP.CACHE_IMAGES, 0)
    if cfg.INPUT.BACKEND == "pil":
        return
    for name in ("CROP", "AUGMIX", "RPT"):
        if cfg.INPUT[name].ENABLED:
            raise ValueError(
                f"INPUT.{name}.ENABLED must be False with INPUT.BACKEND tensor, which"
                " does not implement this step; use INPUT.BACKEND pil"
            )
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = cfg.INPUT[key]
        if len(size) != 2 or min(size) < 1:
            raise ValueError(
                f"INPUT.{key} must be a height and a width with INPUT.BACKEND tensor,"
                f" got {list(size)}"
            )
    if cfg.INPUT.PADDING.ENABLED:
        check_choice("INPUT.PADDING.MODE", cfg.INPUT.PADDING.MODE, _PAD_MODES)
        check_integer("INPUT.PADDING.SIZE", cfg.INPUT.PADDING.SIZE, 0)
    for name in ("AUTOAUG", "FLIP", "CJ", "REA"):
        check_number(f"INPUT.{name}.PROB", cfg.INPUT[name].PROB, 0, 1)
