from __future__ import annotations

import io
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from filelock import FileLock
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, image_transform
from PIL import Image
from torch.utils.data import DataLoader

from clbench.core.errors import ClbenchError
from clbench.core.settings import TrainSettings
from clbench.core.task import Benchmark, ClassTexts, Setting, Task
from clbench.datamodules.pixels import decoded_file
from clbench.datamodules.pixels.augment import (
    CroppedImages,
    PositionedBatches,
    RandomCrop,
    ResizeAndCrop,
)
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.decoded import Decoded
from clbench.datamodules.pixels.decoded_file import DecodedFile
from clbench.datamodules.pixels.images import ImageTensors
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.sequence import StepSampler, TaskSequence

SIZE = 16
SHAPES = [(40, 25), (25, 40), (16, 16), (9, 13), (33, 32), (100, 17)]


def photo(width: int, height: int) -> Image.Image:
    random = np.random.default_rng([width, height])
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Images of many shapes and modes, two classes."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = []
    for i, (width, height) in enumerate(SHAPES):
        mode = ("RGB", "L", "CMYK")[i % 3]
        names.append(f"{i}.jpg")
        photo(width, height).convert(mode).save(folder / names[-1])
    return Samples(np.arange(len(names)) % 2, folder, tuple(names))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where decoded images lie in a cache."""
    return tmp_path / "decoded"


def images_of(samples: Samples, cache: Path | None, *, build: bool = True) -> Decoded:
    images = Decoded.of(samples, SIZE, cache and Cache(cache.parent), "toy")
    if build:
        images.prepare(quiet=True)
    return images


def everything(images: Decoded) -> torch.Tensor:
    return images.__getitems__(range(len(images)))[0]


def the_file(cache: Path) -> Path:
    (file,) = cache.glob("*.npy")
    return file


def test_pixels_are_those_of_the_published_transform(samples: Samples) -> None:
    transform = image_transform(SIZE, is_train=False)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    for index, pixels in enumerate(everything(images_of(samples, None))):
        expected = transform(samples.image(index))
        assert torch.allclose((pixels / 255 - mean) / std, expected, atol=1e-5)


def test_the_cache_gives_the_same_bits(samples: Samples, cache: Path) -> None:
    kept = images_of(samples, cache)
    assert kept.file.cached
    assert torch.equal(everything(kept), everything(images_of(samples, None)))
    chosen = [4, 0, 4]
    pixels, labels = kept.__getitems__(chosen)
    assert torch.equal(pixels, everything(kept)[chosen])
    assert labels.tolist() == [0, 0, 0]
    assert (pixels.dtype, pixels.is_contiguous()) == (torch.uint8, True)


def test_a_cache_is_read_without_the_images(samples: Samples, cache: Path) -> None:
    expected = everything(images_of(samples, cache))
    reader = images_of(samples, cache, build=False)
    assert reader.digest()  # the files are looked at once
    for name in samples.files or ():
        (samples.root / name).unlink()
    assert torch.equal(everything(reader), expected)


def test_nothing_but_the_cache_is_left(samples: Samples, cache: Path) -> None:
    images_of(samples, cache)
    assert {p.suffix for p in cache.iterdir()} <= {".npy", ".lock"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.write_bytes(b""),
        lambda f: f.write_bytes(f.read_bytes()[:-1]),
        lambda f: f.write_bytes(b"\x00" * 200),
        lambda f: np.save(f, np.zeros((6, 3, SIZE, SIZE), np.uint8)),
        lambda f: np.save(f, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    ],
    ids=["empty", "cut short", "no header", "other shape", "objects"],
)
def test_a_damaged_cache_is_written_anew(samples: Samples, cache: Path, damage) -> None:
    expected = everything(images_of(samples, cache))
    sound = the_file(cache).read_bytes()
    damage(the_file(cache))
    assert torch.equal(everything(images_of(samples, cache, build=False)), expected)
    assert torch.equal(everything(images_of(samples, cache)), expected)
    assert the_file(cache).read_bytes() == sound


def test_a_flipped_bit_is_mended_and_the_file_written_anew(samples: Samples, cache: Path) -> None:
    expected = everything(images_of(samples, cache))
    content = bytearray(the_file(cache).read_bytes())
    content[-5] ^= 1
    the_file(cache).write_bytes(content)
    assert torch.equal(everything(images_of(samples, cache, build=False)), expected)
    assert list(cache.glob("*.npy")) == []
    assert torch.equal(everything(images_of(samples, cache)), expected)
    assert images_of(samples, cache, build=False).file.cached


def test_a_killed_build_leaves_nothing_wrong(samples: Samples, cache: Path) -> None:
    path = DecodedFile(samples, ResizeAndCrop(SIZE), Cache(cache.parent), "toy").path
    assert path is not None
    cache.mkdir()
    path.with_suffix(".partial").write_bytes(b"half an image")
    assert not images_of(samples, cache, build=False).file.cached
    images_of(samples, cache)
    assert {p.suffix for p in cache.iterdir()} <= {".npy", ".lock"}


def test_a_damaged_image_is_named_and_nothing_is_left(samples: Samples, cache: Path) -> None:
    broken = samples.root / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ClbenchError, match=r"cannot read the image .*3\.jpg"):
        images_of(samples, cache)
    assert {p.suffix for p in cache.iterdir()} <= {".lock"}


def test_changed_images_transforms_and_decoders_have_other_caches(
    samples: Samples, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(changed: Samples, size: int = SIZE) -> Path | None:
        return DecodedFile(changed, ResizeAndCrop(size), Cache(cache.parent), "toy").path

    crop = DecodedFile(samples, RandomCrop(SIZE), Cache(cache.parent), "toy").path
    paths = [path(samples), path(samples, SIZE + 1), path(samples.subset([1, 0, 2])), crop]
    monkeypatch.setattr(PIL, "__version__", "0")
    paths.append(path(samples))
    assert len(set(paths)) == 5


def replace_by_as_many_bytes(path: Path) -> None:
    """Change pixels and nothing of a file's name and size."""
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[size // 2] ^= 0x10
    path.write_bytes(content)
    assert path.stat().st_size == size


def test_an_edit_of_the_same_size_has_another_digest_and_another_cache(
    samples: Samples, cache: Path
) -> None:
    before = images_of(samples, cache)
    replace_by_as_many_bytes(samples.root / "2.jpg")
    after = images_of(samples, cache)
    assert before.digest() != after.digest()
    assert before.file.path != after.file.path
    assert torch.equal(everything(after), everything(images_of(samples, None)))
    differing = (everything(before) != everything(after)).flatten(1).any(1)
    assert differing.tolist() == [i == 2 for i in range(len(samples))]


def test_an_image_that_is_replaced_while_it_is_in_use_is_named(samples: Samples) -> None:
    images = images_of(samples, None)
    images.digest()
    replace_by_as_many_bytes(samples.root / "4.jpg")
    for read in (lambda: images.__getitems__([4]), lambda: images.original(4)):
        with pytest.raises(ClbenchError, match=r"4\.jpg was replaced while it was in use"):
            read()
    assert images.original(3)[0].size == SHAPES[3]


def test_decoded_images_of_others_are_used_and_left_alone(samples: Samples, tmp_path: Path) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    expected = everything(images_of(samples, shared / "decoded"))
    images = Decoded.of(samples, SIZE, Cache(mine, shared), "toy")
    images.prepare(quiet=True)
    assert images.file.path == the_file(shared / "decoded")
    assert torch.equal(everything(images), expected)
    assert not mine.exists() or not list(mine.rglob("*.npy"))
    others = Decoded.of(samples.subset([1, 2]), SIZE, Cache(mine, shared), "toy")
    others.prepare(quiet=True)
    assert others.file.path == the_file(mine / "decoded")


def test_two_builders_at_once_write_one_cache(
    samples: Samples, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = DecodedFile._write

    def counted(self: DecodedFile, path: Path, console: object) -> None:
        written.append(path)
        write(self, path, console)  # type: ignore[arg-type]

    monkeypatch.setattr(DecodedFile, "_write", counted)
    builders = [threading.Thread(target=images_of, args=(samples, cache)) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(written) == 1
    assert torch.equal(everything(images_of(samples, cache)), everything(images_of(samples, None)))


def test_a_waiting_builder_says_so(
    samples: Samples, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = images_of(samples, cache, build=False)
    assert images.file.path is not None
    cache.mkdir()
    lock = FileLock(images.file.path.with_suffix(".lock"))
    lock.acquire()
    builder = threading.Thread(target=images.prepare)
    builder.start()
    said = ""
    while "waiting for another process" not in said:
        assert builder.is_alive()
        said += capfd.readouterr().err
    lock.release()
    builder.join()
    assert images.file.cached


def test_a_folder_that_cannot_be_written_costs_time_only(
    samples: Samples, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    images = Decoded.of(samples, SIZE, Cache(tmp_path / "file"), "toy")
    images.prepare()
    assert "toy: images are decoded again in every run" in capfd.readouterr().err
    assert torch.equal(everything(images), everything(images_of(samples, None)))


def test_too_little_space_is_seen_before_writing(
    samples: Samples,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(cache.parent)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    images = images_of(samples, cache, build=False)
    images.prepare()
    assert "GB are free" in capfd.readouterr().err
    assert list(cache.glob("*.npy")) == []
    assert len(everything(images)) == len(samples)


def test_a_disk_that_fills_up_leaves_nothing(
    samples: Samples, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    images = images_of(samples, cache)
    assert {p.suffix for p in cache.iterdir()} <= {".lock"}
    assert len(everything(images)) == len(samples)


def test_a_worker_process_maps_the_file_itself(samples: Samples, cache: Path) -> None:
    images = images_of(samples, cache)
    expected = everything(images)
    stream = io.BytesIO()
    pickle.dump(images, stream)
    assert stream.tell() < expected.numel()
    stream.seek(0)
    assert torch.equal(everything(pickle.load(stream)), expected)


def test_subsets_share_one_file_and_keep_their_own_labels(samples: Samples, cache: Path) -> None:
    file = DecodedFile(samples, ResizeAndCrop(SIZE), Cache(cache.parent), "toy")
    some = Decoded(file, np.array([5, 1]), np.array([7, 8]))
    some.prepare(quiet=True)
    whole = Decoded(file)
    pixels, labels = some.__getitems__([1, 0])
    assert labels.tolist() == [8, 7]
    assert torch.equal(pixels, everything(whole)[[1, 5]])
    assert some.original(0)[0].size == SHAPES[5]
    others = [Decoded(file, np.array([5, 2])), Decoded(file, np.array([5, 1])), whole]
    assert len({some.digest(), *(other.digest() for other in others)}) == 4


def test_training_images_are_kept_only_where_each_is_drawn(samples: Samples, cache: Path) -> None:
    images = images_of(samples, cache, build=False)
    images.prepare(draws=len(samples) - 1, quiet=True)
    assert not cache.exists()
    images.prepare(draws=len(samples), quiet=True)
    assert images.file.cached


def sequence_of(images: Decoded | ImageTensors) -> TaskSequence:
    tasks = tuple(Task(n, ClassTexts.from_templates(["x", "y"], ["a {}."])) for n in ("a", "b"))
    benchmark = Benchmark("toy", 1, Setting.TASK_GIVEN, "given", tasks)
    return TaskSequence(benchmark, lambda task: (images, images))


def test_a_sequence_decodes_what_its_recipe_reads(samples: Samples, tmp_path: Path) -> None:
    test = images_of(samples, tmp_path / "test" / "decoded", build=False)
    train = images_of(samples, tmp_path / "train" / "decoded", build=False)
    sequence = sequence_of(test)
    sequence._sets = {0: (train, test), 1: (train, test)}
    sequence.prepare(TrainSettings(steps=9, batch_size=6, augmentation="crop"), quiet=True)
    assert (test.file.cached, train.file.cached) == (True, False)
    sequence.prepare(TrainSettings(steps=1, batch_size=6), quiet=True)
    assert train.file.cached


def crops(samples: Samples, *, task: int = 0, seed: int = 0, workers: int = 0) -> torch.Tensor:
    images = CroppedImages(images_of(samples, None), seed, task, "toy")
    batches = PositionedBatches(StepSampler(len(images), 4, 3, seed=0))
    loader: DataLoader[object] = DataLoader(
        images,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=lambda batch: batch,
        num_workers=workers,
    )
    return torch.cat([pixels for pixels, _ in loader])  # type: ignore[attr-defined]


def test_crops_depend_on_seed_task_and_position_only(samples: Samples) -> None:
    reference = crops(samples)
    torch.rand(3)
    assert torch.equal(crops(samples), reference)
    assert torch.equal(crops(samples, workers=2), reference)
    assert not torch.equal(crops(samples, seed=1), reference)
    assert not torch.equal(crops(samples, task=1), reference)


def test_drawing_a_crop_leaves_the_global_random_state_alone(samples: Samples) -> None:
    before = torch.get_rng_state()
    CroppedImages(images_of(samples, None), 0, 0, "toy").__getitems__([(0, 1), (1, 2)])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_drawn_twice_is_cropped_differently() -> None:
    crop, image = RandomCrop(SIZE, (0, 0)), photo(64, 64)
    assert not np.array_equal(crop(image, 0), crop(image, 1))


def test_a_crop_keeps_nine_tenths_of_the_area() -> None:
    """A horizontal ramp shows what part of the width a crop kept."""
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    image = Image.fromarray(ramp)
    kept = []
    for position in range(40):
        pixels = RandomCrop(64)(image, position)
        kept.append((int(pixels[0, 32, -1]) - int(pixels[0, 32, 0])) / 255)
    assert min(kept) > 0.9 * 0.9 * 0.86  # the narrowest box: 90 % of the area at ratio 3/4
    assert max(kept) > min(kept)


def test_the_crop_reaches_the_training_loader(samples: Samples) -> None:
    sequence = sequence_of(images_of(samples, None))
    options = {"batch_size": 6, "steps": 1, "seed": 0}
    plain, plain_labels = next(iter(sequence.train_loader(0, **options)))
    cropped, labels = next(iter(sequence.train_loader(0, **options, augmentation="crop")))
    assert torch.equal(labels, plain_labels)
    assert plain.shape == cropped.shape
    assert not torch.equal(plain, cropped)


def test_images_without_originals_cannot_be_cropped() -> None:
    images = ImageTensors(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4))
    with pytest.raises(ClbenchError, match=r"'toy' has no images larger .*augmentation=none"):
        sequence_of(images).train_loader(0, batch_size=2, steps=1, seed=0, augmentation="crop")


def test_threads_decode_what_one_thread_does(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = everything(Decoded(DecodedFile(samples, RandomCrop(SIZE), None, "toy")))
    monkeypatch.setattr(decoded_file, "_threads", lambda: 1)
    assert torch.equal(many, everything(Decoded(DecodedFile(samples, RandomCrop(SIZE), None, "t"))))
