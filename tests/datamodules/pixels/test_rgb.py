"""Image files of every depth: none is white by mistake, and what cannot be known is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.datamodules.pixels.rgb import SUFFIXES, decode

PATH = Path("some") / "image.tif"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp() -> NDArray[np.uint16]:
    """All values from black to white that a pixel of 16 bits can have."""
    return np.arange(2**16, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_of_16_bits_keeps_its_upper_8(kind: str) -> None:
    image = decode(PATH, encoded(Image.fromarray(ramp()), kind))
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], ramp() >> 8)


def test_the_order_of_the_two_bytes_plays_no_part() -> None:
    big = Image.frombytes("I;16B", (256, 256), ramp().astype(">u2").tobytes())
    content = encoded(big, "TIFF")
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "I;16B"
    np.testing.assert_array_equal(np.asarray(decode(PATH, content))[..., 0], ramp() >> 8)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "BMP", "WEBP"])
def test_colours_of_8_bits_are_as_they_were(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(PATH, encoded(Image.fromarray(pixels), kind, **options))
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(kind: type) -> None:
    content = encoded(Image.fromarray(np.full((4, 4), 70000, dtype=kind)), "TIFF")
    with pytest.raises(ClbenchError, match=r"some/image\.tif: its pixels are numbers of 32 bits"):
        decode(PATH, content)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_one_line_with_its_name(content: bytes) -> None:
    with pytest.raises(ClbenchError, match=r"cannot read the image some/image\.tif: ") as caught:
        decode(PATH, content)
    assert "BytesIO" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tiff_is_among_the_suffixes_that_are_read() -> None:
    assert {".tif", ".tiff", ".jpg", ".png"} <= SUFFIXES
    assert ".gif" not in SUFFIXES
