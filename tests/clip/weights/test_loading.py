"""Every way to name a backbone loads the right weights, and every mistake is one clear line."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import Tensor, nn

from clbench.clip.model import CLIP
from clbench.clip.tokenizer import Tokenizer
from clbench.clip.weights.files import read_checkpoint
from clbench.clip.weights.loading import load_clip
from clbench.clip.weights.torchscript import read_torchscript
from clbench.core.errors import ClbenchError
from clbench.core.settings import BackboneSettings

VOCABULARY = 49408
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "width": 8, "layers": 2, "head_width": 4},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": VOCABULARY,
        "width": 8,
        "heads": 2,
        "layers": 1,
    },
}
TAGS = {
    "openai": {
        "hf_hub": "someone/tiny-openai/",
        "url": "",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "quick_gelu": True,
    },
    "laion": {
        "hf_hub": "",
        "url": "https://example.invalid/tiny-laion.pt",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
}


@pytest.fixture(autouse=True)
def _tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {**CONFIG, "quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", CONFIG)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-quickgelu", quick)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", TAGS)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights of a trained model, as far as a loader can tell."""
    weights: dict[str, Tensor] = open_clip.CLIP(**CONFIG).state_dict()
    return weights


def load(weights: Path | str, model: str = "ViT-tiny", cache_dir: str | None = None) -> CLIP:
    return load_clip(BackboneSettings(model=model, weights=str(weights)), cache_dir)


def uses_quick_gelu(clip: CLIP) -> bool:
    return any(isinstance(module, QuickGELU) for module in clip.modules())


def assert_holds(clip: CLIP, state: Mapping[str, Tensor]) -> None:
    exported = clip.export_state_dict()
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], value.float()) for name, value in state.items())
    assert all(value.dtype == torch.float32 for value in exported.values())


# --- random


def test_random_is_the_same_every_time_and_leaves_global_randomness_alone() -> None:
    before = torch.get_rng_state()
    first = load("random")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert load("random").fingerprint() == first.fingerprint()
    assert not uses_quick_gelu(first)
    assert uses_quick_gelu(load("random", model="ViT-tiny-quickgelu"))


def test_vit_b_16_at_full_size_encodes_an_image_and_a_text() -> None:
    clip = load("random", model="ViT-B-16")
    assert (clip.image_size, clip.context_length) == (224, 77)
    assert len(clip.attention_linears()) == 96
    with torch.no_grad():
        image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
        text = clip.encode_text(clip.tokenize(["a photo of a cat."]))
        assert text.shape == clip.encode_image(image).shape == (1, 512)
        assert clip.logits(image, text).isfinite().all()


# --- files


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_a_plain_file_fills_the_configured_architecture(
    tmp_path: Path, state: dict[str, Tensor], name: str
) -> None:
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)
    clip = load(path)
    assert_holds(clip, state)
    torch.testing.assert_close(clip.mean.flatten(), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    torch.testing.assert_close(clip.std.flatten(), torch.tensor(open_clip.OPENAI_DATASET_STD))
    assert not uses_quick_gelu(clip)
    assert uses_quick_gelu(load(path, model="ViT-tiny-quickgelu"))


def test_half_precision_weights_become_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    half = {name: value.half() for name, value in state.items()}
    save_file(half, tmp_path / "w.safetensors")
    assert_holds(load(tmp_path / "w.safetensors"), half)


def test_training_checkpoints_are_unwrapped(tmp_path: Path, state: dict[str, Tensor]) -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / "epoch_3.pt")
    assert_holds(load(tmp_path / "epoch_3.pt"), state)


def test_a_relative_file_without_folder_is_found(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    assert_holds(load("mine.safetensors"), state)


# --- files that describe themselves


def kept_ids() -> list[int]:
    full = open_clip.SimpleTokenizer()
    words = {token for text in ("a photo of a cat.", "a dog") for token in full.encode(text)}
    return sorted({0, *words, full.sot_token_id, full.eot_token_id})


def write_described(path: Path, **changes: str) -> dict[str, Tensor]:
    ids = kept_ids()
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": len(ids)}}  # type: ignore[dict-item]
    state: dict[str, Tensor] = open_clip.CLIP(**config).state_dict()
    metadata = {
        "model_cfg": json.dumps(config),
        "token_ids": json.dumps(ids),
        "mean": json.dumps([0.1, 0.2, 0.3]),
        "std": json.dumps([0.4, 0.5, 0.6]),
    }
    save_file(state, path, metadata={**metadata, **changes})
    return state


def test_a_self_described_file_needs_no_architecture(tmp_path: Path) -> None:
    state = write_described(tmp_path / "mini.safetensors")
    clip = load(tmp_path / "mini.safetensors", model="no such model")
    assert_holds(clip, state)
    assert (clip.image_size, clip.context_length) == (8, 12)
    torch.testing.assert_close(clip.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(clip.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_a_model_is_called_what_its_file_describes(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    write_described(tmp_path / "reduced.safetensors")
    vision = CONFIG["vision_cfg"]
    sizes = f"ViT-{vision['width']}x{vision['layers']}-{vision['patch_size']}"  # type: ignore[index]
    assert load(tmp_path / "reduced.safetensors", model="ViT-B-16").name == sizes
    save_file(state, tmp_path / "known.safetensors", metadata={"model_cfg": json.dumps(CONFIG)})
    assert load(tmp_path / "known.safetensors", model="ViT-B-16").name == "ViT-tiny"
    packaged = "clbench.datamodules.mini:clip.safetensors"
    assert load(packaged, model="ViT-B-16").name == "mini"


def test_the_reduced_tokenizer_gives_the_rows_of_the_kept_tokens(tmp_path: Path) -> None:
    write_described(tmp_path / "mini.safetensors")
    clip = load(tmp_path / "mini.safetensors")
    full = open_clip.tokenize(["a photo of a cat.", "a dog"], context_length=12)
    tokens = clip.tokenize(["A photo of a cat.", "a dog"])
    ids = torch.tensor(kept_ids())
    assert torch.equal(ids[tokens[0]], full[0, : tokens.shape[1]])
    assert torch.equal(ids[tokens[1, :4]], full[1, :4])
    assert torch.equal(tokens.argmax(dim=1), full.argmax(dim=1))
    assert (tokens[1, 4:] == 0).all()


def test_a_known_word_stands_in_for_one_outside_the_reduced_vocabulary(tmp_path: Path) -> None:
    write_described(tmp_path / "mini.safetensors")
    clip = load(tmp_path / "mini.safetensors")
    known, unknown = clip.tokenize(["a photo of a cat", "a photo of a zebra"])
    assert torch.equal(known[:5], unknown[:5])
    assert unknown[5] < clip.tokenizer.sot_token_id
    assert unknown.argmax() == known.argmax()
    assert clip.unknown_words(["a cat", "a photo of a zebra", "zebra"]) == ["zebra"]
    assert torch.equal(clip.tokenize(["a photo of a zebra"])[0], unknown)


def test_long_texts_keep_the_end_of_text() -> None:
    tokenizer = Tokenizer(6)
    tokens = tokenizer(["one two three four five six seven"])
    assert tokens[0].tolist()[0] == tokenizer.sot_token_id
    assert tokens[0].tolist()[-1] == tokenizer.eot_token_id == tokenizer.vocab_size - 1


def test_padding_needs_no_row_in_the_reduced_vocabulary() -> None:
    full = open_clip.SimpleTokenizer()
    start, end = full.sot_token_id, full.eot_token_id
    cat, dog = sorted([*full.encode("cat"), *full.encode("dog")])
    tokens = Tokenizer(6, [cat, dog, start, end])([full.decode([dog]).strip()])
    assert tokens.tolist() == [[2, 1, 3, 0, 0, 0]]


@pytest.mark.parametrize("ids", [[5, 3, 49406, 49407], [1, 2, 3]])
def test_kept_tokens_must_be_sorted_and_have_start_and_end(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted and include"):
        Tokenizer(6, ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_cfg": "not json"},
        {"model_cfg": json.dumps({"embed_dim": 8})},
        {"model_cfg": json.dumps({**CONFIG, "colour": "red"})},
        {"model_cfg": json.dumps({**CONFIG, "text_cfg": {"hf_model_name": "someone/model"}})},
        {"token_ids": json.dumps([1, 2, 3])},
        {"mean": json.dumps("grey")},
    ],
)
def test_wrong_metadata_are_one_clear_line(tmp_path: Path, changes: dict[str, str]) -> None:
    write_described(tmp_path / "mini.safetensors", **changes)
    assert_one_line(tmp_path / "mini.safetensors", "metadata of .*mini.safetensors")


def with_changes(tower: str, **changes: object) -> str:
    """The configuration with other values in one of its towers, or at the top."""
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": len(kept_ids())}}  # type: ignore[dict-item]
    part = config if tower == "" else {**config[tower]}  # type: ignore[dict-item]
    part.update(changes)
    return json.dumps(part if tower == "" else {**config, tower: part})


IMPOSSIBLE = {
    "negative patch": {"model_cfg": ("vision_cfg", {"patch_size": -4})},
    "no patch": {"model_cfg": ("vision_cfg", {"patch_size": 0})},
    "patch larger than the image": {"model_cfg": ("vision_cfg", {"patch_size": 64})},
    "huge image": {"model_cfg": ("vision_cfg", {"image_size": 10**6})},
    "two sides": {"model_cfg": ("vision_cfg", {"image_size": [8, 16]})},
    "huge width": {"model_cfg": ("vision_cfg", {"width": 10**9})},
    "wide": {"model_cfg": ("vision_cfg", {"width": 60_000})},
    "width of many digits": {"model_cfg": ("vision_cfg", {"width": 10**400})},
    "layers in stages": {"model_cfg": ("vision_cfg", {"layers": [3, 4, 6, 3]})},
    "many layers": {"model_cfg": ("vision_cfg", {"layers": 1000})},
    "heads wider than the model": {"model_cfg": ("vision_cfg", {"head_width": 64})},
    "no head width": {"model_cfg": ("vision_cfg", {"head_width": 0})},
    "no heads": {"model_cfg": ("text_cfg", {"heads": 0})},
    "heads that do not divide": {"model_cfg": ("text_cfg", {"heads": 3})},
    "negative context": {"model_cfg": ("text_cfg", {"context_length": -1})},
    "huge context": {"model_cfg": ("text_cfg", {"context_length": 10**6})},
    "other vocabulary": {"model_cfg": ("text_cfg", {"vocab_size": 5})},
    "text width": {"model_cfg": ("text_cfg", {"width": None})},
    "computed positions": {"model_cfg": ("vision_cfg", {"pos_embed_type": "sin_cos_2d"})},
    "two outputs": {"model_cfg": ("vision_cfg", {"output_tokens": True})},
    "no dimension": {"model_cfg": ("", {"embed_dim": 0})},
    "dimension as text": {"model_cfg": ("", {"embed_dim": "8"})},
    "tower as list": {"model_cfg": ("", {"vision_cfg": []})},
    "list": {"model_cfg": "[]"},
    "null": {"model_cfg": "null"},
    "deep": {"model_cfg": "[" * 30_000},
    "null mean": {"mean": "[null, null, null]"},
    "two means": {"mean": "[0.5, 0.5]"},
    "infinite mean": {"mean": "[1e999, 0, 0]"},
    "no spread": {"std": "[0, 0, 0]"},
    "negative tokens": {"token_ids": "[-1, 49406, 49407]"},
    "huge tokens": {"token_ids": f"[{10**30}, 49406, 49407]"},
    "nested tokens": {"token_ids": "[[1]]"},
    "tokens by name": {"token_ids": '{"a": 1}'},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_metadata_are_one_clear_line(name: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = IMPOSSIBLE[name]
    texts = {
        key: value if isinstance(value, str) else with_changes(value[0], **value[1])
        for key, value in changes.items()
    }
    write_described(tmp_path / "mini.safetensors", **texts)
    assert_one_line(tmp_path / "mini.safetensors", r"mini\.safetensors.*backbone\.model=NAME")


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_weights_that_are_no_floats_are_one_clear_line(kind: torch.dtype, tmp_path: Path) -> None:
    state = {name: value.to(kind) for name, value in open_clip.CLIP(**CONFIG).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    name = str(kind).removeprefix("torch.")
    assert_one_line(tmp_path / "w.safetensors", f"is {name} instead of a float")


def test_a_file_inside_a_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    package = tmp_path / "clbench_some_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    save_file(state, package / "w.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    assert_holds(load("clbench_some_weights:w.safetensors"), state)


# --- OpenAI's TorchScript archives


class Container(nn.Module):
    """A module without code, to archive any tree of names."""


@pytest.fixture
def archive(tmp_path: Path, state: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    """A TorchScript archive as OpenAI made them, and its weights."""
    half = {name: v.half() if v.dim() > 1 else v for name, v in state.items()}
    extra = {"input_resolution": 8, "context_length": 12, "vocab_size": VOCABULARY}
    root = Container()
    for name, value in {**half, **{k: torch.tensor(v) for k, v in extra.items()}}.items():
        *path, leaf = name.split(".")
        module: nn.Module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, Container())
            module = module.get_submodule(part)
        if value.is_floating_point():
            module.register_parameter(leaf, nn.Parameter(value))
        else:
            module.register_buffer(leaf, value)
    path_ = tmp_path / "ViT-tiny.pt"
    torch.jit.script(root).save(path_)
    return path_, half


jit = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning"
)


@jit
def test_an_openai_archive_loads_with_its_activation(
    archive: tuple[Path, dict[str, Tensor]],
) -> None:
    clip = load(archive[0])
    assert_holds(clip, archive[1])
    assert uses_quick_gelu(clip)
    torch.testing.assert_close(clip.mean.flatten(), torch.tensor(open_clip.OPENAI_DATASET_MEAN))


@jit
def test_reading_an_archive_agrees_with_torch(archive: tuple[Path, dict[str, Tensor]]) -> None:
    expected = torch.jit.load(archive[0]).state_dict()
    actual = read_torchscript(archive[0])
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert all(actual[name].dtype == expected[name].dtype for name in expected)


@jit
def test_an_archive_is_read_without_torch_jit(
    archive: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.jit, "load", None)
    assert read_checkpoint(archive[0]).torchscript


def test_an_archive_with_a_callable_inside_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = f"cpathlib\nPath\n(S'{marker}'\ntRcpathlib\nPath.touch\n.".encode()
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("evil/data.pkl", payload)
        file.writestr("evil/constants.pkl", b"\x80\x02).")
    assert_one_line(path, "holds Python objects besides tensors")
    assert not marker.exists()


# --- files that do not work


def assert_one_line(weights: Path | str, message: str, model: str = "ViT-tiny") -> None:
    with pytest.raises(ClbenchError, match=message) as error:
        load(weights, model=model)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert_one_line(tmp_path / "none.pt", "none.pt does not exist")
    assert_one_line("none.safetensors", "none.safetensors does not exist")
    assert_one_line(tmp_path, "is a folder")
    assert_one_line("clbench.core:none.safetensors", "none.safetensors does not exist")
    assert_one_line("clbench_absent.pkg:w.safetensors", "'clbench_absent.pkg' .* not installed")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_damaged_files_are_one_clear_line(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, damage: str
) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": content[: len(content) // 2], "noise": b"?" * 99}[damage]
    )
    assert_one_line(path, "truncated or damaged")


@jit
def test_a_damaged_archive_is_one_clear_line(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive[0]) as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as target:
        for name in source.namelist():
            if not name.endswith("/data/3"):
                target.writestr(name, source.read(name))
    assert_one_line(tmp_path / "b.pt", "truncated or damaged")


class NotATensor:
    """Something that only a full unpickler could restore."""


@pytest.mark.parametrize("content", [NotATensor(), {"weights": NotATensor()}])
def test_pickles_with_objects_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert_one_line(tmp_path / "model.pt", "holds Python objects besides tensors")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3)])
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert_one_line(tmp_path / "model.pt", "holds no state dict")


def test_weights_of_another_architecture_list_what_differs(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    state["visual.proj"] = torch.zeros(8, 9)
    state["logit_scale"] = torch.zeros(2)
    state["bonus.weight"] = state.pop("ln_final.weight")
    state["bonus.bias"] = state.pop("ln_final.bias")
    save_file(state, tmp_path / "w.safetensors")
    assert_one_line(
        tmp_path / "w.safetensors",
        "do not fit ViT-tiny: ln_final.weight is missing, ln_final.bias is missing, "
        r"bonus.\w+ is unknown and 3 more",
    )
    state["ln_final.weight"], state["ln_final.bias"] = torch.ones(8), torch.zeros(8)
    del state["bonus.weight"], state["bonus.bias"]
    save_file(state, tmp_path / "w.safetensors")
    assert_one_line(
        tmp_path / "w.safetensors", "logit_scale is 2 instead of scalar, visual.proj is 8x9 instead"
    )


# --- tags


def test_unknown_names_suggest_the_nearest() -> None:
    assert_one_line("openai", "did you mean 'ViT-B-16'", model="ViT-B16")
    assert_one_line("opnai", "unknown weights for ViT-tiny 'opnai': did you mean 'openai'")
    assert_one_line("random", "RN50 is not a ViT CLIP", model="RN50")
    assert_one_line("random", "SigLIP is not a ViT CLIP", model="ViT-B-16-SigLIP")
    assert_one_line("random", "unknown CLIP architecture", model="hf-hub:someone/model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., str]], None]:
    """Replace the download of files from the Hugging Face Hub."""

    def install(download: Callable[..., str]) -> None:
        monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", download)

    return install


def test_a_tag_brings_its_weights_activation_and_normalisation(
    tmp_path: Path, state: dict[str, Tensor], hub: Callable[[Callable[..., str]], None]
) -> None:
    save_file(state, tmp_path / "open_clip_model.safetensors")
    asked: list[dict[str, Any]] = []

    def download(**request: Any) -> str:
        asked.append(request)
        return str(tmp_path / request["filename"])

    hub(download)
    clip = load("openai", cache_dir=str(tmp_path / "cache"))
    assert_holds(clip, state)
    assert uses_quick_gelu(clip)
    torch.testing.assert_close(clip.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(clip.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    assert asked[0]["repo_id"] == "someone/tiny-openai"
    assert asked[0]["cache_dir"] == str(tmp_path / "cache")


def test_without_network_the_needed_file_and_the_way_out_are_named(
    hub: Callable[[Callable[..., str]], None], caplog: pytest.LogCaptureFixture
) -> None:
    def download(**request: Any) -> str:
        logging.getLogger("huggingface_hub").warning("retrying")
        raise ConnectionError("no route\nto host")

    hub(download)
    assert_one_line(
        "openai",
        r"needed is open_clip_model.safetensors of https://huggingface.co/someone/tiny-openai; .*"
        r"--set backbone.weights=/path/to/file --set backbone.model=ViT-tiny-quickgelu",
    )
    assert not caplog.records


def test_a_failed_url_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(url: str) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(
        ClbenchError, match=r"needed is https://example.invalid/tiny-laion.pt; "
    ) as e:
        load("laion", cache_dir=str(tmp_path))
    assert "quickgelu" not in str(e.value)


def test_offline_mode_with_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ClbenchError, match=r"huggingface.co/timm/vit_base_patch16_clip_224.openai"):
        load("openai", model="ViT-B-16", cache_dir=str(tmp_path))


def test_open_clip_says_that_openai_trained_with_quick_gelu() -> None:
    assert open_clip.get_pretrained_cfg("ViT-B-16", "openai")["quick_gelu"] is True
