"""From the bytes of an image file to 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from clbench.core.errors import ClbenchError

SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files that are read as images where a folder, and no list, says which images there are."""

PROBLEMS: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises on damaged and on huge images."""


def decode(path: Path, content: bytes) -> Image.Image:
    """The first picture of an image file in 8-bit RGB, as PIL's convert makes it.

    Gray images of 16 bits keep their upper 8, as PIL keeps them of 16-bit colours; its convert
    would make everything above 255 white.

    Args:
        path: where the content comes from, for messages.
        content: of the file.

    Raises:
        ClbenchError: the image is damaged, or has pixels whose range nobody knows.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PNG"):
                gray = np.asarray(opened).astype(np.uint32) >> 8
                return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
            if opened.mode not in ("I", "F"):
                return opened.convert("RGB")
    except PROBLEMS as error:
        # PIL names the object that it read from, which says nothing here.
        reason = str(error).partition(" <_io.BytesIO")[0]
        raise ClbenchError(f"cannot read the image {path}: {reason}") from error
    raise ClbenchError(
        f"cannot read the image {path}: its pixels are numbers of 32 bits, of which black and "
        "white are not known; convert it to 8 or 16 bits"
    )
