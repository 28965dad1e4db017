"""Trained models, loaded again and exported: the logits of other libraries are the run's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from typer.testing import CliRunner

import clbench
from clbench.cli.app import app
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.clip.weights.transformers_folder import write_transformers
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.settings import BackboneSettings
from clbench.core.task import ClassTexts
from clbench.trained import NotMergeableError, merged
from tests.plugin.clbench_examples.ridge_head import RidgeHead
from tests.small_runs import run_small, write_tasks

METHODS = ("nusa", "lora", "gnsp")
MINI = BackboneSettings(weights="clbench.datamodules.mini:clip.safetensors")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CLASSES = ClassTexts.from_templates(
    ["Zebra crossing", "kind task0 1", "a much longer name than all of the others here"],
    ["a photo of a {}.", "{}"],
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("data") / "tasks")


@pytest.fixture(scope="module")
def runs(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    """A short run of each method, with settings that move the weights well."""
    folder = tmp_path_factory.mktemp("runs")
    sizes: dict[str, dict[str, Any]] = {
        "nusa": {"method__rank": 8, "train__lr": 0.05},
        "lora": {"method__rank": 4, "train__lr": 0.01},
        "gnsp": {},
    }
    made = {
        name: run_small(name, tasks, folder, backbone="mini", **sizes[name]) for name in METHODS
    }
    return {**made, "ridge-head": run_small(RidgeHead, tasks, folder, backbone="mini")}


@pytest.fixture(scope="module")
def images(tasks: Path) -> list[Image.Image]:
    images = [Image.open(path) for path in sorted(tasks.rglob("test/*/[01].png"))]
    for image in images:
        image.load()  # and close the file
    return images


@torch.no_grad()
def by_open_clip(
    folder: Path, images: list[Image.Image], texts: list[str]
) -> tuple[Tensor, Tensor]:
    """Pixels and logits, as anyone would have them who has open_clip and the folder."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    pixels = torch.stack([preprocess(image) for image in images])
    told = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    shown = F.normalize(model.encode_image(pixels), dim=-1)
    return pixels, model.logit_scale.exp() * shown @ told.T


@pytest.mark.parametrize("name", ["nusa", "gnsp", pytest.param("lora", marks=pytest.mark.slow)])
@torch.no_grad()
def test_open_clip_alone_gives_the_logits_of_the_run(
    name: str, runs: dict[str, RunResult], images: list[Image.Image], tmp_path: Path
) -> None:
    path = runs[name].path
    assert path is not None
    exported = clbench.export(path, tmp_path / "out")
    assert exported.merged
    assert exported.difference is not None
    assert exported.difference < 1e-5
    pixels, found = by_open_clip(tmp_path / "out", images, list(CLASSES.training_prompts))
    method = clbench.load_method(path)
    expected = method.classify(pixels, CLASSES.first())
    torch.testing.assert_close(found, expected, **CLOSE)
    model = merged(method)
    answers = model.logits(pixels, model.class_features(CLASSES.first()))
    torch.testing.assert_close(answers, expected, **CLOSE)
    untrained = load_clip(MINI)
    before = untrained.logits(pixels, untrained.class_features(CLASSES.first()))
    assert float((before - expected).abs().max()) > 0.01, "training has changed the model"
    assert not [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".pt", ".bin", ".pkl")]


def test_an_exported_model_scores_as_the_last_row_of_its_run(
    runs: dict[str, RunResult], tasks: Path, tmp_path: Path
) -> None:
    result = runs["gnsp"]
    assert result.path is not None
    clbench.export(result.path, tmp_path / "out")
    settings = {"device": "cpu", "data_root": str(tasks.parent / "cache")}
    tested = clbench.evaluate(
        str(tmp_path / "out"), f"folder:{tasks}", settings=settings, quiet=True
    )
    last = result.matrix.values[-1].tolist()
    assert list(tested.accuracy.values()) == last
    assert last != result.matrix.values[0].tolist()


def test_the_card_says_what_was_measured(runs: dict[str, RunResult], tmp_path: Path) -> None:
    result = runs["lora"]
    assert result.path is not None
    clbench.export(result.path, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: open_clip\n")
    assert f"Last {100 * (result.summary['last'] or 0):.1f}" in card
    assert "rank=4" in card
    assert result.backbone.fingerprint in card
    assert "smoke run" not in card
    assert RunResult.load(tmp_path / "out" / "clbench_result.json") == result
    assert "create_model_and_transforms" in card


def test_methods_that_answer_by_themselves_are_exported_whole(
    runs: dict[str, RunResult], images: list[Image.Image], tmp_path: Path
) -> None:
    path = runs["ridge-head"].path
    assert path is not None
    with pytest.raises(NotMergeableError, match=r"'ridge-head' cannot be merged.*load_method"):
        clbench.load_model(path, method=RidgeHead)
    exported = clbench.export(path, tmp_path / "out", method=RidgeHead)
    assert (exported.merged, exported.difference) == (False, None)
    assert "cannot be merged" in exported.note
    again = clbench.load_method(tmp_path / "out", method=RidgeHead)
    before = clbench.load_method(path, method=RidgeHead)
    pixels = torch.stack([torch.from_numpy(np.array(i.resize((32, 32)))) for i in images])
    pixels = pixels.permute(0, 3, 1, 2)
    torch.testing.assert_close(
        again.classify(pixels, CLASSES), before.classify(pixels, CLASSES), rtol=0, atol=0
    )
    assert len(before.ids) == 4
    assert "load_method" in (tmp_path / "out" / "README.md").read_text()


class Doubled(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = 2 * self.base(x)
        return doubled


class Wrapper(Method):
    """Leaves a layer in the model that is no part of a CLIP."""

    name = "wrapper"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        path, layer = model.attention_linears()[0]
        model.replace(path, Doubled(layer))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}


def test_a_model_with_foreign_layers_is_not_merged(tiny_clip: CLIP) -> None:
    method = Wrapper()
    method.prepare(tiny_clip)
    with pytest.raises(NotMergeableError, match="'wrapper' cannot be merged into a CLIP"):
        merged(method)


@torch.no_grad()
def by_transformers_names(folder: Path, pixels: Tensor, ids: Tensor) -> Tensor:
    """CLIP as transformers documents it, by the names of its configuration and its tensors."""
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    used: set[str] = set()

    def get(name: str) -> Tensor:
        used.add(name)
        return state[name]

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, get(f"{name}.weight"), get(f"{name}.bias"))

    def norm(name: str, x: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"), eps)

    def encoder(prefix: str, part: dict[str, Any], x: Tensor, causal: bool) -> Tensor:
        heads, eps = part["num_attention_heads"], part["layer_norm_eps"]
        act = {"gelu": F.gelu, "quick_gelu": lambda y: y * torch.sigmoid(1.702 * y)}
        for i in range(part["num_hidden_layers"]):
            block = f"{prefix}.encoder.layers.{i}"
            y = norm(f"{block}.layer_norm1", x, eps)
            q, k, v = (
                linear(f"{block}.self_attn.{n}_proj", y).unflatten(-1, (heads, -1)).transpose(1, 2)
                for n in "qkv"
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + linear(f"{block}.self_attn.out_proj", y.transpose(1, 2).flatten(2))
            y = linear(f"{block}.mlp.fc1", norm(f"{block}.layer_norm2", x, eps))
            x = x + linear(f"{block}.mlp.fc2", act[part["hidden_act"]](y))
        return x

    vision, text = config["vision_config"], config["text_config"]
    patches = F.conv2d(
        pixels,
        get("vision_model.embeddings.patch_embedding.weight"),
        stride=vision["patch_size"],
    )
    first = get("vision_model.embeddings.class_embedding").expand(len(pixels), 1, -1)
    x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
    x = x + get("vision_model.embeddings.position_embedding.weight")
    x = encoder("vision_model", vision, norm("vision_model.pre_layrnorm", x, 1e-5), False)
    shown = norm("vision_model.post_layernorm", x[:, 0], 1e-5) @ get("visual_projection.weight").T
    x = get("text_model.embeddings.token_embedding.weight")[ids]
    x = x + get("text_model.embeddings.position_embedding.weight")
    x = norm("text_model.final_layer_norm", encoder("text_model", text, x, True), 1e-5)
    ends = (ids == text["eos_token_id"]).int().argmax(dim=1)
    told = x[torch.arange(len(ids)), ends] @ get("text_projection.weight").T
    scale = get("logit_scale").exp()
    assert used == set(state)
    return scale * F.normalize(shown, dim=-1) @ F.normalize(told, dim=-1).T


@pytest.fixture(scope="module")
def hf_folder(runs: dict[str, RunResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "out"
    path = runs["gnsp"].path
    assert path is not None
    outcome = CliRunner().invoke(app, ["export", str(path), "--format", "hf", "--out", str(folder)])
    assert outcome.exit_code == 0, outcome.output
    assert "config.json" in outcome.output
    return folder


def test_the_folder_for_transformers_is_the_model_under_its_names(
    runs: dict[str, RunResult], hf_folder: Path
) -> None:
    path = runs["gnsp"].path
    assert path is not None
    model = clbench.load_model(path)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    ids = open_clip.tokenize(list(CLASSES.training_prompts), context_length=20)
    found = by_transformers_names(hf_folder, pixels, ids)
    with torch.no_grad():
        expected = model.logits(pixels, model.class_features(CLASSES.first()))
    torch.testing.assert_close(found, expected, **CLOSE)
    processor = json.loads((hf_folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == model.mean.flatten().tolist()
    vocabulary = json.loads((hf_folder / "vocab.json").read_text())
    assert sorted(vocabulary.values()) == list(range(49408))
    assert len((hf_folder / "merges.txt").read_text().splitlines()) == 1 + 48894


@pytest.mark.slow
def test_transformers_gives_the_logits_of_the_run(
    runs: dict[str, RunResult], hf_folder: Path, images: list[Image.Image]
) -> None:
    transformers = pytest.importorskip("transformers")
    path = runs["gnsp"].path
    assert path is not None
    model = clbench.load_model(path)
    theirs = transformers.CLIPModel.from_pretrained(hf_folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(hf_folder)
    texts = list(CLASSES.training_prompts)
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = theirs(**inputs).logits_per_image
        expected = model.logits(inputs["pixel_values"], model.class_features(CLASSES.first()))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_what_transformers_has_no_place_for_is_refused(tiny_clip: CLIP, tmp_path: Path) -> None:
    model = load_clip(MINI)
    config = json.loads(json.dumps(model.config))
    config["vision_cfg"]["no_ln_pre"] = True
    model.config = config
    with pytest.raises(ClbenchError, match=r"no place for vision_cfg.no_ln_pre=True"):
        write_transformers(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ClbenchError, match="the configuration of tiny is not known"):
        write_transformers(tiny_clip, tmp_path / "out")


def test_mistakes_of_an_export_are_one_line(runs: dict[str, RunResult], tmp_path: Path) -> None:
    path = runs["lora"].path
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")

    def failure(*arguments: object) -> str:
        outcome = CliRunner().invoke(app, ["export", *map(str, arguments)])
        assert outcome.exit_code == 2, outcome.output
        assert len(outcome.stderr.splitlines()) == 1
        return outcome.stderr

    assert "is not empty" in failure(path, "--out", tmp_path / "full")
    assert "unknown format 'onnx'" in failure(path, "--out", tmp_path / "o", "--format", "onnx")
    trusted = failure(runs["ridge-head"].path, "--out", tmp_path / "o")
    assert "--trust-code" in trusted
    assert "no result file" in failure(tmp_path / "none", "--out", tmp_path / "o")
    runs["lora"].save(tmp_path / "collected.json")
    assert "name the run directory" in failure(tmp_path / "collected.json", "--out", tmp_path / "o")
    runs["lora"].save(tmp_path / "bare" / "result.json")
    assert "task-002.json" in failure(tmp_path / "bare", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_models_trained_on_mini_load_where_clbench_is_not(tmp_path: Path) -> None:
    code = """
import sys, json, torch, open_clip
from safetensors.torch import load_file
folder, probe = sys.argv[1:]
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
known = load_file(probe)
texts = json.loads(bytes(known["texts"].tolist()).decode())
model.eval()
with torch.no_grad():
    normalise = preprocess.transforms[-1]
    shown = model.encode_image(normalise(known["images"] / 255), normalize=True)
    told = model.encode_text(tokenizer(texts), normalize=True)
    logits = model.logit_scale.exp() * shown @ told.T
assert not [name for name in sys.modules if name.startswith("clbench")]
print(float((logits - known["logits"]).abs().max()))
"""
    from safetensors.torch import save_file

    for name in METHODS:
        result = clbench.run(name, "mini", runs_dir=tmp_path / "runs", quick=True, quiet=True)
        assert result.path is not None
        clbench.export(result.path, tmp_path / name)
        method = clbench.load_method(result.path)
        images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            logits = method.classify(images, CLASSES.first())
        texts = json.dumps(CLASSES.training_prompts).encode()
        probe = {"images": images, "logits": logits, "texts": torch.tensor(list(texts))}
        save_file(probe, tmp_path / f"{name}.safetensors")
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}.safetensors")]
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) < 1e-5
        assert "smoke run" in (tmp_path / name / "README.md").read_text()
