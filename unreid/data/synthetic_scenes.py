"""Synthetic scenes: the background panorama and the occluder of each camera.

A place is drawn once per camera, several images wide; each image cuts a window out of it.
Lengths inside are shares of the image's height, so a place looks alike at any size.

Notation: H, W height and width of one image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]

#: A panorama is this many images' heights wide.
PANORAMA = 5.0
#: How much of a place's contrast is left behind the people: the rest is haze of this colour.
CONTRAST = 0.34
HAZE = (142, 140, 138)


class _Wall:
    """An ink whose coordinates are shares of the height: x in [0, PANORAMA], y in [0, 1] down."""

    def __init__(self, height: int, rng: np.random.Generator) -> None:
        self.height, self.rng = height, rng
        self.image = Image.new("RGB", (round(PANORAMA * height), height), (128, 128, 128))
        self.ink = ImageDraw.Draw(self.image)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        h = self.height
        self.ink.rectangle((x0 * h, y0 * h, max(x0, x1) * h, max(y0, y1) * h), fill=color)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        h = self.height
        self.ink.ellipse(((x - rx) * h, (y - ry) * h, (x + rx) * h, (y + ry) * h), fill=color)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, color: Color) -> None:
        h = self.height
        self.ink.line((x0 * h, y0 * h, x1 * h, y1 * h), fill=color, width=max(1, round(width * h)))

    def vary(self, color: Color, spread: int) -> Color:
        r, g, b = np.clip(
            np.asarray(color) + self.rng.integers(-spread, spread + 1)
            + self.rng.integers(-spread // 3, spread // 3 + 1, 3), 0, 255,
        )  # fmt: skip
        return int(r), int(g), int(b)

    def ladder(self, start: float, step: float, jitter: float) -> np.ndarray:
        """Return positions along the panorama, ``step`` apart, each moved by up to ``jitter``."""
        places = np.arange(start, PANORAMA, step)
        return places + self.rng.uniform(-jitter, jitter, len(places))


def _plaza(wall: _Wall) -> None:
    """Draw a brick front with windows above pale slabs."""
    wall.box(0, 0, PANORAMA, 0.62, (150, 98, 80))
    for row, y in enumerate(np.arange(0.0, 0.62, 0.031)):
        for x in np.arange(-0.04 * (row % 2), PANORAMA, 0.083):
            wall.box(x, y, x + 0.076, y + 0.025, wall.vary((158, 106, 86), 16))
    for x in wall.ladder(0.2, 0.62, 0.08):
        wall.box(x - 0.02, 0.06, x + 0.25, 0.4, (214, 206, 192))
        wall.box(x, 0.08, x + 0.23, 0.38, wall.vary((72, 92, 110), 20))
        wall.line(x + 0.115, 0.08, x + 0.115, 0.38, 0.012, (214, 206, 192))
    wall.box(0, 0.62, PANORAMA, 1, (186, 178, 164))
    for y in (0.66, 0.74, 0.86):
        wall.line(0, y, PANORAMA, y, 0.006, (158, 150, 138))
    for x in np.arange(0, PANORAMA, 0.19):
        wall.line(x, 0.62, x - 0.18, 1, 0.006, (160, 152, 140))


def _lawn(wall: _Wall) -> None:
    """Draw trees and bushes over grass and a path."""
    wall.box(0, 0, PANORAMA, 0.4, (176, 198, 208))
    for x in wall.ladder(0.0, 0.11, 0.05):
        wall.oval(x, 0.36, 0.13, wall.rng.uniform(0.07, 0.2), wall.vary((62, 98, 60), 22))
    for x in wall.ladder(0.25, 0.5, 0.14):
        wall.box(x - 0.022, 0.2, x + 0.022, 0.56, (86, 68, 52))
        for _ in range(5):
            dx, dy = wall.rng.uniform(-0.12, 0.12), wall.rng.uniform(-0.1, 0.1)
            wall.oval(x + dx, 0.16 + dy, 0.1, 0.08, wall.vary((54, 104, 56), 24))
    wall.box(0, 0.52, PANORAMA, 0.8, (104, 142, 76))
    for _ in range(260):
        x, y = wall.rng.uniform(0, PANORAMA), wall.rng.uniform(0.53, 0.8)
        wall.line(x, y, x + 0.006, y - 0.03, 0.006, wall.vary((96, 136, 68), 26))
    wall.box(0, 0.8, PANORAMA, 1, (172, 160, 134))


def _shop(wall: _Wall) -> None:
    """Draw shelves of goods above a polished floor."""
    wall.box(0, 0, PANORAMA, 0.66, (206, 196, 172))
    for y in (0.16, 0.32, 0.48, 0.64):
        x = 0.0
        while x < PANORAMA:
            wide = wall.rng.uniform(0.025, 0.07)
            tall = wall.rng.uniform(0.06, 0.12)
            hue = ((190, 80, 60), (220, 190, 90), (90, 130, 170), (230, 226, 214), (96, 140, 96))
            color = wall.vary(hue[int(wall.rng.integers(5))], 24)
            if wall.rng.random() < 0.85:
                wall.box(x, y - tall, x + wide, y, color)
            x += wide + 0.008
        wall.box(0, y, PANORAMA, y + 0.018, (126, 104, 84))
    for x in wall.ladder(0.3, 0.85, 0.05):
        wall.box(x, 0, x + 0.05, 0.68, (236, 230, 214))
    wall.box(0, 0.68, PANORAMA, 1, (196, 180, 150))
    for x in np.arange(0, PANORAMA, 0.14):
        for row, y in enumerate((0.7, 0.78, 0.89)):
            if (round(x / 0.14) + row) % 2:
                wall.box(x, y, x + 0.14, y + 0.1, (182, 164, 132))


def _gate(wall: _Wall) -> None:
    """Draw a fence and banners before grey concrete."""
    wall.box(0, 0, PANORAMA, 0.58, (140, 148, 156))
    for x in wall.ladder(0.0, 0.34, 0.0):
        wall.box(x, 0, x + 0.012, 0.58, (112, 120, 128))
    for x in wall.ladder(0.22, 0.7, 0.12):
        wall.box(x, 0.05, x + 0.14, 0.34, wall.vary((70, 110, 150), 40))
        wall.box(x + 0.02, 0.1, x + 0.12, 0.14, (226, 228, 230))
        wall.box(x + 0.02, 0.18, x + 0.09, 0.21, (226, 228, 230))
    wall.box(0, 0.58, PANORAMA, 1, (122, 126, 130))
    for x in np.arange(0, PANORAMA, 0.055):
        wall.line(x, 0.34, x, 0.64, 0.01, (64, 72, 80))
    for y in (0.36, 0.62):
        wall.line(0, y, PANORAMA, y, 0.014, (64, 72, 80))
    for x in np.arange(0, PANORAMA, 0.28):
        wall.line(x, 0.66, x + 0.2, 1, 0.008, (104, 108, 112))


def _carpark(wall: _Wall) -> None:
    """Draw parked cars on bright asphalt."""
    wall.box(0, 0, PANORAMA, 0.3, (206, 216, 224))
    wall.box(0, 0.18, PANORAMA, 0.36, (168, 172, 168))
    wall.box(0, 0.36, PANORAMA, 1, (158, 158, 160))
    paints = ((196, 198, 200), (60, 64, 72), (156, 52, 48), (70, 96, 140), (226, 226, 222))
    for x in wall.ladder(0.1, 0.62, 0.06):
        paint = wall.vary(paints[int(wall.rng.integers(5))], 10)
        wall.oval(x + 0.24, 0.44, 0.2, 0.1, paint)
        wall.oval(x + 0.24, 0.43, 0.16, 0.06, (64, 74, 84))
        wall.box(x, 0.44, x + 0.5, 0.56, paint)
        for wheel in (0.1, 0.4):
            wall.oval(x + wheel, 0.56, 0.055, 0.055, (38, 38, 40))
            wall.oval(x + wheel, 0.56, 0.025, 0.025, (150, 152, 154))
    for x in np.arange(0, PANORAMA, 0.42):
        wall.line(x, 0.64, x - 0.22, 1, 0.02, (224, 224, 218))


def _passage(wall: _Wall) -> None:
    """Draw a tiled underpass with lamps and posters."""
    wall.box(0, 0, PANORAMA, 0.7, (116, 104, 96))
    for row, y in enumerate(np.arange(0.12, 0.7, 0.058)):
        for x in np.arange(0, PANORAMA, 0.058):
            wall.box(x, y, x + 0.052, y + 0.052, wall.vary((126, 112, 102), 9 + 2 * (row % 2)))
    for x in wall.ladder(0.15, 0.56, 0.1):
        wall.oval(x, 0.04, 0.13, 0.05, (244, 224, 176))
    for x in wall.ladder(0.3, 0.75, 0.12):
        wall.box(x, 0.2, x + 0.2, 0.5, wall.vary((150, 96, 110), 36))
        wall.oval(x + 0.1, 0.32, 0.055, 0.07, wall.vary((214, 190, 120), 30))
    wall.box(0, 0.7, PANORAMA, 1, (88, 82, 80))
    wall.box(0, 0.7, PANORAMA, 0.73, (58, 54, 54))


def _pole(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    ink.rectangle((w * 0.42, 0, w * 0.58, h), fill=(92, 96, 100, 255))
    ink.rectangle((w * 0.42, h * 0.3, w * 0.58, h * 0.34), fill=(206, 178, 60, 255))


def _hedge(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    for i in range(16):
        x, y = (i * 0.137) % 1.0 * w, h * (0.78 + 0.06 * ((i * 7) % 4))
        r, green = h * 0.07, 92 + 9 * (i % 5)
        ink.ellipse((x - r, y - r, x + r, y + r), fill=(52, green, 50, 255))
    ink.rectangle((0, h * 0.86, w, h), fill=(50, 94, 48, 255))


def _crates(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    for i, (x, y) in enumerate(((0.1, 0.8), (0.5, 0.8), (0.28, 0.62))):
        box = (w * x, h * y, w * (x + 0.38), h * (y + 0.19))
        ink.rectangle(box, fill=(170 - 12 * i, 124, 72, 255), outline=(110, 78, 44, 255), width=3)


def _railing(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    for i in range(7):
        ink.rectangle((w * i / 6.5, h * 0.62, w * (i / 6.5 + 0.03), h), fill=(54, 62, 72, 255))
    ink.rectangle((0, h * 0.6, w, h * 0.64), fill=(54, 62, 72, 255))


def _bonnet(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    paint, dark = (168, 60, 52, 255), (46, 48, 54, 255)
    for x in (0.14, 0.7):
        ink.rounded_rectangle((w * x, h * 0.9, w * (x + 0.16), h * 1.1), 4, fill=dark)
    ink.rounded_rectangle((w * 0.06, h * 0.76, w * 0.94, h * 0.95), int(h * 0.05), fill=paint)
    ink.rectangle((w * 0.34, h * 0.83, w * 0.66, h * 0.89), fill=dark)
    for x in (0.12, 0.72):
        ink.ellipse((w * x, h * 0.82, w * (x + 0.16), h * 0.88), fill=(236, 236, 216, 255))


def _column(ink: ImageDraw.ImageDraw, w: int, h: int) -> None:
    ink.rectangle((w * 0.3, 0, w * 0.7, h), fill=(104, 92, 86, 255))
    ink.rectangle((w * 0.3, 0, w * 0.38, h), fill=(132, 118, 108, 255))


#: Places and their occluders.
PLACES: dict[
    str, tuple[Callable[[_Wall], None], Callable[[ImageDraw.ImageDraw, int, int], None]]
] = {
    "plaza": (_plaza, _pole),
    "lawn": (_lawn, _hedge),
    "shop": (_shop, _crates),
    "gate": (_gate, _railing),
    "carpark": (_carpark, _bonnet),
    "passage": (_passage, _column),
}


@dataclass(frozen=True)
class Scene:
    """Synthetic scene: a panorama (RGB, H high) and one occluder (RGBA, W x H)."""

    panorama: Image.Image
    occluder: Image.Image


def draw_scene(name: str, size: tuple[int, int], seed: int) -> Scene:
    """Draw a scene.

    Args:
        name: a key of ``PLACES``.
        size: (W, H) of one image in pixels.
        seed: decides the clutter, >= 0.

    Returns:
        The scene; its panorama is ``PANORAMA * H`` wide.

    Raises:
        KeyError: ``name`` is no place.
    """
    paint, hide = PLACES[name]
    width, height = size
    wall = _Wall(2 * height, np.random.default_rng([seed, 11]))
    paint(wall)
    panorama = wall.image.reduce(2).filter(ImageFilter.GaussianBlur(height / 160))
    panorama = Image.blend(Image.new("RGB", panorama.size, HAZE), panorama, CONTRAST)
    front = Image.new("RGBA", (2 * width, 2 * height), (0, 0, 0, 0))
    hide(ImageDraw.Draw(front), 2 * width, 2 * height)
    return Scene(panorama, front.reduce(2))
