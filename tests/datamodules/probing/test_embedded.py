"""Rendered sets: the same everywhere, with captions that tell pictures apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clbench.datamodules.mini.domains import DOMAINS
from clbench.datamodules.probing.embedded import (
    captioned_pictures,
    captioned_set,
    draw,
    general_sets,
)
from clbench.datamodules.probing.load import probe_data


def test_captions_name_what_is_drawn_and_fit_one_picture() -> None:
    images, captions = captioned_pictures(60)
    texts = [text for pair in captions for text in pair]
    assert len(set(texts)) == len(texts) == 120
    assert images.shape == (60, 3, 32, 32)
    domains = list(DOMAINS.values())
    for number, pair in enumerate(captions[: len(domains)]):
        assert all(domains[number].classes[0] in text for text in pair)
    again, _ = captioned_pictures(20)
    np.testing.assert_array_equal(again, images[:20])


def test_ink_and_paper_have_the_colours_that_are_named() -> None:
    domain = DOMAINS["shapes"]
    image, look = draw(domain, 0, "clean", "a pool", 3)
    corner = image[:, 0, 0].astype(int)
    assert np.abs(corner - look.paper).max() <= 1
    assert (np.abs(image.reshape(3, -1).T.astype(int) - look.ink).max(1) <= 2).any()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_sets_do_not_depend_on_the_cache(cache: Path) -> None:
    rendered = general_sets(cache, first_id=9)
    cached = general_sets(cache, first_id=9)
    assert [one.name for one in rendered] == [
        "dots",
        "dots-wild",
        "faces",
        "faces-wild",
        "signs",
        "signs-wild",
    ]
    assert [a.images.digest() for a in rendered] == [b.images.digest() for b in cached]
    assert rendered[0].classes.ids == tuple(range(9, 17))
    assert not any(DOMAINS[one.name.removesuffix("-wild")].downstream for one in rendered)


def test_a_smoke_run_looks_at_the_first_pictures(cache: Path) -> None:
    few = captioned_set(cache, quick=True)
    assert len(few.images) == 32
    assert len(few.captions) == len(few.owners) == 64
    assert max(few.owners) == 31


def test_all_that_probes_ask_for_is_embedded(cache: Path) -> None:
    data = probe_data(
        {"general", "captioned"},
        (),
        embedded=True,
        image_size=32,
        data_root=str(cache),
        cache_root=None,
        quick=True,
    )
    assert set(data.digests_of(["general", "captioned"])) == {
        *(one.name for one in data.general),
        "mini",
    }
