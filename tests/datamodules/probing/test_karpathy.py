"""Flickr30k and COCO, on small files and trees in their exact formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clbench.core.errors import ClbenchError
from clbench.core.probe import CaptionedSet
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.probing import karpathy
from clbench.datamodules.probing.karpathy import captioned_sets
from clbench.datamodules.probing.load import probe_data
from clbench.datamodules.probing.survey import survey_probes


def entry(number: int, split: str, captions: int = 5, **own: Any) -> dict[str, Any]:
    first = 10 * number
    return {
        "sentids": list(range(first, first + captions)),
        "imgid": number,
        "sentences": [
            {
                "tokens": ["caption", str(k), "of", "picture", str(number)],
                "raw": f"Caption {k} of picture {number}. ",
                "imgid": number,
                "sentid": first + k,
            }
            for k in range(captions)
        ],
        "split": split,
        **own,
    }


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), shade, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    flickr = [
        entry(0, "train", filename="1000092795.jpg"),
        entry(1, "test", filename="1007129816.jpg"),
        entry(2, "val", filename="1018148011.jpg"),
        entry(3, "test", filename="1009434119.jpg"),
    ]
    val, train = {"filepath": "val2014"}, {"filepath": "train2014"}
    coco = [
        entry(0, "test", 6, **val, filename="COCO_val2014_000000391895.jpg", cocoid=391895),
        entry(1, "restval", **val, filename="COCO_val2014_000000060623.jpg", cocoid=60623),
        entry(2, "train", **train, filename="COCO_train2014_000000000009.jpg", cocoid=9),
    ]
    for name, images in (("flickr30k", flickr), ("coco", coco)):
        file = tmp_path / name / f"dataset_{name}.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"images": images, "dataset": name}))
    picture(tmp_path / "flickr30k/flickr30k-images/1007129816.jpg", 50)
    picture(tmp_path / "flickr30k/flickr30k-images/1009434119.jpg", 200)
    picture(tmp_path / "coco/val2014/COCO_val2014_000000391895.jpg", 100)
    for name, count in (("flickr30k", 2), ("coco", 1)):
        smaller = replace(karpathy.COLLECTIONS[name], images=count)
        monkeypatch.setitem(karpathy.COLLECTIONS, name, smaller)
    return tmp_path


def read(root: Path) -> dict[str, CaptionedSet]:
    return {one.name: one for one in captioned_sets(root, 32, Cache(root / "cache"))}


def test_the_test_split_has_five_captions_an_image(root: Path) -> None:
    sets = read(root)
    flickr, coco = sets["flickr30k"], sets["coco"]
    assert flickr.owners == (0,) * 5 + (1,) * 5
    assert flickr.captions[0] == "Caption 0 of picture 1."
    assert flickr.captions[9] == "Caption 4 of picture 3."
    images, _ = flickr.images.__getitems__([0, 1])
    assert images.float().mean((1, 2, 3)).tolist() == pytest.approx([50, 200], abs=3)
    assert len(coco.images) == 1
    assert coco.owners == (0,) * 5, "a sixth caption is left out"


def test_images_and_files_may_lie_in_other_usual_places(root: Path) -> None:
    (root / "flickr30k/flickr30k-images").rename(root / "flickr30k/images")
    (root / "coco/dataset_coco.json").rename(root / "dataset_coco.json")
    (root / "coco/images").mkdir()
    (root / "coco/val2014").rename(root / "coco/images/val2014")
    assert [len(one.images) for one in read(root).values()] == [2, 1]


def test_what_is_wrong_is_named(root: Path) -> None:
    (root / "flickr30k/flickr30k-images/1009434119.jpg").unlink()
    with pytest.raises(ClbenchError, match=r"flickr30k: there is no image .*1009434119.jpg"):
        read(root)
    file = root / "flickr30k/dataset_flickr30k.json"
    content = json.loads(file.read_text())
    content["images"][1]["split"] = "train"
    file.write_text(json.dumps(content))
    with pytest.raises(ClbenchError, match="has 1 test images, not 2"):
        read(root)
    content["images"] = [{"split": "test"}]
    file.write_text(json.dumps(content))
    with pytest.raises(ClbenchError, match="not Karpathy's format"):
        read(root)
    content["images"] = [entry(0, "test", filename="../../secret.jpg") for _ in range(2)]
    file.write_text(json.dumps(content))
    with pytest.raises(ClbenchError, match="unexpected file name"):
        read(root)


def test_without_any_the_message_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="needs images with captions") as caught:
        probe_data(
            {"captioned"},
            (),
            embedded=False,
            image_size=32,
            data_root=str(tmp_path),
            cache_root=None,
        )
    for part in ("dataset_flickr30k.json", "flickr30k-images/*.jpg", "coco/val2014/*.jpg"):
        assert part in str(caught.value)


def test_the_digest_changes_with_captions_and_images(root: Path) -> None:
    def digests() -> dict[str, str]:
        data = probe_data(
            {"captioned"},
            (),
            embedded=False,
            image_size=32,
            data_root=str(root),
            cache_root=str(root / "cache"),
        )
        return data.digests_of(["captioned"])

    before = digests()
    file = root / "coco/dataset_coco.json"
    file.write_text(file.read_text().replace("Caption 1 of", "A caption of"))
    after = digests()
    assert after["flickr30k"] == before["flickr30k"]
    assert after["coco"] != before["coco"]


def test_images_that_are_missing_are_seen_without_opening_any(root: Path) -> None:
    states = {state.name: state for state in survey_probes(root)}
    assert (states["flickr30k"].status, states["flickr30k"].todo) == ("present", "")
    assert states["imagenet"].status == "missing"
    next((root / "flickr30k").rglob("1009434119.jpg")).unlink()
    states = {state.name: state for state in survey_probes(root)}
    assert states["flickr30k"].status == "incomplete"
    assert "1009434119.jpg" in states["flickr30k"].detail
