"""Small pictures for pages."""

import base64
import io

from PIL import Image

SIDE = 96
"""Longer side in pixels."""


def thumbnail_uri(picture: Image.Image) -> str:
    """Return a small copy of a picture as a ``data:`` URI."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "webp", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
