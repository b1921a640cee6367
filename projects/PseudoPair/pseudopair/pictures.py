"""Pictures of what was learned: where the heads look, and where a position lands in the partner.

Notation: B images of h x w pixels, K heads, H x W positions of a map, P = H W, T taps of the
deformable convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

#: Colours of 0, 1/4, ... 1: dark blue, light blue, green, yellow, red.
_COLOURS = np.array(
    [[30, 30, 120], [40, 150, 230], [80, 200, 120], [250, 210, 60], [220, 40, 40]], dtype=float
)
#: Pixels between two pictures, and the colour there.
_GAP, _GROUND = 4, (255, 255, 255)
#: Lines are drawn this many times larger and then scaled down, which smooths them.
_OVERSAMPLING = 2


def colours(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape as (..., 3) uint8; those outside are clipped."""
    places = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(values, places, _COLOURS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def stretched(values: np.ndarray) -> np.ndarray:
    """Values brought to 0..1 by their own extremes; 0 where all are equal.

    Args:
        values: (H, W) float.
    """
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12:
        return np.zeros_like(values, dtype=float)
    return (values - low) / (high - low)


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """A grey version of the image under the colours of a heat map.

    Args:
        image: (h, w, 3) uint8.
        heat: (H, W) float, any range: brought to 0..1 by its extremes.
        strength: share of the colours, 0..1.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = image.shape[:2]
    small = Image.fromarray((255 * stretched(heat)).round().astype(np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255.0
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=float)[..., None]
    mixed = (1.0 - strength) * grey + strength * colours(large)
    return mixed.round().astype(np.uint8)


def attention_sheet(images: np.ndarray, heats: np.ndarray) -> Image.Image:
    """One row per image: the image, then each head's heat over it.

    Args:
        images: (B, h, w, 3) uint8.
        heats: (B, K, H, W) float.
    """
    rows = [[image, *(overlay(image, heat) for heat in own)] for image, own in zip(images, heats)]
    return sheet(rows)


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Pictures (h, w, 3) uint8 of one size in rows and columns."""
    height, width = rows[0][0].shape[:2]
    across, down = max(len(row) for row in rows), len(rows)
    size = (across * (width + _GAP) - _GAP, down * (height + _GAP) - _GAP)
    whole = Image.new("RGB", size, _GROUND)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            place = (x * (width + _GAP), y * (height + _GAP))
            whole.paste(Image.fromarray(picture), place)
    return whole


def landings(attention: np.ndarray, offsets: np.ndarray, expected: bool = False) -> np.ndarray:
    """Where in j each position of i lands: attention picks a position, its offsets shift it.

    Args:
        attention: (P, P) float; row p of i over the positions of the deformed j, sums of 1.
        offsets: (2 T, H, W) float, in positions: y and x of each tap in turn, as torchvision's
            deformable convolution takes them. A position is shifted by the mean of its taps.
        expected: the mean over the attention in place of its largest entry.

    Returns:
        (H, W, 2) float: y and x in 0..1 of the height and width, positions at cell centres;
        clipped to the picture.
    """
    height, width = offsets.shape[1:]
    shift = offsets.reshape(-1, 2, height, width).mean(axis=0).reshape(2, -1).T
    grid = np.indices((height, width)).reshape(2, -1).T + 0.5
    places = (grid + shift) / (height, width)
    found = attention @ places if expected else places[attention.argmax(axis=1)]
    return found.reshape(height, width, 2).clip(0.0, 1.0)


def alignment_picture(
    image_i: np.ndarray,
    image_j: np.ndarray,
    landed: np.ndarray,
    similarities: np.ndarray,
    *,
    scale: int = 2,
    most: int = 24,
) -> Image.Image:
    """Both images side by side, with arrows from positions of i to where they land in j.

    An arrow has the colour of its height in i, and is the stronger the more similar its ends are.

    Args:
        image_i, image_j: (h, w, 3) uint8.
        landed: (H, W, 2) of :func:`landings`.
        similarities: (H, W), -1..1, of each position with what it was aligned to.
        scale: how many times the images are enlarged.
        most: arrows drawn at most, those of the largest similarity.
    """
    height, width = image_i.shape[:2]
    factor = scale * _OVERSAMPLING
    left, top = (width + 4 * _GAP) * factor, height * factor
    canvas = Image.new("RGB", (left + width * factor, top), _GROUND)
    for image, x in ((image_i, 0), (image_j, left)):
        large = Image.fromarray(image).resize((width * factor, top), Image.Resampling.BICUBIC)
        canvas.paste(large, (x, 0))
    rows, columns = similarities.shape
    draw = ImageDraw.Draw(canvas, "RGBA")
    chosen = np.argsort(-similarities, axis=None, kind="stable")[:most]
    for place in chosen[::-1]:  # the strongest on top
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
    """A line with a dot where it starts and a head where it ends."""
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


def column(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any size one below the other."""
    height = sum(p.height + _GAP for p in pictures) - _GAP
    whole = Image.new("RGB", (max(p.width for p in pictures), height), _GROUND)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + _GAP
    return whole
