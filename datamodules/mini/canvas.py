"""The canvas of the `mini` benchmark: colours, placement and painting shared by all its domains.

Every picture is drawn on a square canvas of `CANVAS` pixels and reduced to `SIDE` pixels. Most
domains only draw a *mask* (an "L" image, 255 where there is ink); `place` moves, turns and slants
it, and `paint` fills ink and paper with the colours of a `Look`.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CANVAS = 96
SIDE = 32

Style = Literal["clean", "wild"]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (215, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 50),
    "green": (40, 150, 60),
    "turquoise": (60, 205, 200),
    "blue": (40, 80, 205),
    "purple": (125, 50, 165),
    "pink": (245, 140, 190),
    "brown": (120, 75, 40),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
    "gray": (135, 135, 135),
}

SIZES: dict[str, float] = {"small": 0.62, "large": 1.05}

# Shift of the drawing as fractions of the canvas: (right, down).
POSITIONS: dict[str, tuple[float, float]] = {
    "on the left": (-0.17, 0.0),
    "on the right": (0.17, 0.0),
    "at the top": (0.0, -0.17),
    "at the bottom": (0.0, 0.17),
}


@dataclass(frozen=True)
class Look:
    """How one picture is drawn, apart from its class.

    Attributes:
        style: "clean" (pretraining) or "wild" (downstream tasks).
        pool: Name of the pool of pictures this one belongs to; selects the handwriting samples.
        ink: RGB colour of the drawing.
        paper: RGB colour of the background.
        ink_name: Name of the ink, None when the colour has none.
        paper_name: Name of the paper, None when the colour has none.
        size_name: Key of `SIZES`, None for an ordinary size.
        position_name: Key of `POSITIONS`, None for the centre.
        scale: Factor on the size of the drawing.
        shift: Shift of the drawing, in canvas pixels (right, down).
    """

    style: Style
    pool: str
    ink: Colour
    paper: Colour
    ink_name: str | None = None
    paper_name: str | None = None
    size_name: str | None = None
    position_name: str | None = None
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def wild(self) -> bool:
        """Whether the picture is drawn in the downstream style."""
        return self.style == "wild"


def sample_look(style: Style, pool: str, rng: np.random.Generator) -> Look:
    """Draw colours, size and position for one picture."""
    return _wild_look(pool, rng) if style == "wild" else _clean_look(pool, rng)


def _clean_look(pool: str, rng: np.random.Generator) -> Look:
    names = list(COLOURS)
    ink_name = names[rng.integers(len(names))]
    paper_names = [name for name in names if _distance(COLOURS[name], COLOURS[ink_name]) > 130]
    paper_name = paper_names[rng.integers(len(paper_names))]
    size_name = list(SIZES)[rng.integers(len(SIZES))] if rng.random() < 0.3 else None
    # Only small drawings can leave the centre without leaving the picture.
    moved = size_name == "small" and rng.random() < 0.7
    position_name = list(POSITIONS)[rng.integers(len(POSITIONS))] if moved else None
    right, down = POSITIONS[position_name] if position_name else (0.0, 0.0)
    wobble = rng.uniform(-3, 3, size=2)
    return Look(
        style="clean",
        pool=pool,
        ink=_jitter(COLOURS[ink_name], rng),
        paper=_jitter(COLOURS[paper_name], rng),
        ink_name=ink_name,
        paper_name=paper_name,
        size_name=size_name,
        position_name=position_name,
        scale=(SIZES[size_name] if size_name else 0.88) * rng.uniform(0.94, 1.06),
        shift=(right * CANVAS + wobble[0], down * CANVAS + wobble[1]),
    )


def _wild_look(pool: str, rng: np.random.Generator) -> Look:
    ink = random_colour(rng)
    paper = random_colour(rng)
    while _distance(ink, paper) < 130:
        paper = random_colour(rng)
    shift = rng.uniform(-6, 6, size=2)
    scale = rng.uniform(0.78, 1.02)
    return Look("wild", pool, ink, paper, scale=scale, shift=(shift[0], shift[1]))


def random_colour(rng: np.random.Generator) -> Colour:
    """A colour drawn evenly over hue, for pictures whose colours have no names."""
    hue, saturation, value = rng.random(), rng.uniform(0.15, 0.95), rng.uniform(0.1, 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def _distance(first: Colour, second: Colour) -> float:
    return math.dist(first, second)


def _jitter(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = np.clip(np.add(colour, rng.integers(-10, 11, size=3)), 0, 255).tolist()
    return red, green, blue


def blank_mask() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty mask of CANVAS x CANVAS pixels and a pen to draw on it."""
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    return mask, ImageDraw.Draw(mask)


def polar(angle: float, radius: float) -> tuple[float, float]:
    """The canvas point `radius` pixels from the centre at `angle` degrees clockwise from up."""
    radians = math.radians(angle)
    return CANVAS / 2 + radius * math.sin(radians), CANVAS / 2 - radius * math.cos(radians)


def place(drawing: Image.Image, look: Look, angle: float = 0.0, slant: float = 0.0) -> Image.Image:
    """Scale, turn, slant and move a centred drawing.

    Args:
        drawing: Image of CANVAS x CANVAS pixels, black (no ink) outside the drawing.
        look: Supplies scale and shift.
        angle: Clockwise turn in degrees.
        slant: Horizontal shift of the top relative to the bottom, per pixel of height.

    Returns:
        An image of the same mode and size.
    """
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # PIL wants the inverse map: un-shift, un-turn, un-slant, un-scale, from output to input.
    inverse = np.array([[cosine, sine], [-sine, cosine]])
    inverse = np.array([[1.0, slant], [0.0, 1.0]]) @ inverse / look.scale
    centre = CANVAS / 2
    offset = centre - inverse @ (centre + np.array(look.shift))
    rows = np.column_stack([inverse, offset]).ravel().tolist()
    return drawing.transform(drawing.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


def noise(rng: np.random.Generator, cells: int) -> NDArray[np.float32]:
    """Smooth random values in [0, 1] of shape (CANVAS, CANVAS), with `cells` bumps per side."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    smooth = coarse.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32).clip(0.0, 1.0)


def mix(
    weight: NDArray[np.floating], zero: Sequence[int], one: Sequence[int]
) -> NDArray[np.float32]:
    """Blend two colours: weights (H, W) in [0, 1] give float32 colours (H, W, 3) in [0, 255]."""
    first, second = np.asarray(zero, np.float32), np.asarray(one, np.float32)
    return first + weight[..., None].astype(np.float32) * (second - first)


def to_image(colours: NDArray[np.floating]) -> Image.Image:
    """Turn float colours (H, W, 3) in [0, 255] into an RGB image."""
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def background(look: Look, rng: np.random.Generator) -> Image.Image:
    """Plain paper in clean style, softly mottled paper in wild style."""
    if not look.wild:
        return Image.new("RGB", (CANVAS, CANVAS), look.paper)
    mottled = noise(rng, 5)
    shades = np.asarray(look.paper, np.float32) * (0.7 + 0.5 * mottled[..., None])
    return to_image(shades)


def paint(mask: Image.Image, look: Look, rng: np.random.Generator) -> Image.Image:
    """Fill a placed mask with ink on paper."""
    picture = background(look, rng)
    picture.paste(look.ink, (0, 0), mask)
    return picture


def scatter_specks(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add clutter: four small squares of random colours, in place."""
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        left, top = rng.integers(0, CANVAS - 12, size=2).tolist()
        side = int(rng.integers(6, 13))
        pen.rectangle((left, top, left + side, top + side), fill=random_colour(rng))
    return picture
