"""Whatever a caller has (a file, a PIL image, an array) as the RGB picture that a model is fed.

Notation: H x W pixels.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from unreid.data.images import UnreadableImageError, load_image

#: What a picture may be given as.
Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

ADVICE = "mend or remove the file, or leave such files out (--skip-bad, or skip_bad=True)"


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The RGB picture in a file, as training reads it.

    Raises:
        UnreadableImageError: names the file, what was found, and what can be done.
    """
    try:
        return load_image(os.fspath(path))
    except UnreadableImageError as error:
        cause = error.__cause__
        raise UnreadableImageError(
            f"{os.fspath(path)} cannot be read as an image ({type(cause).__name__}: {cause});"
            f" {ADVICE}"
        ) from cause


def as_rgb(name: str, picture: Picture) -> Image.Image:
    """An RGB picture, turned as its EXIF says; of RGBA the alpha is left out, grey is repeated.

    Args:
        name: What to call it in an error.
        picture: A path, a PIL image of any mode, or a uint8 array (H, W), (H, W, 1), (H, W, 3)
            in the order red, green, blue, or (H, W, 4). It is not changed.

    Raises:
        TypeError: anything else, or an array that is not uint8.
        ValueError: an array of another shape, or without a pixel.
        UnreadableImageError: see :func:`read_picture`.
    """
    if isinstance(picture, (str, os.PathLike)):
        return read_picture(picture)
    if isinstance(picture, Image.Image):
        if 0 in picture.size:
            raise ValueError(f"{name} must have pixels, got {picture.size[0]} x {picture.size[1]}")
        return ImageOps.exif_transpose(picture).convert("RGB")
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"{name} must be a path, a PIL image or an array,"
                        f" got {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8 in 0..255, got {picture.dtype}")
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.ndim not in (2, 3) or channels not in (1, 3, 4) or picture.size == 0:
        raise ValueError(f"{name} must have shape (H, W), (H, W, 3) or (H, W, 4),"
                         f" got {picture.shape}")
    flat = picture[..., 0] if picture.ndim == 3 and channels == 1 else picture
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
