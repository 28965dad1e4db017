"""Systematic changes of finished pictures: what makes tasks of one domain differ, and shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clbench.datamodules.mini.canvas import SIDE

Pictures = NDArray[np.uint8]
Channels = tuple[float, float, float]

UNMIXED: Final[tuple[Channels, Channels, Channels]] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Filter:
    """One change, the same for all pictures of a set but for the noise.

    The steps are taken in the order of the attributes, and the defaults change nothing. Only
    single operations on single numbers are used, whose results no library's version changes.

    Attributes:
        angle: turn in degrees, counter-clockwise; the corners are filled with the colour of the
            picture's upper left pixel.
        blur: weight that each of the four neighbours of a pixel gets, twice over.
        mixing: for each new channel the weights of the old ones.
        inverted: whether bright and dark change places.
        contrast: factor on the distance from medium grey.
        tint: RGB colour that lies over the picture.
        cover: weight of the tint.
        noise: standard deviation of the noise, of 255.
    """

    angle: float = 0.0
    blur: float = 0.0
    mixing: tuple[Channels, Channels, Channels] = UNMIXED
    inverted: bool = False
    contrast: float = 1.0
    tint: Channels = (0.0, 0.0, 0.0)
    cover: float = 0.0
    noise: float = 0.0

    def apply(self, pictures: Pictures, rng: np.random.Generator) -> Pictures:
        """Change pictures, shape (N, 3, SIDE, SIDE); the generator makes the noise."""
        values = (_turned(pictures, self.angle) if self.angle else pictures).astype(np.float32)
        for _ in range(2 * bool(self.blur)):
            values = _blurred(values, self.blur)
        if self.mixing != UNMIXED:
            values = _mixed(values, self.mixing)
        if self.inverted:
            values = 255 - values
        values = (values - np.float32(127.5)) * np.float32(self.contrast) + np.float32(127.5)
        tint = np.asarray(self.tint, np.float32)[:, None, None] * np.float32(self.cover)
        values = values * np.float32(1 - self.cover) + tint
        if self.noise:
            drawn = rng.standard_normal(values.shape, dtype=np.float32)
            values = values + np.float32(self.noise) * drawn
        return np.asarray(np.rint(values).clip(0, 255).astype(np.uint8))


INVERTED: Final = Filter(inverted=True)
CORRUPTED: Final = Filter(blur=0.15, noise=30.0)


def draw_filter(rng: np.random.Generator) -> Filter:
    """A filter in which every step is taken, some of them by little."""
    mixing = 0.6 * np.eye(3)[rng.permutation(3)] + 0.4 * rng.dirichlet(np.ones(3), size=3)
    first, second, third = (tuple(row) for row in mixing.round(3).tolist())
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    return Filter(
        angle=round(rng.uniform(-15, 15), 1),
        blur=round(rng.uniform(0.0, 0.12), 3),
        mixing=(first, second, third),
        inverted=bool(rng.random() < 0.5),
        contrast=round(rng.uniform(0.5, 1.2), 2),
        tint=(float(red), float(green), float(blue)),
        cover=round(rng.uniform(0.1, 0.5), 2),
        noise=round(rng.uniform(0.0, 25.0), 1),
    )


def _turned(pictures: Pictures, angle: float) -> Pictures:
    turned = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        corner = tuple(picture[:, 0, 0].tolist())
        image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corner)
        turned[i] = np.asarray(image).transpose(2, 0, 1)
    return turned


def _blurred(values: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    edged = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    around = edged[..., :SIDE, 1:-1] + edged[..., 2:, 1:-1]
    around = around + edged[..., 1:-1, :SIDE] + edged[..., 1:-1, 2:]
    return np.float32(1 - 4 * weight) * values + np.float32(weight) * around


def _mixed(
    values: NDArray[np.float32], weights: tuple[Channels, Channels, Channels]
) -> NDArray[np.float32]:
    red, green, blue = values[:, 0], values[:, 1], values[:, 2]
    mixed = [
        np.float32(r) * red + np.float32(g) * green + np.float32(b) * blue for r, g, b in weights
    ]
    return np.stack(mixed, axis=1)
