"""fast-reid's training transforms on whole batches of bytes: what INPUT.BACKEND tensor means.

The keys under ``INPUT`` and the order of the steps are fast-reid's: AutoAugment, size, padding and
crop, flip, colour jitter, affine, erasing. Every choice follows from one row of uniform numbers per
image, so that a batch does not depend on the worker that makes it.

[0] Zhong et al.: Random erasing data augmentation, 2020, https://arxiv.org/abs/1708.04896
[1] https://docs.pytorch.org/vision/stable/transforms.html

Unlike [1], colours stay fractions between the steps of the jitter and are rounded once, to the
nearest; Pillow and [1] cut off after every step, and Pillow's hue has 256 values.

Letters: B images, H x W their size.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import AutoAugment
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from unreid.checks import check_choice, check_integer, check_number
from unreid.kernels import borrow, jitter_twin, kernel

BACKENDS = ("pil", "tensor")
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")
_ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)
#: Rectangles that erasing tries before it gives an image up, as torchvision does.
_ATTEMPTS = 10
#: Uniform numbers per image: 14 single ones, and for erasing an area and a shape per attempt.
_DRAWS = 14 + 2 * _ATTEMPTS


def check_input(cfg: Any) -> None:
    """Refuse what the chosen backend cannot do.

    Raises:
        ValueError: names the key.
    """
    check_choice("INPUT.BACKEND", cfg.INPUT.BACKEND, BACKENDS)
    check_integer("UNSUP.CACHE_IMAGES", cfg.UNSUP.CACHE_IMAGES, 0)
    if cfg.INPUT.BACKEND == "pil":
        return
    for name in ("CROP", "AUGMIX", "RPT"):
        if cfg.INPUT[name].ENABLED:
            raise ValueError(f"INPUT.{name}.ENABLED must be False with INPUT.BACKEND tensor, which"
                             " has no such step; use INPUT.BACKEND pil")
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = cfg.INPUT[key]
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"INPUT.{key} must be a height and a width with INPUT.BACKEND tensor,"
                             f" got {list(size)}")
    if cfg.INPUT.PADDING.ENABLED:
        check_choice("INPUT.PADDING.MODE", cfg.INPUT.PADDING.MODE, _PAD_MODES)
        check_integer("INPUT.PADDING.SIZE", cfg.INPUT.PADDING.SIZE, 0)
    for name in ("AUTOAUG", "FLIP", "CJ", "REA"):
        check_number(f"INPUT.{name}.PROB", cfg.INPUT[name].PROB, 0, 1)
