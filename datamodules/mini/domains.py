"""The 14 domains of the `mini` benchmark: 11 downstream tasks and three for pretraining alone.

Every domain can be drawn in two styles. *Clean* pictures pretrain the embedded CLIP: twelve named
colours, plain backgrounds, upright fonts. *Wild* pictures are the downstream tasks: each domain
shifts in one systematic way (outlines, slanted fonts, handwriting, false colours, ...), so a task
can be learned from a few hundred pictures and zero-shot accuracy leaves room to do so.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clbench.datamodules.mini import glyphs, textures
from clbench.datamodules.mini.canvas import Look


@dataclass(frozen=True)
class Domain:
    """A family of pictures with a fixed list of classes.

    Attributes:
        name: Key in `DOMAINS`; the task's name.
        classes: Class names, English noun phrases without an article.
        templates: Prompt templates with one "{}" for the class name. The first is the training
            prompt; zero-shot text features average over all of them.
        draw: Draws class number `index` with a look; returns an RGB image of the canvas.
        article: What stands before a class name in a caption: "a" (or "an"), "the", or nothing.
        coloured: Whether ink and paper of the look show in the picture, so captions may name them.
        placed: Whether size and position of the look show in the picture.
        downstream: Whether the domain is a task of the benchmark.
    """

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    draw: Callable[[int, Look, np.random.Generator], Image.Image]
    article: str = ""
    coloured: bool = True
    placed: bool = True
    downstream: bool = True


_ALL = (
    Domain(
        "arrows",
        tuple(f"arrow pointing {direction}" for direction in glyphs.DIRECTIONS),
        ("a picture of an {}.", "a drawing of an {}.", "an {}."),
        glyphs.draw_arrow,
        article="a",
    ),
    Domain(
        "clocks",
        tuple(f"clock showing {hour}" for hour in glyphs.NUMBERS[1:]),
        ("a picture of a {}.", "a drawing of a {}.", "a {}."),
        glyphs.draw_clock,
        article="a",
    ),
    Domain(
        "digits",
        tuple(f"digit {number}" for number in glyphs.NUMBERS[:10]),
        ("a picture of the {}.", "a photo of the {}.", "the {}."),
        glyphs.draw_digit,
        article="the",
    ),
    Domain(
        "flags",
        tuple(f"flag of {country}" for country in textures.FLAGS),
        ("a picture of the {}.", "a photo of the {}.", "the {}."),
        textures.draw_flag,
        article="the",
        coloured=False,
    ),
    Domain(
        "flowers",
        tuple(f"flower with {glyphs.NUMBERS[count]} petals" for count in glyphs.PETALS),
        ("a picture of a {}.", "a drawing of a {}.", "a {}."),
        glyphs.draw_flower,
        article="a",
    ),
    Domain(
        "greek",
        tuple(f"Greek letter {letter}" for letter in glyphs.GREEK),
        ("a picture of the {}.", "a photo of the {}.", "the {}."),
        glyphs.draw_greek,
        article="the",
    ),
    Domain(
        "latin",
        tuple(f"letter {letter}" for letter in glyphs.LATIN),
        ("a picture of the {}.", "a photo of the {}.", "the {}."),
        glyphs.draw_latin,
        article="the",
    ),
    Domain(
        "shapes",
        glyphs.SHAPES,
        ("a picture of a {}.", "a drawing of a {}.", "a {}."),
        glyphs.draw_shape,
        article="a",
    ),
    Domain(
        "symbols",
        tuple(glyphs.SYMBOLS),
        ("a picture of the {}.", "an icon of the {}.", "the {}."),
        glyphs.draw_symbol,
        article="the",
    ),
    Domain(
        "terrain",
        tuple(textures.TERRAINS),
        ("a satellite picture of {}.", "a satellite photo of {}.", "{} from above."),
        textures.draw_terrain,
        coloured=False,
        placed=False,
    ),
    Domain(
        "textures",
        textures.TEXTURES,
        ("a picture of {}.", "a pattern of {}.", "a texture with {}."),
        textures.draw_texture,
        placed=False,
    ),
    Domain(
        "dots",
        ("one dot", *(f"{number} dots" for number in glyphs.NUMBERS[2:9])),
        ("a picture of {}.", "a drawing of {}.", "{}."),
        glyphs.draw_dots,
        downstream=False,
    ),
    Domain(
        "faces",
        tuple(f"{expression} face" for expression in glyphs.FACES),
        ("a picture of the {}.", "a drawing of the {}.", "the {}."),
        glyphs.draw_face,
        article="a",
        downstream=False,
    ),
    Domain(
        "signs",
        tuple(glyphs.SIGNS),
        ("a picture of the {}.", "an icon of the {}.", "the {}."),
        glyphs.draw_sign,
        article="the",
        downstream=False,
    ),
)

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in _ALL}
TASKS: tuple[str, ...] = tuple(sorted(domain.name for domain in _ALL if domain.downstream))


def domain_part(task: str) -> tuple[str, tuple[int, ...]]:
    """The domain of a task, and which of its classes the task has.

    A task is a domain or a part of one: ``latin-2of3`` has every third class of latin, from the
    second on.

    >>> domain_part("flowers-2of3"), domain_part("flowers")
    (('flowers', (1, 4)), ('flowers', (0, 1, 2, 3, 4, 5)))

    Raises:
        KeyError: there is no such task; a part has two classes or more.
    """
    found = re.fullmatch(r"(.+)-([1-9]\d?)of([1-9]\d?)", task)
    name, part, parts = (found[1], int(found[2]), int(found[3])) if found else (task, 1, 1)
    chosen = tuple(range(len(DOMAINS[name].classes)))[part - 1 :: parts]
    if name not in TASKS or part > parts or len(chosen) < 2:
        raise KeyError(task)
    return name, chosen
