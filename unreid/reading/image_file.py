"""An image of a file: of a known format, of a bounded number of pixels, or an error."""

from __future__ import annotations

import contextlib
import os
import stat

from PIL import Image, ImageOps

#: What is decoded. Pillow knows more, some by calling other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
#: More pixels are not decoded: 100 MB as RGB, of a file that may have a few kB.
MAX_PIXELS = 2**25


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The image in a file, not decoded yet; its size is that of the header.

    Raises:
        OSError: no file, no regular file, or none of :data:`FORMATS`.
        ValueError: more than :data:`MAX_PIXELS`.
        Exception: whatever Pillow stumbles over in a damaged header.
    """
    # A pipe would be waited for without end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("no regular file")
    image = Image.open(path, formats=FORMATS)
    try:
        check_size(*image.size)
    except ValueError:
        image.close()
        raise
    return image


def check_size(width: int, height: int) -> None:
    """Refuse an image whose header promises more pixels than are decoded.

    Raises:
        ValueError: names the size and the limit.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, and at most {MAX_PIXELS} are decoded: it is"
                         " no crop, or made to fill the memory")


def read_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """The image as RGB, turned as its EXIF says: the pixels of fast-reid's own reader.

    Raises:
        Exception: see :func:`open_image`; or Pillow's own, of a file that is cut off.
    """
    with open_image(path) as image:
        image.load()
        turned: Image.Image = image
        # A damaged EXIF says nothing of the pixels.
        with contextlib.suppress(Exception):
            turned = ImageOps.exif_transpose(image)
        return turned.convert("RGB") if turned is image or turned.mode != "RGB" else turned
