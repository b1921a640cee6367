"""fast-reid's transforms on whole batches of bytes: what INPUT.BACKEND tensor means.

The keys under ``INPUT`` and the order of the steps are fast-reid's: AutoAugment, size, padding and
crop, flip, colour jitter, affine, erasing. The faster way was taken for each step: torchvision's v2
for the size, Pillow for the affine map, a kernel of our own for colours.

[0] https://docs.pytorch.org/vision/stable/transforms.html

Unlike [0] and Pillow, which cut off after every step of the jitter, colours stay fractions between
the steps and are rounded once; hue is not cut to Pillow's 256 values; erased pixels are whole
numbers.

Notation: B images, H x W their size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import AutoAugment
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from unreid.checks import check_choice, check_integer, check_number
from unreid.data.draws import draw
from unreid.kernels import jitter_reference, kernel, zero_copy

BACKENDS = ("pil", "tensor")
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")


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


def resized(picture: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(H, W, 3) uint8 from (h, w, 3) uint8, bicubic and free of aliasing, as fast-reid resizes."""
    if picture.shape[:2] == tuple(size):
        return picture
    image = zero_copy(picture).permute(2, 0, 1)
    resize = v2.resize(image, list(size), InterpolationMode.BICUBIC, antialias=True)
    return resize.permute(1, 2, 0).numpy()


def as_batch(pictures: np.ndarray) -> torch.Tensor:
    """(B, 3, H, W) uint8, channels last in memory, from (B, H, W, 3) uint8; nothing is copied."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


class TestTransform:
    """Size alone.

    Args:
        cfg: The config (``INPUT.SIZE_TEST``).
    """

    __test__ = False  # no test of pytest's

    def __init__(self, cfg: Any) -> None:
        self.size = tuple(cfg.INPUT.SIZE_TEST)

    def __call__(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """(B, 3, H, W) uint8 from B pictures (h, w, 3) uint8 of any sizes."""
        out = np.empty((len(pictures), *self.size, 3), dtype=np.uint8)
        for place, picture in zip(out, pictures):
            place[...] = resized(picture, self.size)
        return as_batch(out)


class TrainTransform:
    """All steps, by choices of :func:`unreid.data.draws.draw`.

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

    def __call__(self, pictures: Sequence[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
        """(B, 3, H, W) uint8 from B pictures (h, w, 3) uint8 of any sizes."""
        draws = draw(self.input, len(pictures), rng)
        out = np.empty((len(pictures), *self.size, 3), dtype=np.uint8)
        for i, picture in enumerate(pictures):
            picture = resized(self._augmented(picture, int(draws.policy[i])), self.size)
            self._crop(out[i], picture, draws.top[i], draws.left[i], draws.flip[i])
        out = self._jittered(out, draws.orders, draws.factors)
        if draws.affine is not None:
            for place, matrix in zip(out, draws.affine):
                place[...] = moved(place, matrix)
        for place, (top, left, height, width) in zip(out, draws.boxes):
            place[top : top + height, left : left + width] = self.value
        return as_batch(out)

    def _augmented(self, picture: np.ndarray, seed: int) -> np.ndarray:
        """AutoAugment's policy draws from the module ``random``, which is left as it was."""
        if self.policy is None or seed < 0:
            return picture
        state = random.getstate()
        random.seed(seed)
        try:
            return np.asarray(self.policy(Image.fromarray(picture)))
        finally:
            random.setstate(state)

    def _crop(
        self, out: np.ndarray, picture: np.ndarray, top: int, left: int, flip: bool
    ) -> None:
        """Padded, cut to size at (top, left), perhaps mirrored."""
        if flip:
            # Read from right to left where it is written from left to right.
            out = out[:, ::-1]
        if self.padding and self.mode != "constant":
            sides = (self.padding, self.padding)
            picture = np.pad(picture, (sides, sides, (0, 0)), mode=self.mode)
            _copy(out, picture[top : top + self.size[0], left : left + self.size[1]])
            return
        # Black is only written where it is seen.
        down, right = top - self.padding, left - self.padding
        height, width = self.size
        rows = slice(max(0, -down), min(height, height - down))
        columns = slice(max(0, -right), min(width, width - right))
        if (down, right) != (0, 0):
            out[...] = 0
        _copy(out[rows, columns], picture[max(0, down) :, max(0, right) :]
              [: rows.stop - rows.start, : columns.stop - columns.start])

    def _jittered(self, out: np.ndarray, orders: np.ndarray, factors: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero((orders >= 0).any(axis=1))
        if len(chosen):
            pixels = out[chosen].reshape(len(chosen), -1, 3)
            changed = self._jitter(pixels, orders[chosen], factors[chosen])
            out[chosen] = changed.reshape(len(chosen), *self.size, 3)
        return out


#: A pixel as one thing: numpy copies single bytes, from right to left, far more slowly.
_PIXEL = np.dtype("V3")


def _copy(out: np.ndarray, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 into another, pixels in any order."""
    out.view(_PIXEL)[...] = picture.view(_PIXEL)


def moved(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 under an affine map, the nearest pixel each, black outside: Pillow's own."""
    image = Image.fromarray(picture)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, tuple(matrix.tolist())))
