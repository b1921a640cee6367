"""Thumbnails embedded in the page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from unreid.data.images import UnreadableImageError, load_image

#: Maximum (width, height) in pixels; larger than displayed, for high-density screens.
SIZE = (80, 160)


def thumbnail(path: str, size: tuple[int, int] = SIZE) -> str | None:
    """Return a JPEG ``data:`` URI without metadata, or None if the image cannot be read.

    Args:
        path: Image file.
        size: Maximum width and height; images are never enlarged.
    """
    try:
        image = load_image(path).convert("RGB")
    except UnreadableImageError:
        return None
    image.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
