"""Recall against torchmetrics' hit rate, query by query."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torchmetrics.functional.retrieval import retrieval_hit_rate

from clbench.clip.model import CLIP
from clbench.core.probe import CaptionedSet, ProbeData
from clbench.probes import retrieval
from clbench.probes.retrieval import Retrieval, recalls
from tests.probes.looks import make_look, toy_benchmark


@pytest.mark.parametrize("chunk", [7, 1000])
def test_recall_is_the_mean_hit_rate(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", chunk)
    images = F.normalize(torch.randn(30, 8), dim=1)
    owners = torch.arange(30).repeat_interleave(5)
    texts = F.normalize(images[owners] + 1.5 * torch.randn(150, 8), dim=1)
    found = recalls(images, texts, owners)
    similar = images @ texts.T
    right = owners[None, :] == torch.arange(30)[:, None]
    for k in (1, 5, 10):
        i2t = [retrieval_hit_rate(similar[i], right[i], top_k=k) for i in range(30)]
        t2i = [retrieval_hit_rate(similar[:, j], right[:, j], top_k=k) for j in range(150)]
        assert found[f"i2t_r{k}"] == pytest.approx(float(torch.stack(i2t).mean()))
        assert found[f"t2i_r{k}"] == pytest.approx(float(torch.stack(t2i).mean()))
    assert 0 < found["t2i_r1"] < found["t2i_r10"] < 1


def test_by_hand() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0.1, 0], [0, 0.2, 1], [0, 0.4, 0.9]])
    found = recalls(images, texts, torch.tensor([0, 1, 2]))
    assert found["i2t_r1"] == pytest.approx(1 / 3), "the third finds the second's text"
    assert found["t2i_r1"] == pytest.approx(2 / 3)
    assert found["i2t_r5"] == found["t2i_r5"] == 1


def test_images_and_captions_pass_through_the_model(tiny_clip: CLIP) -> None:
    _, sets = toy_benchmark(1)
    owners = tuple(i for i in range(24) for _ in range(2))
    captions = tuple(f"picture {i} words {k}" for k, i in enumerate(owners))
    data = ProbeData(captioned=(CaptionedSet("toy", sets[0], captions, owners),))
    with torch.no_grad():
        found = Retrieval().measure(make_look(tiny_clip, data=data))
        images = tiny_clip.encode_image(sets[0].images)
        texts = tiny_clip.encode_text(tiny_clip.tokenize(captions))
    expected = recalls(images, texts, torch.tensor(owners))
    assert found == pytest.approx({f"toy_{key}": value for key, value in expected.items()})
    assert set(found) == {f"toy_{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)}
