"""The `mini` benchmark: what is rendered, and that the committed weights can read its prompts."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from clbench.datamodules.mini import render as mini_render
from clbench.datamodules.mini.captions import vocabulary
from clbench.datamodules.mini.domains import DOMAINS, TASKS
from clbench.datamodules.mini.glyphs import HANDWRITING_SHARES, handwriting
from clbench.datamodules.mini.pretrain import CONTEXT, Tokenizer
from clbench.datamodules.mini.render import (
    pretraining_pairs,
    reference_pairs,
    render_split,
    renderer_hash,
)

WEIGHTS = Path(mini_render.__file__).with_name("clip.safetensors")
POOLS = list(itertools.product(("official", "validation"), ("train", "test")))


def distinct(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_eleven_tasks_and_three_domains_for_pretraining() -> None:
    assert len(TASKS) == 11
    assert list(TASKS) == sorted(TASKS)
    assert set(DOMAINS) - set(TASKS) == {"dots", "faces", "signs"}


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_is_complete(name: str) -> None:
    domain = DOMAINS[name]
    assert domain.name == name
    assert len(set(domain.classes)) == len(domain.classes) > 1
    assert len(set(domain.templates)) == len(domain.templates) >= 2
    assert all(template.count("{}") == 1 for template in domain.templates)


def test_class_names_are_unique_across_domains() -> None:
    names = [name for domain in DOMAINS.values() for name in domain.classes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("domain", TASKS)
def test_split_has_the_promised_form(domain: str) -> None:
    images, labels = render_split(domain, "test", 40, "validation")
    assert images.shape == (40, 3, 32, 32)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=len(DOMAINS[domain].classes))
    assert counts.max() - counts.min() <= 1
    assert len(distinct(images)) == 40


@pytest.mark.parametrize("domain", TASKS)
def test_a_short_split_is_a_prefix_of_a_long_one(domain: str) -> None:
    short_images, short_labels = render_split(domain, "train", 7)
    long_images, long_labels = render_split(domain, "train", 30)
    np.testing.assert_array_equal(short_images, long_images[:7])
    np.testing.assert_array_equal(short_labels, long_labels[:7])


@pytest.mark.parametrize("domain", TASKS)
def test_pools_share_no_picture(domain: str) -> None:
    pools = [distinct(render_split(domain, split, 25, r)[0]) for r, split in POOLS]
    assert len(set.union(*pools)) == sum(map(len, pools))


def test_pools_share_no_handwriting() -> None:
    assert {f"{rendering}/{split}" for rendering, split in POOLS} < set(HANDWRITING_SHARES)
    shares = list(HANDWRITING_SHARES.values())
    assert sorted(itertools.chain(*shares)) == list(range(11))
    samples = [sum(map(len, handwriting(pool))) for pool in HANDWRITING_SHARES]
    assert sum(samples) == 1797
    assert all(len(digit) >= 10 for pool in HANDWRITING_SHARES for digit in handwriting(pool))


def test_empty_split() -> None:
    images, labels = render_split("flags", "train", 0)
    assert images.shape == (0, 3, 32, 32)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cats", "train", 1, "official"), "unknown domain 'cats'"),
        (("flags", "dev", 1, "official"), "unknown split 'dev'"),
        (("flags", "train", 1, "other"), "unknown rendering 'other'"),
        (("flags", "train", -1, "official"), "must not be negative"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, str, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_split(*arguments)


def test_reference_pairs_cover_every_class() -> None:
    classes = sum(len(domain.classes) for domain in DOMAINS.values())
    images, captions = reference_pairs(classes)
    assert images.shape == (classes, 3, 32, 32)
    assert images.dtype == np.uint8
    assert len(set(captions)) == classes
    shorter, _ = reference_pairs(5)
    np.testing.assert_array_equal(shorter, images[:5])
    other, _ = reference_pairs(classes, "validation")
    seen, _ = pretraining_pairs("clean", 0, classes)
    assert not distinct(images) & (distinct(other) | distinct(seen))


def test_pretraining_pairs_do_not_depend_on_the_range() -> None:
    images, captions = pretraining_pairs("wild", 10, 30)
    part, part_captions = pretraining_pairs("wild", 20, 30)
    np.testing.assert_array_equal(part, images[10:])
    assert part_captions == captions[10:]


def test_renderer_hash_is_a_digest() -> None:
    assert len(bytes.fromhex(renderer_hash())) == 32


def test_captions_fit_into_seventeen_tokens() -> None:
    captions = [text for style in ("clean", "wild") for text in pretraining_pairs(style, 0, 800)[1]]
    lengths = (Tokenizer(vocabulary())(captions) != 0).sum(dim=1)
    assert lengths.max() <= 17


def test_committed_weights_know_every_token() -> None:
    with safe_open(WEIGHTS, framework="numpy") as weights:
        metadata = weights.metadata()
        rows = weights.get_slice("token_embedding.weight").get_shape()[0]
    tokenizer = Tokenizer(vocabulary())
    assert json.loads(metadata["token_ids"]) == tokenizer.token_ids.tolist()
    assert len(tokenizer.token_ids) == rows
    config = json.loads(metadata["model_cfg"])["text_cfg"]
    assert (config["vocab_size"], config["context_length"]) == (rows, CONTEXT)
    tokens = tokenizer(vocabulary())
    # End-of-text, the largest number, is there: no prompt was cut off.
    assert (tokens.max(dim=1).values == rows - 1).all()
    assert (tokens[:, -1] == 0).all()


def test_tokens_outside_the_table_are_an_error() -> None:
    with pytest.raises(ValueError, match="zebra"):
        Tokenizer(vocabulary())(["a zebra"])
