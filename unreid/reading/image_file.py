"""Reader of untrusted image files: known formats and a bounded number of pixels only."""

from __future__ import annotations

import contextlib
import os
import stat

from PIL import Image, ImageOps

#: Accepted formats. Pillow decodes some others with external programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
#: Maximum number of pixels: 100 MB as RGB, which a file of a few kB can declare.
MAX_PIXELS = 2**25


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image without decoding it; its size is read from the header.

    Raises:
        OSError: Not a regular file, or not one of :data:`FORMATS`.
        ValueError: More than :data:`MAX_PIXELS` pixels.
        Exception: Errors of Pillow for a damaged header.
    """
    # Opening a pipe would block.
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
    """Raise an error if the header declares more than :data:`MAX_PIXELS` pixels.

    Raises:
        ValueError: The image is too large; the message names the size and the limit.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels, and at most {MAX_PIXELS} are decoded: it is"
            " no crop, or made to fill the memory"
        )


def read_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as RGB in its EXIF orientation, with the same pixels as fast-reid's reader.

    Raises:
        Exception: See :func:`open_image`; also errors of Pillow for a truncated file.
    """
    with open_image(path) as image:
        image.load()
        turned: Image.Image = image
        # A damaged EXIF block does not affect the pixels.
        with contextlib.suppress(Exception):
            turned = ImageOps.exif_transpose(image)
        return turned.convert("RGB") if turned is image or turned.mode != "RGB" else turned
