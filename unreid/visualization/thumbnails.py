"""Pictures small enough to travel inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from unreid.data.images import UnreadableImageError, load_image

#: Of a thumbnail at most, in pixels: a little more than what is shown, for dense screens.
SIZE = (80, 160)


def thumbnail(path: str, size: tuple[int, int] = SIZE) -> str | None:
    """The picture as a ``data:`` address of a JPEG without metadata; None where it cannot be read.

    Args:
        path: An image file.
        size: Width and height that it fits into; it is never made larger.
    """
    try:
        picture = load_image(path).convert("RGB")
    except UnreadableImageError:
        return None
    picture.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
