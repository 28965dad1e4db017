"""ImageNet and its variants, on small trees in the layouts in which they are distributed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clbench.cli.data import data_app
from clbench.core.errors import ClbenchError
from clbench.core.probe import GeneralSet
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.probing import imagenet
from clbench.datamodules.probing.imagenet import general_sets, imagenet_classes, wordnet_ids
from clbench.datamodules.probing.load import probe_data

IDS = {"tench": "n01440764", "goldfish": "n01443537", "toilet paper": "n15075141"}
"""Names of OpenAI's list and WordNet's ids: the first two classes and the last."""


def write(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), shade, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ImageNet with three classes, V2 by numbers, and R with two classes in two folders."""
    for k, wnid in enumerate(IDS.values()):
        for i in range(2):
            write(tmp_path / "imagenet/val" / wnid / f"ILSVRC2012_val_{k}{i}.JPEG", 60 * k + i)
    v2 = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in ("0", "1", "999"):
        write(v2 / number / "a.jpeg", 100)
    rendered = tmp_path / "imagenet-r"
    (rendered).mkdir()
    (rendered / "README.txt").write_text("not an image")
    write(rendered / "n15075141/sketch_1.jpg", 10)
    write(rendered / "n01443537/art_0.jpg", 20)
    write(rendered / "n01443537/art_1.jpg", 30)
    for name, classes, images in (
        ("imagenet", 3, 6),
        ("imagenet-v2", 3, 3),
        ("imagenet-r", 2, 3),
    ):
        smaller = replace(imagenet.VARIANTS[name], classes=classes, images=images)
        monkeypatch.setitem(imagenet.VARIANTS, name, smaller)
    return tmp_path


def read(root: Path) -> dict[str, GeneralSet]:
    cache = Cache(root / "cache")
    return {one.name: one for one in general_sets(root, 32, cache, first_id=500)}


def test_classes_are_openai_s_in_the_order_of_wordnet_ids() -> None:
    classes, ids = imagenet_classes(7), wordnet_ids()
    assert len(classes) == len(ids) == 1000
    for name, wnid in IDS.items():
        assert classes.names[ids.index(wnid)] == name
    assert {len(prompts) for prompts in classes.prompts} == {80}
    assert "a bad photo of a goldfish." in classes.prompts[1]
    assert classes.ids == tuple(range(7, 1007))


def test_every_layout_gives_the_images_of_its_classes(root: Path) -> None:
    sets = read(root)
    assert {"imagenet", "imagenet-v2", "imagenet-r", "imagenet-r-clean"} <= set(sets)
    assert sets["imagenet"].classes.names == tuple(IDS)
    assert sets["imagenet"].images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert sets["imagenet-v2"].classes.names == tuple(IDS)
    rendered = sets["imagenet-r"]
    assert rendered.classes.names == ("goldfish", "toilet paper")
    assert rendered.images.labels.tolist() == [0, 0, 1]
    assert rendered.classes.ids == (501, 1499)
    images, _ = rendered.images.__getitems__([2])
    assert images.shape == (1, 3, 32, 32)
    assert abs(int(images.float().mean()) - 10) < 3


def test_clean_images_are_those_of_the_same_classes(root: Path) -> None:
    clean = read(root)["imagenet-r-clean"]
    assert clean.classes.names == ("goldfish", "toilet paper")
    images, labels = clean.images.__getitems__(range(4))
    assert labels.tolist() == [0, 0, 1, 1]
    assert images.float().mean((1, 2, 3)).round().tolist() == pytest.approx(
        [60, 61, 120, 121], abs=3
    )


def test_an_incomplete_set_is_refused(root: Path) -> None:
    (root / "imagenet-r/n15075141/sketch_1.jpg").unlink()
    with pytest.raises(ClbenchError, match=r"has 2 images of 1 classes, not 3 of 2"):
        read(root)


def test_without_any_the_message_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="none are there") as caught:
        probe_data(
            {"general"},
            (),
            embedded=False,
            image_size=32,
            data_root=str(tmp_path),
            cache_root=None,
        )
    for part in ("imagenet/val/<WordNet id>", "imagenet-a", "<0 to 999>", "50889 images"):
        assert part in str(caught.value)


def test_what_is_only_wanted_may_be_missing(tmp_path: Path) -> None:
    data = probe_data(
        (), {"general"}, embedded=False, image_size=32, data_root=str(tmp_path), cache_root=None
    )
    assert data.general == ()


def test_data_list_says_which_sets_of_probes_are_there(root: Path) -> None:
    shade = root / "imagenet-a" / next(iter(IDS.values()))
    write(shade / "a.jpg", 10)
    shown = CliRunner().invoke(data_app, ["list", "probes", "--root", str(root)])
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert f"present: {root / 'imagenet-r'}" in lines["imagenet-r"]
    assert "incomplete: imagenet-a in" in lines["imagenet-a"]
    assert "has 1 images of 1 classes, not 7500 of 200" in lines["imagenet-a"]
    sketches = f"{root / 'imagenet-sketch'}/<WordNet id>/*.jpg"
    assert lines["imagenet-sketch"].split(maxsplit=1)[1].startswith("missing")
    assert sketches in lines["imagenet-sketch"]
    assert "dataset_coco.json" in lines["coco"]


def test_what_probes_look_at_is_not_downloaded(root: Path) -> None:
    refused = CliRunner().invoke(data_app, ["prepare", "probes", "--root", str(root)])
    assert refused.exit_code == 2
    assert "by hand; `clbench data list probes` says where" in refused.stderr
