"""Read image files as RGB pixels, with errors that name the file.

Pillow defines which files are valid. If simplejpeg is installed (``pip install unreid[jpeg]``), it
decodes plain JPEGs to the same pixels in less time; both use libjpeg-turbo. The decoder of
torchvision takes twice the time of simplejpeg [1] and is deprecated since 0.29.

[0] ITU-T T.81 (JPEG), 1992, Annex B (markers and segments).
[1] https://gitlab.com/jfolz/simplejpeg (MIT)

Notation: H x W pixels.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from unreid.reading.image_file import MAX_PIXELS, read_rgb

ADVICE = "repair or remove the file, or set UNSUP.BAD_IMAGE skip to train without it"

#: Larger files are read by Pillow, which does not load them into memory first.
_MAX_BYTES = 2**26
_START_OF_SCAN = 0xDA
#: Frames that simplejpeg decodes: baseline, extended, progressive Huffman.
_FRAMES = (0xC0, 0xC1, 0xC2)
#: APP1 may contain an EXIF or XMP orientation, which Pillow applies.
_APP1 = 0xE1


class UnreadableImageError(ValueError):
    """An image file is missing, damaged, or not an image."""


def load_image(path: str) -> Image.Image:
    """Read an image as RGB with Pillow; the pixels equal those of fast-reid's reader.

    The EXIF orientation is applied and greyscale images become RGB. Formats and the number of
    pixels are limited; see :mod:`unreid.reading.image_file`.

    Raises:
        UnreadableImageError: The file cannot be read; names it, the reason and the options.
    """
    try:
        return read_rgb(path)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImageError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}); {ADVICE}"
        ) from error


def find_unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Decode every file once; return path -> reason of those that cannot be decoded."""

    def reason(path: str) -> str | None:
        try:
            load_image(path)
        except UnreadableImageError as error:
            return str(error.__cause__)
        return None

    # Pillow releases the global interpreter lock while it decodes.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = list(pool.map(reason, paths))
    return {path: r for path, r in zip(paths, reasons) if r is not None}


class JpegSize(NamedTuple):
    """Height and width of a plain JPEG."""

    height: int
    width: int


def plain_jpeg(data: bytes) -> JpegSize | None:
    """Return the size of a plain JPEG from its segments [0, B.2], or None for another file.

    A plain JPEG has 8 bits, one or three components, no APP1 segment, and at most ``MAX_PIXELS``
    pixels. It needs no step but decoding.
    """
    if data[:2] != b"\xff\xd8":
        return None
    place, size = 2, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return size
        if marker == _APP1:
            return None
        if marker in _FRAMES and place + 10 <= len(data):
            height = data[place + 5] << 8 | data[place + 6]
            width = data[place + 7] << 8 | data[place + 8]
            known = data[place + 4] == 8 and data[place + 9] in (1, 3)
            if not known or not 0 < height * width <= MAX_PIXELS:
                return None
            size = JpegSize(height, width)
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None


@functools.cache
def jpeg_decoder() -> Callable[[bytes], np.ndarray] | None:
    """Return simplejpeg's decoder (bytes -> (H, W, 3) uint8), or None if it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    # Strict: simplejpeg rejects damaged files, which Pillow then handles.
    return functools.partial(decode_jpeg, colorspace="RGB", strict=True)


def decode(path: str) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB; the pixels equal those of :func:`load_image`.

    Raises:
        UnreadableImageError: The file cannot be read; names it and the reason.
    """
    fast = jpeg_decoder()
    if fast is not None:
        # If simplejpeg fails for any reason, Pillow decides whether the file is valid.
        with contextlib.suppress(Exception):
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size <= _MAX_BYTES:
                with open(path, "rb") as file:
                    data = file.read()
                if plain_jpeg(data) is not None:
                    return fast(data)
    return np.asarray(load_image(path))
