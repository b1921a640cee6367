"""Reference implementation of ``jitter.pyx`` in numpy: same names, arguments and results.

Notation: B images, P pixels of each.
"""

from __future__ import annotations

import numpy as np

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def color_jitter(pixels: np.ndarray, orders: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the images after colour jitter, in float32 with one rounding at the end.

    Args:
        pixels: (B, P, 3) uint8 RGB.
        orders: (B, 4) int64, the steps in order: 0 brightness, 1 contrast, 2 saturation,
            3 hue, each at most once; -1 is none.
        factors: (B, 4) float32: factors of brightness, contrast and saturation (1: identity), and
            the hue shift in turns (0: identity).

    Returns:
        (B, P, 3) uint8.
    """
    changed = np.empty_like(pixels)
    for i, image in enumerate(pixels):
        planes = image.T.astype(np.float32)
        for step in orders[i]:
            factor = factors[i, step]
            if step == 0:
                planes = np.clip(planes * factor, 0, 255)
            elif step == 1:
                mean = np.float32((_GREY @ planes).mean(dtype=np.float64)) if planes.size else 0
                planes = np.clip(planes * factor + (1 - factor) * mean, 0, 255)
            elif step == 2:
                planes = np.clip(planes * factor + (1 - factor) * (_GREY @ planes), 0, 255)
            elif step == 3:
                planes = _turned(planes, factor)
        changed[i] = (planes + np.float32(0.5)).astype(np.uint8).T
    return changed


def _turned(planes: np.ndarray, turns: np.float32) -> np.ndarray:
    """Return the planes with a shifted hue; value and saturation do not change."""
    red, green, blue = planes
    high = planes.max(axis=0)
    chroma = high - planes.min(axis=0)
    inverse = 1 / np.maximum(chroma, np.float32(1e-6))
    sixths = (
        np.where(
            high == red,
            (green - blue) * inverse,
            np.where(high == green, 2 + (blue - red) * inverse, 4 + (red - green) * inverse),
        )
        + 6 * turns
    )
    k = (np.array([[5], [3], [1]], dtype=np.float32) + sixths) % 6
    return high - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
