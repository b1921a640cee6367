"""Visualise a model: attention maps of the heads, and alignment of the images of a pair.

Notation: B images of h x w pixels, K heads, H x W positions of a map, P = H W, T taps of the
deformable convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

#: Colours at 0, 1/4, ... 1: dark blue, light blue, green, yellow, red.
_COLOURS = np.array(
    [[30, 30, 120], [40, 150, 230], [80, 200, 120], [250, 210, 60], [220, 40, 40]], dtype=float
)
#: Pixels between two images, and background colour.
_GAP, _BACKGROUND = 4, (255, 255, 255)
#: Lines are drawn at this scale and then reduced, for anti-aliasing.
_OVERSAMPLING = 2


def colours(values: np.ndarray) -> np.ndarray:
    """Return values of any shape as colours (..., 3) uint8; values are clipped to 0..1."""
    places = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(values, places, _COLOURS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def scale_to_unit(values: np.ndarray) -> np.ndarray:
    """Scale values to 0..1 by their minimum and maximum; 0 if all are equal.

    Args:
        values: (H, W) float.
    """
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12:
        return np.zeros_like(values, dtype=float)
    return (values - low) / (high - low)


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Return the grey-scale image blended with the colours of a heat map.

    Args:
        image: (h, w, 3) uint8.
        heat: (H, W) float in any range; scaled to 0..1.
        strength: Weight of the colours, 0..1.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = image.shape[:2]
    small = Image.fromarray((255 * scale_to_unit(heat)).round().astype(np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255.0
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=float)[..., None]
    mixed = (1.0 - strength) * grey + strength * colours(large)
    return mixed.round().astype(np.uint8)


def attention_grid(images: np.ndarray, heats: np.ndarray) -> Image.Image:
    """Return an image with one row per input image: the image, then the heat map of each head.

    Args:
        images: (B, h, w, 3) uint8.
        heats: (B, K, H, W) float.
    """
    rows = [[image, *(overlay(image, heat) for heat in own)] for image, own in zip(images, heats)]
    return image_grid(rows)


def image_grid(rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Arrange images (h, w, 3) uint8 of one size in rows and columns."""
    height, width = rows[0][0].shape[:2]
    across, down = max(len(row) for row in rows), len(rows)
    size = (across * (width + _GAP) - _GAP, down * (height + _GAP) - _GAP)
    whole = Image.new("RGB", size, _BACKGROUND)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            place = (x * (width + _GAP), y * (height + _GAP))
            whole.paste(Image.fromarray(image), place)
    return whole


def aligned_positions(
    attention: np.ndarray, offsets: np.ndarray, expected: bool = False
) -> np.ndarray:
    """Return the position in image j to which each position of image i is aligned.

    The attention selects a position of j, and the offsets shift it.

    Args:
        attention: (P, P) float; row p of i over the positions of the deformed j, rows sum to 1.
        offsets: (2 T, H, W) float in positions: y and x of each tap in turn, in the layout of the
            deformable convolution of torchvision. A position is shifted by the mean of its taps.
        expected: Use the expectation over the attention instead of its maximum.

    Returns:
        (H, W, 2) float: y and x relative to height and width, in 0..1, at cell centres.
    """
    height, width = offsets.shape[1:]
    shift = offsets.reshape(-1, 2, height, width).mean(axis=0).reshape(2, -1).T
    grid = np.indices((height, width)).reshape(2, -1).T + 0.5
    places = (grid + shift) / (height, width)
    found = attention @ places if expected else places[attention.argmax(axis=1)]
    return found.reshape(height, width, 2).clip(0.0, 1.0)


def alignment_image(
    image_i: np.ndarray,
    image_j: np.ndarray,
    landed: np.ndarray,
    similarities: np.ndarray,
    *,
    scale: int = 2,
    max_arrows: int = 24,
) -> Image.Image:
    """Draw both images side by side, with arrows from positions in i to aligned positions in j.

    The colour of an arrow is the height of its start; its opacity is the similarity of its ends.

    Args:
        image_i: (h, w, 3) uint8.
        image_j: (h, w, 3) uint8.
        landed: (H, W, 2) of :func:`aligned_positions`.
        similarities: (H, W) in -1..1, of each position and its aligned position.
        scale: Scale factor of the images.
        max_arrows: Maximum number of arrows, in order of decreasing similarity.
    """
    height, width = image_i.shape[:2]
    factor = scale * _OVERSAMPLING
    left, top = (width + 4 * _GAP) * factor, height * factor
    canvas = Image.new("RGB", (left + width * factor, top), _BACKGROUND)
    for image, x in ((image_i, 0), (image_j, left)):
        large = Image.fromarray(image).resize((width * factor, top), Image.Resampling.BICUBIC)
        canvas.paste(large, (x, 0))
    rows, columns = similarities.shape
    draw = ImageDraw.Draw(canvas, "RGBA")
    chosen = np.argsort(-similarities, axis=None, kind="stable")[:max_arrows]
    for place in chosen[::-1]:  # draw the most similar last, on top
        y, x = divmod(int(place), columns)
        start = ((x + 0.5) / columns * width * factor, (y + 0.5) / rows * top)
        down, across = landed[y, x]
        end = (left + across * width * factor, down * top)
        colour = tuple(int(c) for c in colours(np.array((y + 0.5) / rows)))
        alpha = int(80 + 175 * np.clip(similarities[y, x], 0.0, 1.0))
        _arrow(draw, start, end, (*colour, alpha), factor)
    size = (canvas.width // _OVERSAMPLING, canvas.height // _OVERSAMPLING)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _arrow(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: tuple[int, ...],
    size: int,
) -> None:
    """Draw a line with a dot at its start and an arrowhead at its end."""
    draw.line([start, end], fill=colour, width=max(1, size // 2))
    draw.ellipse([start[0] - size, start[1] - size, start[0] + size, start[1] + size], fill=colour)
    along = np.subtract(end, start)
    length = float(np.hypot(*along))
    if length < 1e-6:
        return
    ahead = 3.0 * size * along / length
    aside = np.array([-ahead[1], ahead[0]]) / 2
    corners = [np.array(end), end - ahead + aside, end - ahead - aside]
    draw.polygon([tuple(c.tolist()) for c in corners], fill=colour)


def stack_vertically(images: Sequence[Image.Image]) -> Image.Image:
    """Arrange images of any size below each other."""
    height = sum(p.height + _GAP for p in images) - _GAP
    whole = Image.new("RGB", (max(p.width for p in images), height), _BACKGROUND)
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height + _GAP
    return whole
