"""Image grids of a cluster, or of a query and its top-k results, with frames and captions.

Notation: H x W pixels.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from unreid.data.images import load_image
from unreid.engine.atomic import replace_file

#: Green and red differ in brightness, for red-green colour blindness.
GREEN, RED, GREY, BLACK = (0, 158, 60), (213, 40, 40), (150, 150, 150), (20, 20, 20)
_CELL, _FRAME, _GAP, _LINE, _MARGIN = (64, 128), 4, 8, 14, 12
#: Width of a cell with its frame and gap, and size of the text in it.
_WIDE, _TEXT = _CELL[0] + 2 * _FRAME + _GAP, 10
_SHEET = re.compile(r"cluster_\d{4,}\.jpg")
_CORRECT = {True: GREEN, False: RED, None: GREY}


@dataclass(frozen=True)
class Cell:
    """A framed image with lines of text below it; a line that is too long is shortened."""

    path: str
    lines: tuple[str, ...] = ()
    frame: tuple[int, int, int] = GREY


def frame_of(correct: bool | None) -> tuple[int, int, int]:
    """Return the frame colour: green if correct, red if wrong, grey if unknown."""
    return _CORRECT[correct]


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib contains DejaVu, which has Latin, Greek, Cyrillic and more, for any file name.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _fitted(text: str, width: int, size: int) -> str:
    """Return the text, shortened in the middle to at most ``width`` pixels."""
    font, shown = _font(size), text
    while font.getlength(shown) > width and len(shown) > 3:
        half = (len(shown) - 2) // 2
        shown = f"{shown[:half]}…{shown[len(shown) - half :]}"
    return shown


def name_lines(name: str, most: int = 3) -> tuple[str, ...]:
    """Return a file name broken into lines that fit a cell.

    A name that needs more than ``most`` lines is shortened in the middle.
    """
    shown, width = name, _WIDE - 2
    while len(lines := _wrapped(shown, width, _TEXT)) > most:
        half = (len(shown) - 2) // 2
        shown = f"{shown[:half]}…{shown[len(shown) - half :]}"
    return lines


def _wrapped(text: str, width: int, size: int) -> tuple[str, ...]:
    """Return the text in lines of at most ``width``, broken after any character."""
    font, lines = _font(size), [""]
    for character in text:
        if lines[-1] and font.getlength(lines[-1] + character) > width:
            lines.append("")
        lines[-1] += character
    return tuple(lines)


def draw_grid(title: str, cells: Sequence[Cell], columns: int) -> Image.Image:
    """Return an image with the cells in rows below a title.

    Raises:
        UnreadableImageError: An image cannot be read; names it.
        ValueError: There is no cell.
    """
    if not cells:
        raise ValueError("a sheet must have at least one image, got 0")
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    lines = max(len(cell.lines) for cell in cells)
    wide = _WIDE
    high = _CELL[1] + 2 * _FRAME + lines * _LINE + _GAP
    width = max(columns * wide + 2 * _MARGIN, 420)
    sheet = Image.new("RGB", (width, rows * high + 2 * _MARGIN + 24), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _fitted(title, width - 2 * _MARGIN, 13), BLACK, _font(13))
    for i, cell in enumerate(cells):
        left, top = _MARGIN + i % columns * wide, _MARGIN + 24 + i // columns * high
        box = (left, top, left + _CELL[0] + 2 * _FRAME, top + _CELL[1] + 2 * _FRAME)
        draw.rectangle((*box[:2], box[2] - 1, box[3] - 1), cell.frame)
        sheet.paste(load_image(cell.path).resize(_CELL), (left + _FRAME, top + _FRAME))
        for n, line in enumerate(cell.lines):
            text = _fitted(line, wide - 2, _TEXT)
            draw.text((left, box[3] + 1 + n * _LINE), text, BLACK, _font(_TEXT))
    return sheet


def save_image(image: Image.Image, path: str) -> None:
    """Write the image as a JPEG, atomically."""
    with replace_file(path) as file:
        image.save(file, format="JPEG", quality=88)


def remove_sheets(folder: str) -> int:
    """Delete the cluster sheets of an earlier call (``cluster_0001.jpg``, ...).

    Other files in the folder stay.

    Returns:
        Number of deleted files.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    old = [name for name in names if _SHEET.fullmatch(name)]
    for name in old:
        os.remove(os.path.join(folder, name))
    return len(old)
