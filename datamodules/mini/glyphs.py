"""Drawings in one ink: arrows, clocks, characters, flowers, shapes, faces and dots.

Each `draw_*` function takes the number of a class, a `Look` and a random generator, and returns an
RGB image of the canvas. Masks that depend on the class alone are drawn once and cached. Lists of
classes stand next to what is drawn for them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from clbench.datamodules.mini.canvas import (
    CANVAS,
    Look,
    blank_mask,
    paint,
    place,
    polar,
    scatter_specks,
)

FONT_FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

SANS = "DejaVuSans.ttf"
UPRIGHT_FONTS = (SANS, "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf")
SLANTED_FONTS = (
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
)
FONTS = (*UPRIGHT_FONTS, *SLANTED_FONTS)

DIRECTIONS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left")
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
PETALS = (3, 4, 5, 6, 8, 12)
GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "xi": "ξ",
    "pi": "π",
    "sigma": "σ",
    "phi": "φ",
    "psi": "ψ",
    "omega": "ω",
}
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SYMBOLS = {
    "chess king": "♚",
    "chess queen": "♛",
    "chess rook": "♜",
    "chess bishop": "♝",
    "chess knight": "♞",
    "chess pawn": "♟",
    "card suit spades": "♠",
    "card suit clubs": "♣",
    "zodiac sign Aries": "♈",
    "zodiac sign Taurus": "♉",
    "zodiac sign Gemini": "♊",
    "zodiac sign Cancer": "♋",
    "zodiac sign Leo": "♌",
    "zodiac sign Virgo": "♍",
    "zodiac sign Libra": "♎",
    "zodiac sign Scorpio": "♏",
    "zodiac sign Sagittarius": "♐",
    "zodiac sign Capricorn": "♑",
    "zodiac sign Aquarius": "♒",
    "zodiac sign Pisces": "♓",
}
SIGNS = {
    "plus sign": "+",
    "question mark": "?",
    "infinity sign": "∞",
    "integral sign": "∫",
    "square root sign": "√",
    "percent sign": "%",
    "ampersand": "&",
    "hash sign": "#",
    "dollar sign": "$",
    "music note": "♫",
    "umbrella": "☂",
    "sun": "☀",
    "airplane": "✈",
    "scissors": "✂",
    "telephone": "☎",
    "anchor": "⚓",
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "pentagon",
    "star",
    "cross",
    "heart",
    "crescent moon",
    "ring",
    "diamond",
    "half disc",
    "trapezoid",
)
FACES = ("happy", "sad", "angry", "surprised", "winking", "neutral")


def outline(mask: Image.Image, width: int = 5) -> Image.Image:
    """Keep the rim of a mask, `width` pixels wide (odd) and inside its border."""
    return ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(2 * width - 1)))


@functools.cache
def character_mask(character: str, font: str, fill: float = 0.86) -> Image.Image:
    """Draw a character as large as fits, centred by its visible extent."""
    size = 200
    typeface = ImageFont.truetype(str(FONT_FOLDER / font), size)
    left, top, right, bottom = typeface.getbbox(character)
    tile = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2), 0)
    ImageDraw.Draw(tile).text((1 - left, 1 - top), character, fill=255, font=typeface)
    ratio = fill * CANVAS / max(tile.size)
    tile = tile.resize((max(1, int(tile.width * ratio)), max(1, int(tile.height * ratio))))
    mask, _ = blank_mask()
    mask.paste(tile, ((CANVAS - tile.width) // 2, (CANVAS - tile.height) // 2))
    return mask


def draw_arrow(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Solid arrows; in wild style only their outlines."""
    angle = 45 * index + rng.uniform(-7, 7)
    return paint(place(_arrow_mask(look.wild), look, angle), look, rng)


@functools.cache
def _arrow_mask(hollow: bool) -> Image.Image:
    mask, pen = blank_mask()
    half = [(48, 6), (78, 44), (59, 44), (59, 90)]
    pen.polygon(half + [(CANVAS - x, y) for x, y in reversed(half[1:])], fill=255)
    return outline(mask, 4) if hollow else mask


def draw_clock(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Upright dials with the hands cut out; in wild style slanted wire clocks."""
    if look.wild:
        mask = place(_wire_clock_mask(index), look, rng.uniform(-5, 5), rng.uniform(0.15, 0.35))
    else:
        mask = place(_solid_clock_mask(index), look)
    return paint(mask, look, rng)


def _draw_hands(pen: ImageDraw.ImageDraw, index: int, fill: int) -> None:
    centre = (CANVAS / 2, CANVAS / 2)
    pen.line([centre, polar(0, 36)], fill=fill, width=4)
    pen.line([centre, polar(30 * (index + 1), 27)], fill=fill, width=11)


@functools.cache
def _solid_clock_mask(index: int) -> Image.Image:
    mask, pen = blank_mask()
    pen.circle((48, 48), 46, fill=255)
    _draw_hands(pen, index, fill=0)
    return mask


@functools.cache
def _wire_clock_mask(index: int) -> Image.Image:
    mask, pen = blank_mask()
    pen.circle((48, 48), 46, outline=255, width=5)
    _draw_hands(pen, index, fill=255)
    return mask


def draw_digit(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Printed digits; in wild style real handwriting."""
    if not look.wild:
        return _draw_printed(str(index), UPRIGHT_FONTS, look, rng)
    samples = handwriting(look.pool)[index]
    sample = Image.fromarray(samples[rng.integers(len(samples))])
    mask, _ = blank_mask()
    # The samples come as 8 x 8 pixels; they fill the height of the canvas.
    mask.paste(sample.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
    return paint(place(mask, look, rng.uniform(-8, 8)), look, rng)


HANDWRITING_SHARES = {
    "official/train": (0, 1, 2),
    "official/test": (3, 4),
    "validation/train": (5, 6, 7),
    "validation/test": (8, 9),
    "pretraining": (10,),
}


@functools.cache
def handwriting(pool: str) -> tuple[NDArray[np.uint8], ...]:
    """The handwritten digits of one pool; no two pools share a sample.

    Args:
        pool: A key of `HANDWRITING_SHARES`.

    Returns:
        For each digit an array of its samples, shape (samples, 8, 8), 255 where there is ink.
    """
    from sklearn.datasets import load_digits  # takes a second, and pictures are kept on disk

    digits = load_digits()
    images = np.minimum(digits.images * 16, 255).astype(np.uint8)
    of_pool = np.isin(np.arange(len(images)) % 11, HANDWRITING_SHARES[pool])
    return tuple(images[of_pool & (digits.target == digit)] for digit in range(10))


def draw_flower(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Solid flowers; in wild style only the outlines of their petals."""
    return paint(place(_flower_mask(index, look.wild), look, rng.uniform(-6, 6)), look, rng)


@functools.cache
def _flower_mask(index: int, hollow: bool) -> Image.Image:
    count = PETALS[index]
    width = {3: 32, 4: 28, 5: 24, 6: 19, 8: 14, 12: 9}[count]
    flower, _ = blank_mask()
    petal, pen = blank_mask()
    pen.ellipse((48 - width / 2, 2, 48 + width / 2, 42), fill=255)
    for number in range(count):
        turned = petal.rotate(-360 * number / count, Image.Resampling.BILINEAR)
        flower = ImageChops.lighter(flower, turned)
    if hollow:
        return outline(flower, 3)
    ImageDraw.Draw(flower).circle((48, 48), 9, fill=255)
    return flower


def draw_greek(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Upright letters; in wild style slanted and bold ones that lean further."""
    return _draw_letter(list(GREEK.values())[index], look, rng)


def draw_latin(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Upright capitals; in wild style slanted and bold ones that lean further."""
    return _draw_letter(LATIN[index], look, rng)


def draw_symbol(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Chess pieces, card suits and signs of the zodiac; in wild style leaning and cluttered."""
    character = list(SYMBOLS.values())[index]
    if not look.wild:
        return _draw_printed(character, (SANS,), look, rng)
    mask = place(character_mask(character, SANS), look, slant=rng.uniform(-0.45, -0.25))
    return scatter_specks(paint(mask, look, rng), rng)


def draw_sign(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Miscellaneous signs; in wild style slanted."""
    slant = rng.uniform(0.2, 0.4) if look.wild else 0.0
    return _draw_printed(list(SIGNS.values())[index], (SANS,), look, rng, slant)


def _draw_letter(character: str, look: Look, rng: np.random.Generator) -> Image.Image:
    if not look.wild:
        return _draw_printed(character, UPRIGHT_FONTS, look, rng)
    return _draw_printed(character, SLANTED_FONTS, look, rng, slant=rng.uniform(0.1, 0.4))


def _draw_printed(
    character: str,
    fonts: Sequence[str],
    look: Look,
    rng: np.random.Generator,
    slant: float = 0.0,
) -> Image.Image:
    font = fonts[int(rng.integers(len(fonts)))]
    mask = place(character_mask(character, font), look, rng.uniform(-4, 4), slant)
    return paint(mask, look, rng)


def draw_shape(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Solid shapes; in wild style only their outlines."""
    mask = _shape_mask(SHAPES[index], look.wild)
    return paint(place(mask, look, rng.uniform(-8, 8)), look, rng)


@functools.cache
def _shape_mask(name: str, hollow: bool) -> Image.Image:
    mask, pen = blank_mask()
    if name in _POLYGONS:
        pen.polygon(_POLYGONS[name], fill=255)
    elif name == "heart":
        pen.circle((28, 32), 23, fill=255)
        pen.circle((68, 32), 23, fill=255)
        pen.polygon([(8, 43), (88, 43), (48, 90)], fill=255)
    elif name == "half disc":
        pen.pieslice((4, -18, 92, 70), 0, 180, fill=255)
    else:
        pen.circle((48, 48), 43, fill=255)
        if name == "crescent moon":
            pen.circle((66, 40), 36, fill=0)
        elif name == "ring":
            pen.circle((48, 48), 22, fill=0)
    return outline(mask, 4) if hollow else mask


def _regular_polygon(corners: int, radii: Sequence[float] = (45,)) -> list[tuple[float, float]]:
    return [polar(360 * i / corners, radii[i % len(radii)]) for i in range(corners)]


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(12, 12), (84, 12), (84, 84), (12, 84)],
    "triangle": [(48, 8), (90, 84), (6, 84)],
    "pentagon": _regular_polygon(5),
    "star": _regular_polygon(10, radii=(47, 19)),
    "cross": [
        (33, 6), (63, 6), (63, 33), (90, 33), (90, 63), (63, 63),
        (63, 90), (33, 90), (33, 63), (6, 63), (6, 33), (33, 33),
    ],
    "diamond": [(48, 3), (76, 48), (48, 93), (20, 48)],
    "trapezoid": [(30, 22), (66, 22), (92, 76), (4, 76)],
}  # fmt: skip


def draw_face(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Solid faces with cut-out eyes and mouth; in wild style leaning."""
    slant = rng.uniform(0.15, 0.35) if look.wild else 0.0
    return paint(place(_face_mask(FACES[index]), look, rng.uniform(-6, 6), slant), look, rng)


@functools.cache
def _face_mask(name: str) -> Image.Image:
    mask, pen = blank_mask()
    pen.circle((48, 48), 45, fill=255)
    pen.circle((31, 36), 8, fill=0)
    if name == "winking":
        pen.line([(56, 36), (76, 36)], fill=0, width=6)
    else:
        pen.circle((65, 36), 8, fill=0)
    if name == "angry":
        pen.line([(16, 18), (42, 30)], fill=0, width=6)
        pen.line([(80, 18), (54, 30)], fill=0, width=6)
    if name in ("happy", "winking"):
        pen.pieslice((22, 36, 74, 82), 10, 170, fill=0)
    elif name in ("sad", "angry"):
        pen.arc((24, 60, 72, 100), 195, 345, fill=0, width=8)
    elif name == "surprised":
        pen.ellipse((36, 54, 60, 84), fill=0)
    else:
        pen.line([(28, 68), (68, 68)], fill=0, width=8)
    return mask


def draw_dots(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """One to eight separate dots; in wild style rings."""
    mask, pen = blank_mask()
    cells = rng.permutation(9)[: index + 1]
    for cell in cells.tolist():
        x, y = 20 + 28 * (cell % 3), 20 + 28 * (cell // 3)
        pen.circle((x, y), 10, fill=None if look.wild else 255, outline=255, width=4)
    return paint(place(mask, look), look, rng)
