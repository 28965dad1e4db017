"""Captions for the pictures that pretrain the embedded CLIP of the `mini` benchmark."""

import numpy as np

from clbench.datamodules.mini.canvas import COLOURS, POSITIONS, SIZES, Look
from clbench.datamodules.mini.domains import DOMAINS, Domain

KINDS = ("a picture of", "a photo of", "a drawing of", "an image of")
UNINFORMATIVE = ("a picture.", "a photo.", "a drawing.", "an image of something.")

WRONG_SHARE = 0.02
BARE_SHARE = 0.03
UNINFORMATIVE_SHARE = 0.02
PROMPT_SHARE = 0.35


def caption(domain: Domain, index: int, look: Look, rng: np.random.Generator) -> str:
    """Describe a picture of class number `index`; a few per cent are wrong, bare or empty words.

    Captions that follow the templates of the domain teach the wording of its prompts; the others
    name the colours, size and position that show in the picture.
    """
    share = rng.random()
    if share < UNINFORMATIVE_SHARE:
        return UNINFORMATIVE[rng.integers(len(UNINFORMATIVE))]
    if rng.random() < WRONG_SHARE:
        index = int(rng.integers(len(domain.classes)))
    noun = domain.classes[index]
    if rng.random() < BARE_SHARE:
        return noun
    if rng.random() < PROMPT_SHARE:
        return domain.templates[rng.integers(len(domain.templates))].format(noun)
    return _description(domain, noun, look, rng)


def reference_caption(domain: Domain, index: int) -> str:
    """The one fixed caption of a class: its training prompt."""
    return domain.templates[0].format(domain.classes[index])


def vocabulary() -> list[str]:
    """Texts that together hold every word of every caption and every prompt."""
    words = [*COLOURS, *SIZES, *POSITIONS, *KINDS, *UNINFORMATIVE, "a an the", "on paper"]
    prompts = [
        template.format(name)
        for domain in DOMAINS.values()
        for template in domain.templates
        for name in domain.classes
    ]
    return words + prompts


def _description(domain: Domain, noun: str, look: Look, rng: np.random.Generator) -> str:
    phrase, ending = noun, ""
    if domain.coloured and look.ink_name and rng.random() < 0.7:
        phrase = f"{look.ink_name} {phrase}"
    if domain.placed and look.size_name and rng.random() < 0.5:
        phrase = f"{look.size_name} {phrase}"
    if domain.placed and look.position_name and rng.random() < 0.6:
        ending = f" {look.position_name}"
    elif (domain.coloured or domain.placed) and look.paper_name and rng.random() < 0.5:
        ending = f" on {look.paper_name}" if rng.random() < 0.5 else f" on {look.paper_name} paper"
    phrase = _with_article(domain.article, phrase) + ending
    if rng.random() < 0.5:
        phrase = f"{KINDS[rng.integers(len(KINDS))]} {phrase}"
    return phrase


def _with_article(article: str, phrase: str) -> str:
    if article == "a" and phrase[0] in "aeiou":
        article = "an"
    return f"{article} {phrase}".strip()
