"""What folders of images and files of texts stand for: class names, ImageNet, captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from clbench.core.errors import ClbenchError
from clbench.core.task import Benchmark, Setting
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.reference import folder_pairs
from clbench.datamodules.reference_folders import ImageFolder, read_texts, words_of
from clbench.datamodules.sequence import TaskSequence
from clbench.testing.toys import make_tasks


def write_images(root: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4, 3), number % 256, dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="png")
    return root


def sequence(root: Path) -> TaskSequence:
    toys = make_tasks(3)
    sets = [ImageTensors(data.images, data.labels) for _, data in toys]
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "given", tuple(task for task, _ in toys))
    return TaskSequence(benchmark, lambda t: (sets[t], sets[t]), image_size=4, data_root=root)


def test_wordnet_ids_become_class_names(tmp_path: Path) -> None:
    names = ["n01440764/a.JPEG", "n02787622/b.JPEG", "n02672831/c.JPEG", "red_car/d.jpg"]
    pairs = folder_pairs(str(write_images(tmp_path, names)), 9, 0, 4, tmp_path)
    assert pairs.captions == (
        "a photo of a banjo",
        "a photo of a red car",
        "a photo of a tench",
        "a photo of an accordion",
    )
    by_pixel = {
        int(image[0, 0, 0]): int(label)
        for image, label in zip(pairs.images, pairs.labels, strict=True)
    }
    assert by_pixel == {0: 2, 1: 0, 2: 3, 3: 1}


def test_classes_of_one_name_share_their_caption(tmp_path: Path) -> None:
    """The bird and the machine."""
    root = write_images(tmp_path, ["n02012849/a.JPEG", "n03126707/b.JPEG"])
    pairs = folder_pairs(str(root), 2, 0, 4, tmp_path)
    assert pairs.captions == ("a photo of a crane",)
    assert pairs.labels.tolist() == [0, 0]


def test_an_unknown_wordnet_id_is_refused() -> None:
    with pytest.raises(ClbenchError, match="'n00000000' looks like a WordNet id"):
        words_of("n00000000")


def test_pairs_come_in_random_order(tmp_path: Path) -> None:
    """Batches take them in turn, so sorted pairs would be batches of one class."""
    root = write_images(tmp_path, [f"class{n // 8}/{n:02}.png" for n in range(32)])
    order = folder_pairs(str(root), 32, 0, 4, tmp_path).images[:, 0, 0, 0].tolist()
    assert sorted(order) == list(range(32))
    assert order != sorted(order)


def test_imagenet_is_known_by_its_classes_wherever_it_lies(tmp_path: Path) -> None:
    ids = ImageNetInfo().label_names()
    root = write_images(tmp_path / "imagenet/train", [f"{n}/{n}_1.JPEG" for n in ids])
    other = tmp_path / "elsewhere"
    other.symlink_to(root)
    for source in ("imagenet", str(root), str(other)):
        assert sequence(tmp_path).reference_pairs(0, source, 5, 0).source == "ImageNet-1k"
    stream = sequence(tmp_path).reference_stream(0, "imagenet", "task", 0)
    assert stream.source == "ImageNet-1k, texts: task"
    (root / ids[7] / f"{ids[7]}_1.JPEG").unlink()
    assert ImageFolder("imagenet", tmp_path).title == str(root)


def test_captions_are_known_by_the_name_of_their_file(tmp_path: Path) -> None:
    folder = tmp_path / "conceptual_captions"
    folder.mkdir()
    file = folder / "Validation_GCC-1.1.0-Validation.tsv"
    file.write_text("author : a life\thttp://a\nthe sea\thttp://b\n")
    for source in ("conceptual-captions", str(file)):
        stream = sequence(tmp_path).reference_stream(0, "task", source, 0)
        assert stream.all_texts == ("author : a life", "the sea")
        assert stream.source == "task, texts: Conceptual Captions"
    mine = tmp_path / "captions"
    mine.write_text("one\ntwo\n")
    assert sequence(tmp_path).reference_stream(0, "task", str(mine), 0).all_texts == ("one", "two")


def test_any_folder_of_images_can_be_streamed_but_pairs_need_classes(tmp_path: Path) -> None:
    root = write_images(tmp_path / "flat", ["a.png", "b.png", "deep/er/c.png"])
    stream = sequence(tmp_path).reference_stream(0, str(root), "task", 0)
    assert sorted(stream.images(0, 3)[:, 0, 0, 0].tolist()) == [0, 1, 2]
    assert stream.source == f"{root}, texts: task"
    with pytest.raises(ClbenchError, match=r"a\.png has no caption: images that need one lie in"):
        folder_pairs(str(root), 1, 0, 4, tmp_path)


@pytest.mark.parametrize("source", ["imagenet", "conceptual-captions"])
def test_missing_images_of_a_paper_say_where_to_put_them_and_what_to_do_without(
    tmp_path: Path, source: str
) -> None:
    with pytest.raises(ClbenchError) as caught:
        sequence(tmp_path).reference_stream(0, source, "task", 0)
    text = str(caught.value)
    assert f"method.reference={source}: there is no folder {tmp_path}" in text
    assert "set method.reference to 'task'" in text
    assert "are not held against the run" in text


def test_missing_captions_of_a_paper_say_what_to_do_without(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"cannot read .*set method\.captions to 'task'"):
        read_texts("conceptual-captions", tmp_path)


def test_every_text_of_a_folder_is_one_caption(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", [f"{c}/{i}.png" for c in ("cat", "ant") for i in "ab"])
    stream = sequence(tmp_path).reference_stream(0, str(root), str(root), 0)
    assert stream.all_texts == ("a photo of an ant", "a photo of a cat")
    assert torch.equal(stream.images(3, 2), stream.images(3, 2))
