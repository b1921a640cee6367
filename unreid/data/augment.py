"""Augment a batch of uint8 images with fast-reid's transforms: ``INPUT.BACKEND tensor``.

The augmentation parameters of the whole batch are sampled first, then applied. Image i uses row i
of one (B, 37) table of uniform random numbers. Its parameters therefore depend only on the
generator and on its position in the batch, not on the worker process or on which other steps are
enabled.

The keys under ``INPUT`` and the order of the steps are fast-reid's: AutoAugment, size, padding and
crop, flip, colour jitter, affine, erasing. Each step uses the fastest implementation measured:
torchvision's v2 for the size, Pillow for the affine map, a compiled kernel for the colours.

[0] Zhong et al.: Random erasing data augmentation, 2020, https://arxiv.org/abs/1708.04896
[1] https://docs.pytorch.org/vision/stable/transforms.html

Unlike [1] and Pillow, which truncate to integers after every step of the colour jitter, colours are
floating point between the steps and rounded once at the end; hue is not quantised to Pillow's 256
values; erased pixels get integer values.

Notation: B images, H x W their size.
"""

from __future__ import annotations

import itertools
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

from unreid.kernels import jitter_reference, kernel, zero_copy

_ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)
#: Candidate boxes per image; if none fits, nothing is erased (as in torchvision).
_ATTEMPTS = 10
#: AutoAugment, crop (2), flip, jitter (6), affine (3), erasing (3 + 2 x attempts), policy seed.
_COLUMNS = 16 + 2 * _ATTEMPTS + 1
#: Arguments of fast-reid's RandomAffine: maximal rotation, scales, maximal shear along x (degrees).
_DEGREES, _SCALES, _SHEAR = 10.0, (0.9, 1.1), 0.1
#: Random erasing, defaults of torchvision: area fraction (s_l, s_h of [0]) and aspect ratio.
_AREA, _RATIO = (0.02, 0.33), (0.3, 3.3)


@dataclass(frozen=True)
class AugmentParameters:
    """Sampled augmentation parameters of B images.

    Attributes:
        policy: (B,) int64 seed of AutoAugment's sampling; -1 disables it.
        top, left: (B,) int64 corner of the crop in the padded image.
        flip: (B,) bool.
        orders: (B, 4) int64 order of the colour jitter: 0 brightness, 1 contrast, 2 saturation,
            3 hue, -1 no step.
        factors: (B, 4) float32 factors of the steps 0 to 3.
        affine: (B, 6) float64, see :func:`affine_matrices`, or None.
        boxes: (B, 4) int64 (top, left, height, width) of the erased box; height 0 erases nothing.
    """

    policy: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    orders: np.ndarray
    factors: np.ndarray
    affine: np.ndarray | None
    boxes: np.ndarray


def sample_parameters(cfg: Any, num: int, rng: np.random.Generator) -> AugmentParameters:
    """Sample the augmentation parameters of ``num`` images.

    Args:
        cfg: The ``INPUT`` node.
        num: Number of images B.
        rng: Random generator.
    """
    u = rng.random((num, _COLUMNS))
    num_offsets = 2 * cfg.PADDING.SIZE + 1 if cfg.PADDING.ENABLED else 1
    affine = None
    if cfg.AFFINE.ENABLED:
        affine = affine_matrices(
            cfg.SIZE_TRAIN,
            _interpolate(u[:, 10], -_DEGREES, _DEGREES),
            _interpolate(u[:, 11], *_SCALES),
            _interpolate(u[:, 12], -_SHEAR, _SHEAR),
        )
    chosen = (u[:, 0] < cfg.AUTOAUG.PROB) & cfg.AUTOAUG.ENABLED
    orders, factors = _jitter(cfg.CJ, u[:, 4:10])
    boxes = np.zeros((num, 4), dtype=np.int64)
    if cfg.REA.ENABLED:
        boxes = _erasing_boxes(cfg.SIZE_TRAIN, u[:, 14:-1])
        boxes[u[:, 13] >= cfg.REA.PROB] = 0
    return AugmentParameters(
        policy=np.where(chosen, (u[:, -1] * 2**53).astype(np.int64), -1),
        top=(u[:, 1] * num_offsets).astype(np.int64),
        left=(u[:, 2] * num_offsets).astype(np.int64),
        flip=(u[:, 3] < cfg.FLIP.PROB) & cfg.FLIP.ENABLED,
        orders=orders,
        factors=factors,
        affine=affine,
        boxes=boxes,
    )


def _interpolate(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map uniform numbers in [0, 1) to [low, high)."""
    return low + (high - low) * uniform


def _jitter(cfg: Any, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, 4) orders and (B, 4) factors of ColorJitter, from (B, 6) uniform numbers."""
    spans = (cfg.BRIGHTNESS, cfg.CONTRAST, cfg.SATURATION)
    orders = _ORDERS[(u[:, 0] * len(_ORDERS)).astype(np.int64)]
    orders[(u[:, 1] >= cfg.PROB) | (not cfg.ENABLED)] = -1
    # A step of range 0 has no effect, but would cost time.
    for step, span in enumerate((*spans, cfg.HUE)):
        if not span:
            orders[orders == step] = -1
    factors = [_interpolate(u[:, 2 + i], max(0.0, 1 - s), 1 + s) for i, s in enumerate(spans)]
    factors.append(_interpolate(u[:, 5], -cfg.HUE, cfg.HUE))
    return orders, np.stack(factors, axis=1).astype(np.float32)


def affine_matrices(
    size: Sequence[int], degrees: np.ndarray, scales: np.ndarray, shears: np.ndarray
) -> np.ndarray:
    """Return affine maps (a, b, c, d, e, f) as (B, 6) float64.

    Pixel (x, y) of the output is pixel (a x + b y + c, d x + e y + f) of the input.

    Args:
        size: (H, W).
        degrees: (B,) clockwise rotation about the centre.
        scales: (B,) scale factors.
        shears: (B,) shear along x in degrees.
    """
    angle, tan = np.deg2rad(degrees), np.tan(np.deg2rad(shears))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = (cos - sin * tan) / scales, (cos * tan + sin) / scales
    d, e = -sin / scales, cos / scales
    y, x = size[0] / 2, size[1] / 2
    return np.stack([a, b, x - a * x - b * y, d, e, y - d * x - e * y], axis=1)


def _erasing_boxes(size: Sequence[int], u: np.ndarray) -> np.ndarray:
    """Return (B, 4) boxes to erase: the first of ten candidates that fits, else zeros [0].

    Args:
        size: (H, W).
        u: (B, 22) uniform numbers: position (2), then area and aspect ratio per candidate.
    """
    areas = size[0] * size[1] * _interpolate(u[:, 2::2], *_AREA)
    ratios = np.exp(_interpolate(u[:, 3::2], *np.log(_RATIO)))
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


def resize_image(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize (h, w, 3) uint8 to ``size`` (H, W), bicubic with antialiasing as in fast-reid."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    image = zero_copy(pixels).permute(2, 0, 1)
    resize = v2.resize(image, list(size), InterpolationMode.BICUBIC, antialias=True)
    return resize.permute(1, 2, 0).numpy()


def to_batch(images: np.ndarray) -> torch.Tensor:
    """View (B, H, W, 3) uint8 as (B, 3, H, W), channels last in memory, without a copy."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class TestTransform:
    """Transform of evaluation: resize only.

    Args:
        cfg: The config (``INPUT.SIZE_TEST``).
    """

    __test__ = False  # not a pytest class

    def __init__(self, cfg: Any) -> None:
        self.size = tuple(cfg.INPUT.SIZE_TEST)

    def __call__(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Return (B, 3, H, W) uint8 from B images (h, w, 3) uint8 of any sizes."""
        out = np.empty((len(images), *self.size, 3), dtype=np.uint8)
        for target, pixels in zip(out, images):
            target[...] = resize_image(pixels, self.size)
        return to_batch(out)


class TrainTransform:
    """Training transform: all steps, with parameters of :func:`sample_parameters`.

    Args:
        cfg: The config (``INPUT.*``).
    """

    def __init__(self, cfg: Any) -> None:
        self.input = cfg.INPUT
        self.size = tuple(cfg.INPUT.SIZE_TRAIN)
        padding = cfg.INPUT.PADDING
        self.padding = padding.SIZE if padding.ENABLED else 0
        self.mode = padding.MODE
        self.policy = AutoAugment() if cfg.INPUT.AUTOAUG.ENABLED else None
        self.value = np.clip(np.rint(cfg.INPUT.REA.VALUE), 0, 255).astype(np.uint8)
        self._jitter = (kernel("jitter") or jitter_reference).color_jitter

    def __call__(self, images: Sequence[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
        """Return (B, 3, H, W) uint8 from B images (h, w, 3) uint8 of any sizes."""
        sampled = sample_parameters(self.input, len(images), rng)
        out = np.empty((len(images), *self.size, 3), dtype=np.uint8)
        for i, pixels in enumerate(images):
            pixels = resize_image(self._auto_augment(pixels, int(sampled.policy[i])), self.size)
            self._crop(out[i], pixels, sampled.top[i], sampled.left[i], sampled.flip[i])
        out = self._apply_jitter(out, sampled.orders, sampled.factors)
        if sampled.affine is not None:
            for image, matrix in zip(out, sampled.affine):
                image[...] = apply_affine(image, matrix)
        for image, (top, left, height, width) in zip(out, sampled.boxes):
            image[top : top + height, left : left + width] = self.value
        return to_batch(out)

    def _auto_augment(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """Apply AutoAugment, which samples from ``random``; the state of ``random`` is restored."""
        if self.policy is None or seed < 0:
            return pixels
        state = random.getstate()
        random.seed(seed)
        try:
            return np.asarray(self.policy(Image.fromarray(pixels)))
        finally:
            random.setstate(state)

    def _crop(self, out: np.ndarray, pixels: np.ndarray, top: int, left: int, flip: bool) -> None:
        """Pad ``pixels``, crop at (top, left), flip on demand, and write the result to ``out``."""
        if flip:
            out = out[:, ::-1]  # a reversed view: writing to it flips the image
        if self.padding and self.mode != "constant":
            sides = (self.padding, self.padding)
            pixels = np.pad(pixels, (sides, sides, (0, 0)), mode=self.mode)
            _copy(out, pixels[top : top + self.size[0], left : left + self.size[1]])
            return
        # The constant padding is black; it is written only where it is inside the crop.
        down, right = top - self.padding, left - self.padding
        height, width = self.size
        rows = slice(max(0, -down), min(height, height - down))
        columns = slice(max(0, -right), min(width, width - right))
        if (down, right) != (0, 0):
            out[...] = 0
        _copy(
            out[rows, columns],
            pixels[max(0, down) :, max(0, right) :][
                : rows.stop - rows.start, : columns.stop - columns.start
            ],
        )

    def _apply_jitter(self, out: np.ndarray, orders: np.ndarray, factors: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero((orders >= 0).any(axis=1))
        if len(chosen):
            pixels = out[chosen].reshape(len(chosen), -1, 3)
            changed = self._jitter(pixels, orders[chosen], factors[chosen])
            out[chosen] = changed.reshape(len(chosen), *self.size, 3)
        return out


#: One pixel as one item: numpy copies reversed views of single bytes far more slowly.
_PIXEL = np.dtype("V3")


def _copy(out: np.ndarray, pixels: np.ndarray) -> None:
    """Copy (H, W, 3) uint8 into a view, which may be reversed along its width."""
    out.view(_PIXEL)[...] = pixels.view(_PIXEL)


def apply_affine(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply an affine map to (H, W, 3) uint8 by Pillow: nearest neighbour, black outside."""
    image = Image.fromarray(pixels)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, tuple(matrix.tolist())))
