"""From the bytes of an image file to 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.core.foreign.sizes import GROWTH, most_bytes

SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files that are read as images where a folder, and no list, says which images there are."""


def decode(path: Path, content: bytes) -> Image.Image:
    """The first picture of an image file in 8-bit RGB, as PIL's convert makes it.

    Gray images of 16 bits keep their upper 8, as PIL keeps them of 16-bit colours; its convert
    would make everything above 255 white.

    Args:
        path: where the content comes from, for messages.
        content: of the file.

    Raises:
        ClbenchError: the image is damaged, out of proportion to its file, or has pixels whose range
            nobody knows.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            _require_proportion(path, content, opened)
            if opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PNG"):
                gray = np.asarray(opened).astype(np.uint32) >> 8
                return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
            if opened.mode not in ("I", "F"):
                return opened.convert("RGB")
    except ClbenchError:
        raise
    except Exception as error:  # PIL promises nothing for damaged images
        # PIL names the object that it read from, which says nothing here.
        reason = str(error).partition(" <_io.BytesIO")[0]
        raise ClbenchError(f"cannot read the image {path}: {reason}") from error
    raise ClbenchError(
        f"cannot read the image {path}: its pixels are numbers of 32 bits, of which black and "
        "white are not known; convert it to 8 or 16 bits"
    )


def _require_proportion(path: Path, content: bytes, opened: Image.Image) -> None:
    """Refuse a picture of which a small file states that it is huge."""
    width, height = opened.size
    if 3 * width * height > most_bytes(len(content)):
        raise ClbenchError(
            f"the image {path} would have {width} x {height} pixels, more than {GROWTH} times its "
            "size: refused; scale it down"
        )
