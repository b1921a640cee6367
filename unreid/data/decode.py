"""Pixels of a file, fast where it is a plain JPEG: the same bytes as Pillow's, who reads the rest.

simplejpeg (``pip install unreid[jpeg]``) is taken where it is installed, else torchvision; both are
libjpeg-turbo, as Pillow is. What they refuse, Pillow judges: an image is bad for one reason only.

[0] ITU-T T.81 (JPEG), 1992, Annex B (markers and segments).
[1] https://gitlab.com/jfolz/simplejpeg (MIT)

Letters: H x W pixels.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from unreid.data.images import load_image
from unreid.reading.pictures import MAX_PIXELS

#: Larger files are left to Pillow, which does not read them whole.
_MAX_BYTES = 2**26
_START_OF_SCAN = 0xDA
#: Frames that both decoders take: baseline, extended, progressive Huffman.
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


def _by_simplejpeg() -> Callable[[bytes], np.ndarray] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return functools.partial(decode_jpeg, colorspace="RGB", strict=True)


def _by_torchvision() -> Callable[[bytes], np.ndarray]:
    from torchvision.io import ImageReadMode, decode_jpeg

    def decoded(data: bytes) -> np.ndarray:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)  # torch wants to own bytes
        return decode_jpeg(buffer, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()

    return decoded


@functools.cache
def jpeg_decoder() -> Callable[[bytes], np.ndarray]:
    """The fastest decoder of plain JPEGs that is here: bytes -> (H, W, 3) uint8."""
    return _by_simplejpeg() or _by_torchvision()


def decode(path: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file: the pixels of :func:`unreid.data.images.load_image`.

    Raises:
        UnreadableImageError: names the file and what was found.
    """
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size <= _MAX_BYTES:
            with open(path, "rb") as file:
                data = file.read()
            if plain_jpeg(data) is not None:
                return np.ascontiguousarray(jpeg_decoder()(data))
    except Exception:  # each decoder has errors of its own; Pillow's reading is the one that counts
        pass
    return np.asarray(load_image(path))
