"""Pixels of a file, fast where it is a plain JPEG: the bytes of Pillow, which reads the rest.

With simplejpeg (``pip install unreid[jpeg]``), which is libjpeg-turbo as Pillow is; without it
Pillow reads all. What simplejpeg refuses, Pillow judges: an image is bad for one reason only.
torchvision's decoder is half as fast as simplejpeg [1], and deprecated since 0.29.

[0] ITU-T T.81 (JPEG), 1992, Annex B (markers and segments).
[1] https://gitlab.com/jfolz/simplejpeg (MIT)

Notation: H x W pixels.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from unreid.data.images import load_image
from unreid.reading.image_file import MAX_PIXELS

#: Larger files are left to Pillow, which does not read them whole.
_MAX_BYTES = 2**26
_START_OF_SCAN = 0xDA
#: Frames that the decoder takes: baseline, extended, progressive Huffman.
_FRAMES = (0xC0, 0xC1, 0xC2)
#: APP1 may hold an EXIF or XMP orientation, which Pillow knows to apply.
_APP1 = 0xE1


class JpegSize(NamedTuple):
    """Height and width of a plain JPEG."""

    height: int
    width: int


def plain_jpeg(data: bytes) -> JpegSize | None:
    """The size of a JPEG that needs nothing but decoding, or None: by its segments [0, B.2].

    Plain is: eight bits, one or three components, no APP1, no more pixels than are ever decoded.
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
    """Plain JPEG -> (H, W, 3) uint8, or None where simplejpeg is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    # Strict: what is damaged is left to Pillow.
    return functools.partial(decode_jpeg, colorspace="RGB", strict=True)


def decode(path: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file: the pixels of :func:`unreid.data.images.load_image`.

    Raises:
        UnreadableImageError: names the file and what was found.
    """
    fast = jpeg_decoder()
    if fast is not None:
        # Its errors are its own; Pillow's reading is the one that counts.
        with contextlib.suppress(Exception):
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size <= _MAX_BYTES:
                with open(path, "rb") as file:
                    data = file.read()
                if plain_jpeg(data) is not None:
                    return fast(data)
    return np.asarray(load_image(path))
