"""Which changes each image of a batch gets: fast-reid's distributions, from one table of numbers.

Row i of a (B, 37) table of uniform numbers is the fate of image i, whatever is switched on: so a
choice depends on the generator and the place in the batch alone, never on the worker.

[0] Zhong et al.: Random erasing data augmentation, 2020, https://arxiv.org/abs/1708.04896

Notation: B images, H x W their size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)
#: Rectangles that erasing tries before it gives an image up, as torchvision does.
_ATTEMPTS = 10
#: AutoAugment, crop (2), flip, jitter (6), affine (3), erasing (1 + 2 + attempts), a policy's seed.
_COLUMNS = 16 + 2 * _ATTEMPTS + 1
#: What fast-reid gives RandomAffine: degrees, scales, degrees of shear along x.
_DEGREES, _SCALES, _SHEAR = 10.0, (0.9, 1.1), 0.1
#: torchvision's erasing: share of the area [0, s_l and s_h], and height by width.
_AREA, _RATIO = (0.02, 0.33), (0.3, 3.3)


@dataclass(frozen=True)
class Draws:
    """What is done to each of B images.

    Attributes:
        policy: (B,) int64 seed of AutoAugment's own choices; -1 leaves it out.
        top, left: (B,) int64 corner of the crop in the padded image.
        flip: (B,) bool.
        orders: (B, 4) int64 steps of the jitter: 0 brightness, 1 contrast, 2 saturation, 3 hue;
            -1 is none.
        factors: (B, 4) float32 of these steps.
        affine: (B, 6) float64, see :func:`affine_matrices`, or None.
        boxes: (B, 4) int64 top, left, height, width of what is erased; height 0 erases nothing.
    """

    policy: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    orders: np.ndarray
    factors: np.ndarray
    affine: np.ndarray | None
    boxes: np.ndarray


def draw(cfg: Any, num: int, rng: np.random.Generator) -> Draws:
    """Choices for ``num`` images.

    Args:
        cfg: The ``INPUT`` node.
        num: B.
        rng: Source of every choice.
    """
    u = rng.random((num, _COLUMNS))
    places = 2 * cfg.PADDING.SIZE + 1 if cfg.PADDING.ENABLED else 1
    affine = None
    if cfg.AFFINE.ENABLED:
        affine = affine_matrices(
            cfg.SIZE_TRAIN, _between(u[:, 10], -_DEGREES, _DEGREES), _between(u[:, 11], *_SCALES),
            _between(u[:, 12], -_SHEAR, _SHEAR),
        )
    chosen = (u[:, 0] < cfg.AUTOAUG.PROB) & cfg.AUTOAUG.ENABLED
    orders, factors = _jitter(cfg.CJ, u[:, 4:10])
    boxes = np.zeros((num, 4), dtype=np.int64)
    if cfg.REA.ENABLED:
        boxes = _boxes(cfg.SIZE_TRAIN, u[:, 14:-1])
        boxes[u[:, 13] >= cfg.REA.PROB] = 0
    return Draws(
        policy=np.where(chosen, (u[:, -1] * 2**53).astype(np.int64), -1),
        top=(u[:, 1] * places).astype(np.int64),
        left=(u[:, 2] * places).astype(np.int64),
        flip=(u[:, 3] < cfg.FLIP.PROB) & cfg.FLIP.ENABLED,
        orders=orders,
        factors=factors,
        affine=affine,
        boxes=boxes,
    )


def _between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * uniform


def _jitter(cfg: Any, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, 4) orders and factors of ColorJitter, from (B, 6) uniform numbers."""
    spans = (cfg.BRIGHTNESS, cfg.CONTRAST, cfg.SATURATION)
    orders = _ORDERS[(u[:, 0] * len(_ORDERS)).astype(np.int64)]
    orders[(u[:, 1] >= cfg.PROB) | (not cfg.ENABLED)] = -1
    # Hue without a range would change nothing, and take its time.
    for step, span in enumerate((*spans, cfg.HUE)):
        if not span:
            orders[orders == step] = -1
    factors = [_between(u[:, 2 + i], max(0.0, 1 - s), 1 + s) for i, s in enumerate(spans)]
    factors.append(_between(u[:, 5], -cfg.HUE, cfg.HUE))
    return orders, np.stack(factors, axis=1).astype(np.float32)


def affine_matrices(
    size: Sequence[int], degrees: np.ndarray, scales: np.ndarray, shears: np.ndarray
) -> np.ndarray:
    """(B, 6) float64: place (x, y) of the result is (a x + b y + c, d x + e y + f) of the image.

    Args:
        size: H, W.
        degrees: (B,) of the rotation, clockwise, about the centre.
        scales: (B,) of the image's sides.
        shears: (B,) degrees, along x.
    """
    angle, tan = np.deg2rad(degrees), np.tan(np.deg2rad(shears))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = (cos - sin * tan) / scales, (cos * tan + sin) / scales
    d, e = -sin / scales, cos / scales
    y, x = size[0] / 2, size[1] / 2
    return np.stack([a, b, x - a * x - b * y, d, e, y - d * x - e * y], axis=1)


def _boxes(size: Sequence[int], u: np.ndarray) -> np.ndarray:
    """(B, 4) top, left, height, width: the first of ten rectangles that fits in, else zeros [0].

    Args:
        size: H, W.
        u: (B, 2 + 20) uniform numbers: the place, then an area and a shape per attempt.
    """
    areas = size[0] * size[1] * _between(u[:, 2::2], *_AREA)
    ratios = np.exp(_between(u[:, 3::2], *np.log(_RATIO)))
    heights = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    widths = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    fits = (heights < size[0]) & (widths < size[1])
    first = np.arange(len(u)), fits.argmax(axis=1)
    height, width = heights[first], widths[first]
    top = (u[:, 0] * (size[0] - height + 1)).astype(np.int64)
    left = (u[:, 1] * (size[1] - width + 1)).astype(np.int64)
    boxes = np.stack([top, left, height, width], axis=1)
    boxes[~fits.any(axis=1)] = 0
    return boxes
