"""Pictures in many colours: flags, terrain seen from above, and regular patterns.

Each `draw_*` function takes the number of a class, a `Look` and a random generator, and returns an
RGB image of the canvas. Lists of classes stand next to what is drawn for them.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clbench.datamodules.mini.canvas import (
    CANVAS,
    COLOURS,
    Look,
    background,
    mix,
    noise,
    place,
    to_image,
)

VERTICAL_FLAGS = {
    "France": "blue white red",
    "Italy": "green white red",
    "Ireland": "green white orange",
    "Belgium": "black yellow red",
    "Romania": "blue yellow red",
    "Nigeria": "green white green",
    "Peru": "red white red",
    "Guinea": "red yellow green",
    "Mali": "green yellow red",
    "Ivory Coast": "orange white green",
}
HORIZONTAL_FLAGS = {
    "Germany": "black red yellow",
    "Netherlands": "red white blue",
    "Russia": "white blue red",
    "Austria": "red white red",
    "Estonia": "blue black white",
    "Bulgaria": "white green red",
    "Lithuania": "yellow green red",
    "Hungary": "red white green",
    "Poland": "white red",
    "Ukraine": "blue yellow",
    "Indonesia": "red white",
    "Yemen": "red white black",
    "Armenia": "red blue orange",
    "Gabon": "green yellow blue",
    "Sierra Leone": "green white blue",
}
FLAGS = (*VERTICAL_FLAGS, *HORIZONTAL_FLAGS)

# Positions of the pixels in [-0.5, 0.5), shape (CANVAS, CANVAS): Y grows downwards.
Y: NDArray[np.float32]
X: NDArray[np.float32]
Y, X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / CANVAS - 0.5


def draw_flag(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Flat flags; in wild style faded ones that hang askew in folds of light and shade."""
    cloth = _flag_cloth(FLAGS[index])
    if look.wild:
        tint = np.asarray(look.ink, np.float32)
        cloth = 0.7 * cloth + 0.3 * tint
        folds = np.sin(2 * math.pi * (rng.uniform(1.0, 1.6) * X + rng.random()) + 2 * Y)
        cloth = cloth * (0.88 + 0.16 * folds[..., None])
    flag = to_image(cloth)
    frame = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(frame).rectangle((3, 18, 92, 77), fill=255)
    angle, slant = (rng.uniform(-18, 18), rng.uniform(-0.3, 0.3)) if look.wild else (0.0, 0.0)
    picture = background(look, rng)
    picture.paste(place(flag, look, angle, slant), (0, 0), place(frame, look, angle, slant))
    return picture


def _flag_cloth(country: str) -> NDArray[np.float32]:
    """The stripes, (H, W, 3): as wide as the flag in one direction, endless in the other."""
    vertical = country in VERTICAL_FLAGS
    names = (VERTICAL_FLAGS if vertical else HORIZONTAL_FLAGS)[country].split()
    along = X / 0.94 if vertical else Y / 0.62
    stripe = np.clip(((along + 0.5) * len(names)).astype(int), 0, len(names) - 1)
    colours = np.array([COLOURS[name] for name in names], np.float32)
    return np.asarray(colours[stripe], np.float32)


SPECKLES = 24  # random squares per side of the texture of that name

TEXTURES = (
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard squares",
    "polka dots",
    "grid lines",
    "waves",
    "concentric circles",
    "zigzag lines",
    "speckles",
)


def draw_texture(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Regular patterns in ink on paper; in wild style bent and unevenly lit."""
    x = X + rng.uniform(-0.5, 0.5)
    y = Y + rng.uniform(-0.5, 0.5)
    if look.wild:
        x = x + 0.22 * (noise(rng, 4) - 0.5)
        y = y + 0.22 * (noise(rng, 4) - 0.5)
    ink = _pattern(TEXTURES[index], x, y, rng.uniform(3.5, 5.5), rng)
    colours = mix(np.clip(ink, 0, 1), look.paper, look.ink)
    if look.wild:
        colours = colours * (0.55 + 0.6 * noise(rng, 3)[..., None])
    return to_image(colours)


def _pattern(
    name: str,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    frequency: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The amount of ink at each position, (CANVAS, CANVAS); `frequency` periods per side."""
    phase_x, phase_y = 2 * math.pi * frequency * x, 2 * math.pi * frequency * y
    match name:
        case "horizontal stripes":
            wave = np.sin(phase_y)
        case "vertical stripes":
            wave = np.sin(phase_x)
        case "diagonal stripes":
            wave = np.sin((phase_x + phase_y) / math.sqrt(2))
        case "checkerboard squares":
            wave = 3 * np.sin(phase_x / 1.5) * np.sin(phase_y / 1.5)
        case "polka dots":
            wave = np.cos(phase_x) + np.cos(phase_y) - 0.7
        case "grid lines":
            wave = np.maximum(np.cos(phase_x), np.cos(phase_y)) - 0.8
        case "waves":
            wave = np.sin(phase_y + 2.2 * np.sin(0.6 * phase_x))
        case "concentric circles":
            wave = np.sin(2 * math.pi * frequency * np.hypot(x - x.mean(), y - y.mean()))
        case "zigzag lines":
            wave = np.sin(phase_y + 2.6 * np.arcsin(np.sin(0.8 * phase_x)))
        case _:
            grain = Image.fromarray(rng.random((SPECKLES, SPECKLES), dtype=np.float32))
            wave = np.asarray(grain.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)) - 0.6
    return np.asarray(4 * wave + 0.5, np.float32).clip(0, 1)


Terrain = Callable[[np.random.Generator], NDArray[np.float32]]

GRASS, DARK_GRASS = (110, 150, 70), (75, 115, 50)
WATER, DEEP_WATER = (50, 100, 160), (20, 55, 115)


def draw_terrain(index: int, look: Look, rng: np.random.Generator) -> Image.Image:
    """Natural colours; in wild style the false colours of exchanged or inverted channels."""
    colours = TERRAINS[list(TERRAINS)[index]](rng)
    turns = int(rng.integers(4))
    colours = np.rot90(colours, turns)
    if look.wild:
        colours = colours[..., list(_CHANNEL_ORDERS[rng.integers(len(_CHANNEL_ORDERS))])]
        if rng.random() < 0.5:
            colours = 255 - colours
    else:
        colours = colours * rng.uniform(0.9, 1.1)
    return to_image(colours)


_CHANNEL_ORDERS = [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)]


def _meadow(rng: np.random.Generator) -> NDArray[np.float32]:
    return mix(noise(rng, 7), DARK_GRASS, GRASS)


def _flood(land: NDArray[np.float32], depth: NDArray[np.floating]) -> NDArray[np.float32]:
    """Cover land (H, W, 3) with water to the extent of `depth` (H, W), clipped to [0, 1]."""
    wet = np.clip(depth, 0, 1)[..., None].astype(np.float32)
    return np.asarray((1 - wet) * land + wet * np.asarray(WATER), np.float32)


def _forest(rng: np.random.Generator) -> NDArray[np.float32]:
    return mix(noise(rng, 24) ** 1.5, (10, 40, 20), (60, 110, 50))


def _river(rng: np.random.Generator) -> NDArray[np.float32]:
    course = 0.25 * np.sin(2 * math.pi * (rng.uniform(0.7, 1.1) * X + rng.random()))
    distance = np.abs(Y - course - rng.uniform(-0.12, 0.12))
    return _flood(_meadow(rng), 12 * (0.11 - distance))


def _sea(rng: np.random.Generator) -> NDArray[np.float32]:
    ripples = np.sin(2 * math.pi * (9 * Y + 1.5 * noise(rng, 6)))
    return mix(0.4 * noise(rng, 4) + 0.25 + 0.2 * ripples, DEEP_WATER, WATER)


def _desert(rng: np.random.Generator) -> NDArray[np.float32]:
    dunes = (2.6 * (X + 0.5 * Y) + 2.5 * noise(rng, 4) + rng.random()) % 1
    return mix(dunes, (170, 120, 60), (240, 205, 140))


def _snow(rng: np.random.Generator) -> NDArray[np.float32]:
    return mix(noise(rng, 5), (205, 220, 240), (255, 255, 255))


def _farmland(rng: np.random.Generator) -> NDArray[np.float32]:
    crops = np.array([(200, 180, 80), (95, 150, 55), (150, 110, 70), (160, 190, 90)], np.float32)
    rows, columns = (np.cumsum(rng.uniform(0.16, 0.36, 6)) - 0.6 for _ in range(2))
    # Odd factors give neighbouring plots different crops and furrows that cross.
    plot = 3 * np.searchsorted(rows, Y) + 5 * np.searchsorted(columns, X)
    furrows = 0.88 + 0.12 * np.sin(2 * math.pi * 10 * np.where(plot % 2, X, Y))
    colours: NDArray[np.float32] = crops[(plot + rng.integers(4)) % 4]
    return colours * furrows[..., None].astype(np.float32)


def _houses(rng: np.random.Generator) -> NDArray[np.float32]:
    cell, street = 16, 6
    roofs = np.array([(190, 90, 70), (150, 70, 60), (210, 200, 190), (110, 90, 85)], np.float32)
    kinds = rng.integers(4, size=(7, 7))
    right, down = rng.integers(cell, size=2)
    column, row = np.arange(CANVAS) + right, (np.arange(CANVAS) + down)[:, None]
    built = (row % cell >= street) & (column % cell >= street)
    roof = roofs[kinds[row % CANVAS // cell, column % CANVAS // cell]]
    return np.where(built[..., None], roof, 0.6 * _meadow(rng) + 50)


def _motorway(rng: np.random.Generator) -> NDArray[np.float32]:
    angle = rng.uniform(-0.6, 0.6)
    distance = np.abs(Y * math.cos(angle) - X * math.sin(angle) - rng.uniform(-0.15, 0.15))
    ground = _meadow(rng)
    ground[distance < 0.085] = (125, 125, 130)
    ground[distance < 0.017] = (245, 245, 245)
    return ground


def _mountains(rng: np.random.Generator) -> NDArray[np.float32]:
    height = noise(rng, 6) + 0.4 * noise(rng, 14)
    light = np.clip(0.5 + 6 * (np.gradient(height, axis=0) + np.gradient(height, axis=1)), 0, 1)
    return mix(light, (45, 40, 40), (185, 170, 155))


def _lake(rng: np.random.Generator) -> NDArray[np.float32]:
    centre = rng.uniform(-0.12, 0.12, size=2)
    distance = np.hypot(X - centre[0], Y - centre[1]) + 0.25 * (noise(rng, 5) - 0.5)
    return _flood(_meadow(rng), 14 * (0.27 - distance))


TERRAINS: dict[str, Terrain] = {
    "forest": _forest,
    "rivers": _river,
    "open sea": _sea,
    "desert sand": _desert,
    "snow": _snow,
    "farmland": _farmland,
    "houses": _houses,
    "motorways": _motorway,
    "mountains": _mountains,
    "lakes": _lake,
}
