"""Reads images from disk, and names the file that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from unreid.reading.image_file import read_rgb

ADVICE = "mend or remove the file, or set UNSUP.BAD_IMAGE skip to train without it"


class UnreadableImageError(ValueError):
    """An image file that is missing, truncated or no image."""


def load_image(path: str) -> Image.Image:
    """An RGB image with the pixels of fast-reid's own reader (EXIF rotation, grey to RGB); of known
    formats and a bounded size alone: see :mod:`unreid.reading.image_file`.

    Raises:
        UnreadableImageError: names the file, what was found, and what can be done.
    """
    try:
        return read_rgb(path)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImageError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}); {ADVICE}"
        ) from error


def unreadable(paths: Sequence[str]) -> dict[str, str]:
    """The files that cannot be decoded to the end, with the reason; decodes all of them once."""

    def reason(path: str) -> str | None:
        try:
            load_image(path)
        except UnreadableImageError as error:
            return str(error.__cause__)
        return None

    # Pillow releases the lock while it decodes.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = list(pool.map(reason, paths))
    return {path: r for path, r in zip(paths, reasons) if r is not None}


class ImageDataset(Dataset):
    """Transformed images with integer fields, keyed as fast-reid's batches are.

    Args:
        paths: N file paths.
        transform: PIL image -> float tensor (3, H, W) in 0..255.
        fields: name -> N integers; each becomes an int64 entry of the batch.
    """

    def __init__(
        self, paths: Sequence[str], transform: Any, **fields: Sequence[int] | np.ndarray
    ) -> None:
        self.paths = paths
        self.transform = transform
        self.fields = fields

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            "images": self.transform(load_image(self.paths[index])),
            "img_paths": self.paths[index],
        }
        # Python integers: numpy scalars would not collate in every loader of fast-reid.
        item.update({name: int(values[index]) for name, values in self.fields.items()})
        return item
