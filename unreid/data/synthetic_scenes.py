"""Synthetic scenes: the background panorama and the occluder of each camera.

The panorama of a scene is rendered once per camera; the background of each image is a crop of it.
Lengths are fractions of the image height, so that a scene does not depend on the image size.

Notation: H, W height and width of one image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]

#: Width of a panorama in image heights.
PANORAMA = 5.0
#: Contrast of the background after blending it with the colour ``HAZE``.
CONTRAST = 0.34
HAZE = (142, 140, 138)


class _Panorama:
    """Canvas with coordinates in image heights: x in [0, PANORAMA], y in [0, 1] downwards."""

    def __init__(self, height: int, rng: np.random.Generator) -> None:
        self.height, self.rng = height, rng
        self.image = Image.new("RGB", (round(PANORAMA * height), height), (128, 128, 128))
        self.draw = ImageDraw.Draw(self.image)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Draw a rectangle."""
        h = self.height
        self.draw.rectangle((x0 * h, y0 * h, max(x0, x1) * h, max(y0, y1) * h), fill=color)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Draw an ellipse."""
        h = self.height
        self.draw.ellipse(((x - rx) * h, (y - ry) * h, (x + rx) * h, (y + ry) * h), fill=color)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, color: Color) -> None:
        """Draw a line."""
        h = self.height
        self.draw.line((x0 * h, y0 * h, x1 * h, y1 * h), fill=color, width=max(1, round(width * h)))

    def vary(self, color: Color, spread: int) -> Color:
        """Return a random colour near ``color``."""
        r, g, b = np.clip(
            np.asarray(color) + self.rng.integers(-spread, spread + 1)
            + self.rng.integers(-spread // 3, spread // 3 + 1, 3), 0, 255,
        )  # fmt: skip
        return int(r), int(g), int(b)

    def jittered_positions(self, start: float, step: float, jitter: float) -> np.ndarray:
        """Return x from ``start`` in steps of ``step``, plus uniform noise in +- ``jitter``."""
        positions = np.arange(start, PANORAMA, step)
        return positions + self.rng.uniform(-jitter, jitter, len(positions))


def _plaza(canvas: _Panorama) -> None:
    """Draw a brick facade with windows, and a paved square."""
    canvas.box(0, 0, PANORAMA, 0.62, (150, 98, 80))
    for row, y in enumerate(np.arange(0.0, 0.62, 0.031)):
        for x in np.arange(-0.04 * (row % 2), PANORAMA, 0.083):
            canvas.box(x, y, x + 0.076, y + 0.025, canvas.vary((158, 106, 86), 16))
    for x in canvas.jittered_positions(0.2, 0.62, 0.08):
        canvas.box(x - 0.02, 0.06, x + 0.25, 0.4, (214, 206, 192))
        canvas.box(x, 0.08, x + 0.23, 0.38, canvas.vary((72, 92, 110), 20))
        canvas.line(x + 0.115, 0.08, x + 0.115, 0.38, 0.012, (214, 206, 192))
    canvas.box(0, 0.62, PANORAMA, 1, (186, 178, 164))
    for y in (0.66, 0.74, 0.86):
        canvas.line(0, y, PANORAMA, y, 0.006, (158, 150, 138))
    for x in np.arange(0, PANORAMA, 0.19):
        canvas.line(x, 0.62, x - 0.18, 1, 0.006, (160, 152, 140))


def _lawn(canvas: _Panorama) -> None:
    """Draw trees, bushes, grass and a path."""
    canvas.box(0, 0, PANORAMA, 0.4, (176, 198, 208))
    for x in canvas.jittered_positions(0.0, 0.11, 0.05):
        canvas.oval(x, 0.36, 0.13, canvas.rng.uniform(0.07, 0.2), canvas.vary((62, 98, 60), 22))
    for x in canvas.jittered_positions(0.25, 0.5, 0.14):
        canvas.box(x - 0.022, 0.2, x + 0.022, 0.56, (86, 68, 52))
        for _ in range(5):
            dx, dy = canvas.rng.uniform(-0.12, 0.12), canvas.rng.uniform(-0.1, 0.1)
            canvas.oval(x + dx, 0.16 + dy, 0.1, 0.08, canvas.vary((54, 104, 56), 24))
    canvas.box(0, 0.52, PANORAMA, 0.8, (104, 142, 76))
    for _ in range(260):
        x, y = canvas.rng.uniform(0, PANORAMA), canvas.rng.uniform(0.53, 0.8)
        canvas.line(x, y, x + 0.006, y - 0.03, 0.006, canvas.vary((96, 136, 68), 26))
    canvas.box(0, 0.8, PANORAMA, 1, (172, 160, 134))


def _shop(canvas: _Panorama) -> None:
    """Draw shelves and a tiled floor."""
    canvas.box(0, 0, PANORAMA, 0.66, (206, 196, 172))
    for y in (0.16, 0.32, 0.48, 0.64):
        x = 0.0
        while x < PANORAMA:
            wide = canvas.rng.uniform(0.025, 0.07)
            tall = canvas.rng.uniform(0.06, 0.12)
            hue = ((190, 80, 60), (220, 190, 90), (90, 130, 170), (230, 226, 214), (96, 140, 96))
            color = canvas.vary(hue[int(canvas.rng.integers(5))], 24)
            if canvas.rng.random() < 0.85:
                canvas.box(x, y - tall, x + wide, y, color)
            x += wide + 0.008
        canvas.box(0, y, PANORAMA, y + 0.018, (126, 104, 84))
    for x in canvas.jittered_positions(0.3, 0.85, 0.05):
        canvas.box(x, 0, x + 0.05, 0.68, (236, 230, 214))
    canvas.box(0, 0.68, PANORAMA, 1, (196, 180, 150))
    for x in np.arange(0, PANORAMA, 0.14):
        for row, y in enumerate((0.7, 0.78, 0.89)):
            if (round(x / 0.14) + row) % 2:
                canvas.box(x, y, x + 0.14, y + 0.1, (182, 164, 132))


def _gate(canvas: _Panorama) -> None:
    """Draw a fence, banners and grey concrete."""
    canvas.box(0, 0, PANORAMA, 0.58, (140, 148, 156))
    for x in canvas.jittered_positions(0.0, 0.34, 0.0):
        canvas.box(x, 0, x + 0.012, 0.58, (112, 120, 128))
    for x in canvas.jittered_positions(0.22, 0.7, 0.12):
        canvas.box(x, 0.05, x + 0.14, 0.34, canvas.vary((70, 110, 150), 40))
        canvas.box(x + 0.02, 0.1, x + 0.12, 0.14, (226, 228, 230))
        canvas.box(x + 0.02, 0.18, x + 0.09, 0.21, (226, 228, 230))
    canvas.box(0, 0.58, PANORAMA, 1, (122, 126, 130))
    for x in np.arange(0, PANORAMA, 0.055):
        canvas.line(x, 0.34, x, 0.64, 0.01, (64, 72, 80))
    for y in (0.36, 0.62):
        canvas.line(0, y, PANORAMA, y, 0.014, (64, 72, 80))
    for x in np.arange(0, PANORAMA, 0.28):
        canvas.line(x, 0.66, x + 0.2, 1, 0.008, (104, 108, 112))


def _carpark(canvas: _Panorama) -> None:
    """Draw parked cars on bright asphalt."""
    canvas.box(0, 0, PANORAMA, 0.3, (206, 216, 224))
    canvas.box(0, 0.18, PANORAMA, 0.36, (168, 172, 168))
    canvas.box(0, 0.36, PANORAMA, 1, (158, 158, 160))
    paints = ((196, 198, 200), (60, 64, 72), (156, 52, 48), (70, 96, 140), (226, 226, 222))
    for x in canvas.jittered_positions(0.1, 0.62, 0.06):
        paint = canvas.vary(paints[int(canvas.rng.integers(5))], 10)
        canvas.oval(x + 0.24, 0.44, 0.2, 0.1, paint)
        canvas.oval(x + 0.24, 0.43, 0.16, 0.06, (64, 74, 84))
        canvas.box(x, 0.44, x + 0.5, 0.56, paint)
        for wheel in (0.1, 0.4):
            canvas.oval(x + wheel, 0.56, 0.055, 0.055, (38, 38, 40))
            canvas.oval(x + wheel, 0.56, 0.025, 0.025, (150, 152, 154))
    for x in np.arange(0, PANORAMA, 0.42):
        canvas.line(x, 0.64, x - 0.22, 1, 0.02, (224, 224, 218))


def _passage(canvas: _Panorama) -> None:
    """Draw a tiled underpass with lamps and posters."""
    canvas.box(0, 0, PANORAMA, 0.7, (116, 104, 96))
    for row, y in enumerate(np.arange(0.12, 0.7, 0.058)):
        for x in np.arange(0, PANORAMA, 0.058):
            canvas.box(x, y, x + 0.052, y + 0.052, canvas.vary((126, 112, 102), 9 + 2 * (row % 2)))
    for x in canvas.jittered_positions(0.15, 0.56, 0.1):
        canvas.oval(x, 0.04, 0.13, 0.05, (244, 224, 176))
    for x in canvas.jittered_positions(0.3, 0.75, 0.12):
        canvas.box(x, 0.2, x + 0.2, 0.5, canvas.vary((150, 96, 110), 36))
        canvas.oval(x + 0.1, 0.32, 0.055, 0.07, canvas.vary((214, 190, 120), 30))
    canvas.box(0, 0.7, PANORAMA, 1, (88, 82, 80))
    canvas.box(0, 0.7, PANORAMA, 0.73, (58, 54, 54))


def _pole(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw a pole."""
    draw.rectangle((w * 0.42, 0, w * 0.58, h), fill=(92, 96, 100, 255))
    draw.rectangle((w * 0.42, h * 0.3, w * 0.58, h * 0.34), fill=(206, 178, 60, 255))


def _hedge(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw a hedge."""
    for i in range(16):
        x, y = (i * 0.137) % 1.0 * w, h * (0.78 + 0.06 * ((i * 7) % 4))
        r, green = h * 0.07, 92 + 9 * (i % 5)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(52, green, 50, 255))
    draw.rectangle((0, h * 0.86, w, h), fill=(50, 94, 48, 255))


def _crates(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw three crates."""
    for i, (x, y) in enumerate(((0.1, 0.8), (0.5, 0.8), (0.28, 0.62))):
        box = (w * x, h * y, w * (x + 0.38), h * (y + 0.19))
        draw.rectangle(box, fill=(170 - 12 * i, 124, 72, 255), outline=(110, 78, 44, 255), width=3)


def _railing(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw a railing."""
    for i in range(7):
        draw.rectangle((w * i / 6.5, h * 0.62, w * (i / 6.5 + 0.03), h), fill=(54, 62, 72, 255))
    draw.rectangle((0, h * 0.6, w, h * 0.64), fill=(54, 62, 72, 255))


def _bonnet(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw the front of a car."""
    paint, dark = (168, 60, 52, 255), (46, 48, 54, 255)
    for x in (0.14, 0.7):
        draw.rounded_rectangle((w * x, h * 0.9, w * (x + 0.16), h * 1.1), 4, fill=dark)
    draw.rounded_rectangle((w * 0.06, h * 0.76, w * 0.94, h * 0.95), int(h * 0.05), fill=paint)
    draw.rectangle((w * 0.34, h * 0.83, w * 0.66, h * 0.89), fill=dark)
    for x in (0.12, 0.72):
        draw.ellipse((w * x, h * 0.82, w * (x + 0.16), h * 0.88), fill=(236, 236, 216, 255))


def _column(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    """Draw a column."""
    draw.rectangle((w * 0.3, 0, w * 0.7, h), fill=(104, 92, 86, 255))
    draw.rectangle((w * 0.3, 0, w * 0.38, h), fill=(132, 118, 108, 255))


#: Name -> functions that draw the panorama and the occluder.
SCENES: dict[
    str, tuple[Callable[[_Panorama], None], Callable[[ImageDraw.ImageDraw, int, int], None]]
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
    """A scene.

    Attributes:
        panorama: RGB, H high and ``PANORAMA * H`` wide.
        occluder: RGBA, W x H.
    """

    panorama: Image.Image
    occluder: Image.Image


def render_scene(name: str, size: tuple[int, int], seed: int) -> Scene:
    """Render a scene.

    Args:
        name: A key of :data:`SCENES`.
        size: (W, H) of one image in pixels.
        seed: Random seed, >= 0.

    Raises:
        KeyError: Unknown name.
    """
    draw_panorama, draw_occluder = SCENES[name]
    width, height = size
    canvas = _Panorama(2 * height, np.random.default_rng([seed, 11]))
    draw_panorama(canvas)
    panorama = canvas.image.reduce(2).filter(ImageFilter.GaussianBlur(height / 160))
    panorama = Image.blend(Image.new("RGB", panorama.size, HAZE), panorama, CONTRAST)
    occluder = Image.new("RGBA", (2 * width, 2 * height), (0, 0, 0, 0))
    draw_occluder(ImageDraw.Draw(occluder), 2 * width, 2 * height)
    return Scene(panorama, occluder.reduce(2))
