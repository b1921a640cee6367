"""Conversion of model inputs (file, PIL image, array) to RGB images.

Notation: H x W pixels.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from unreid.data.images import UnreadableImageError, load_image

#: Accepted types of an image.
ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

ADVICE = "repair or remove the file, or skip such files (--skip-bad, or skip_bad=True)"


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the RGB image of a file, decoded as in training.

    Raises:
        UnreadableImageError: The file cannot be read; names it, the reason and the options.
    """
    try:
        return load_image(os.fspath(path))
    except UnreadableImageError as error:
        cause = error.__cause__
        raise UnreadableImageError(
            f"{os.fspath(path)} cannot be read as an image ({type(cause).__name__}: {cause});"
            f" {ADVICE}"
        ) from cause


def as_rgb(name: str, image: ImageInput) -> Image.Image:
    """Return an RGB image, rotated by its EXIF orientation.

    The alpha channel is dropped; grey images get three equal channels. The input is not changed.

    Args:
        name: Name of the image in error messages.
        image: A path, a PIL image of any mode, or a uint8 array (H, W), (H, W, 1), (H, W, 3)
            (RGB) or (H, W, 4) (RGBA).

    Raises:
        TypeError: The type is not supported, or the array is not uint8.
        ValueError: The array has another shape, or the image has no pixel.
        UnreadableImageError: See :func:`read_image`.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ValueError(f"{name} must have pixels, got {image.size[0]} x {image.size[1]}")
        return ImageOps.exif_transpose(image).convert("RGB")
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{name} must be a path, a PIL image or an array, got {type(image).__name__}"
        )
    if image.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8 in 0..255, got {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            f"{name} must have shape (H, W), (H, W, 3) or (H, W, 4), got {image.shape}"
        )
    flat = image[..., 0] if image.ndim == 3 and channels == 1 else image
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
