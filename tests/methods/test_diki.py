"""DIKI: the released runs, prefixes that only add, and images recognised one by one."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.prefixes import choose, choosing
from clbench.clip.subspaces.gaussians import Gaussians
from clbench.config import resolve
from clbench.core.data import Batch
from clbench.core.settings import TrainSettings
from clbench.core.task import ClassTexts, Task
from clbench.core.training import TrainingPlan
from clbench.methods.diki import DIKI, recognised
from clbench.testing.checks import (
    decides_by_the_image,
    resumes_between_tasks,
    resumes_within_a_task,
)
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_clip, make_tasks
from tests.golden.golden import Golden, build_clip, read
from tests.golden.subspaces import assert_near

ANY = ClassTexts(("any",), (("any",),))


class GoldenImages:
    """The training images of a golden task, batch by batch."""

    def __init__(self, recorded, batch):
        images, labels = recorded["images"].float(), recorded["labels"]
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        self.batch_list = [Batch(i, y, recorded["tokens"]) for i, y in parts]

    def batches(self, _):
        return iter(self.batch_list)


def released_run():
    golden, vision = read("diki"), read("diki_vision")
    return Golden({**golden.tensors, **vision.tensors}, golden.metadata)


def prepared_as_released(golden):
    hp = golden.metadata["hp"]
    assert hp["weight_shift"] == 1.0
    base = {name: weight.float() for name, weight in golden.below("base.").items()}
    method = DIKI(
        **{f"length_{e}": hp[f"len_{e}"] for e in ("vision", "text")},
        **{f"depth_{e}": hp[f"depth_{e}"] for e in ("vision", "text")},
        divisor=hp["weight_divisor"],
        jitter=hp["cov_eps"],
        last_rate=hp["final_lr_ratio"],
        as_released=True,
    )
    method.prepare(build_clip(golden.metadata["cfg"], base))
    return method


def pools(method):
    """Prefixes by their name in the release."""
    named = [(f"visual.transformer.resblocks.{i}", p) for i, p in enumerate(method.vision)]
    named += [(f"transformer.resblocks.{i}", p) for i, p in enumerate(method.text)]
    return {f"{name}.attn.prefix_pool": p for name, p in named}


def put(prefix, pool):
    with torch.no_grad():
        prefix.keys.copy_(pool[0])
        prefix.values.copy_(pool[1])


def train(method, golden, index):
    """One task as it was recorded; what is left out of the file is put in as it was."""
    hp, recorded = golden.metadata["hp"], golden.below(f"task{index}.")
    method.train()
    method.begin_task(Task(f"golden {index}", ANY), None)
    if "images" not in recorded:
        for name, prefixes in pools(method).items():
            put(prefixes.sets[index], recorded[f"after.{name}"])
        cov = recorded["cov"].double() - hp["cov_eps"] * torch.eye(len(recorded["mean"]))
        root = torch.linalg.cholesky(cov).T
        known = method.gaussians
        known.means = torch.cat([known.means, recorded["mean"][None]])
        known.roots = torch.cat([known.roots, root.float()])
        known.sizes = torch.cat([known.sizes, torch.tensor([len(root)])])
        choose((*method.vision, *method.text), None)
        method.eval()
        return
    for name, pool in golden.below("init.").items():
        put(pools(method)[name].sets[index], pool[index].float())
    settings = TrainSettings(optimizer="sgd", momentum=hp["momentum"], warmup=0)
    plan = TrainingPlan(len(recorded["losses"]), hp["lr"], settings)
    optimizer, schedule = method.optimizer(plan)
    data = GoldenImages(recorded, hp["batch"])
    for step, expected in enumerate(recorded["losses"]):
        rate = optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(recorded["lr"][step].item(), rel=1e-6)
        batch = data.batch_list[step % len(data.batch_list)]
        with torch.no_grad():
            logits = method.model.logits(batch.images, method.model.encode_text(batch.prompts))
        assert_near(logits, recorded["logits_step"][step], 1e-3)
        optimizer.zero_grad()
        loss = method.loss(batch)["classification"]
        loss.backward()
        optimizer.step()
        schedule.step()
        assert_near(loss.detach(), expected, 1e-4)
    method.eval()
    method.end_task(Task(f"golden {index}", ANY), data)
    for name, prefixes in pools(method).items():
        found = torch.stack([prefixes.sets[index].keys, prefixes.sets[index].values])
        assert_near(found.detach(), recorded[f"after.{name}"], 1e-5)
    assert_near(method.gaussians.means[index], recorded["mean"], 1e-6)
    assert_near(method.gaussians.covariance(index).float(), recorded["cov"], 1e-6)


@torch.no_grad()
def test_reproduces_the_released_run():
    golden = released_run()
    method = prepared_as_released(golden)
    model = method.model
    with torch.enable_grad():
        for index in range(len(golden.metadata["hp"]["classes"]) - 1):
            train(method, golden, index)
    for number in range(golden.metadata["hp"]["pool"]):
        probe = golden.below(f"probe{number}.")
        images = probe["images"].float()
        features = method._frozen_features(images)
        assert_near(features, probe["features"], 1e-4)
        densities = method.gaussians.log_density(features)
        torch.testing.assert_close(densities.float(), probe["log_density"], rtol=1e-3, atol=0)
        tasks, weights = recognised(densities, method.divisor)
        assert torch.equal(tasks, probe["task_per_image"])
        assert_near(weights, probe["weight"], 1e-4)
        voted, mean = int(probe["task_voted"]), probe["text_weight"].item()
        with choosing(method.vision, torch.full_like(tasks, voted), weights):
            found = model.encode_image(images)
        assert_near(found, F.normalize(probe["prefixed_image_features"], dim=-1), 1e-4)
        for name, expected in probe.items():
            if name.endswith(".text_features"):
                index = name.removeprefix("classes").partition(".")[0]
                tokens = golden.tensors[f"task{index}.tokens"]
                with choosing(method.text, voted, mean):
                    texts = model.encode_text(tokens)
                assert_near(texts, F.normalize(expected, dim=-1), 1e-4)
                model.class_features = lambda _, texts=texts: texts
                answers = method.classify(images, ANY)
                assert_near(answers, probe[f"classes{index}.logits"], 1e-3)


def test_recognises_tasks_as_released():
    golden = read("diki_gaussian")
    hp = golden.metadata["hp"]
    gaussians = Gaussians(hp["dim"], hp["cov_eps"])
    tasks = [golden.below(f"task{t}.") for t in range(len(hp["per_task"]))]
    for t, recorded in enumerate(tasks):
        gaussians.add(F.normalize(recorded["features"], dim=-1))
        assert_near(gaussians.means[t], recorded["mean"], 1e-6)
        assert_near(gaussians.covariance(t).float(), recorded["cov"], 1e-7)
    for number in range(hp["pool"]):
        probe = golden.below(f"probe{number}.")
        densities = gaussians.log_density(F.normalize(probe["features"], dim=-1))
        torch.testing.assert_close(densities, probe["log_density_f64"], rtol=1e-5, atol=0)
        found, weights = recognised(densities, hp["weight_divisor"])
        assert torch.equal(found, probe["task_per_image"])
        assert_near(weights, probe["weight"], 1e-5)
        assert_near(weights.mean(), probe["text_weight"][0], 1e-5)
        assert found.bincount().argmax() == probe["task_voted"][0]


def test_attends_as_released():
    """The prefix's share is its own softmax, through the output projection."""
    golden = released_run()
    method = prepared_as_released(golden)
    for index in range(2):
        for prefixes in pools(method).values():
            prefixes.grow(torch.Generator())
        for name, prefixes in pools(method).items():
            put(prefixes.sets[index], golden.tensors[f"task{index}.after.{name}"])
    probe = golden.below("probe0.")
    voted = int(probe["task_voted"])
    for encoder, prefixes in (("image", method.vision), ("text", method.text)):
        blocks = method.model.blocks("vision" if encoder == "image" else "text")
        mask = None if encoder == "image" else torch.full((16, 16), -torch.inf).triu(1)
        weight = probe["weight"][:3] if encoder == "image" else probe["text_weight"].item()
        chosen = torch.full((3,), voted) if encoder == "image" else voted
        compared = 0
        with choosing(prefixes, chosen, weight), torch.no_grad():
            for i, block in enumerate(blocks):
                recorded = golden.below(f"attention.{encoder}.{i}.")
                if recorded:
                    x = recorded["input"]
                    assert_near(block.attn(x, x, x, attn_mask=mask)[0], recorded["output"], 1e-4)
                    compared += 1
        assert compared


def learned(tasks, *, rate=3e-2, steps=12, **options):
    torch.manual_seed(0)
    method = DIKI(**{"divisor": 16.0, **options})
    method.prepare(make_clip())
    for task, data in tasks:
        run_task(method, task, data, steps=steps, rate=rate)
    return method


def test_starts_and_stays_zero_shot_where_nothing_is_recognised():
    """The claim: what looks like no task is answered by CLIP itself."""
    (task, data), (other, unlike) = make_tasks(3, 4)
    method = learned([(task, data)])
    features = method._frozen_features(unlike.images)
    assert recognised(method.gaussians.log_density(features), 16.0)[1].max() < 1e-3
    clip = make_clip()
    with torch.no_grad():
        expected = clip.logits(unlike.images, clip.class_features(other.classes))
    assert_near(scores(method, unlike.images, other.classes), expected, 0.02)
    own = scores(method, data.images, task.classes)
    with torch.no_grad():
        before = clip.logits(data.images, clip.class_features(task.classes))
    assert F.cross_entropy(own, data.labels) < F.cross_entropy(before, data.labels) - 0.03


def test_a_task_cannot_disturb_an_earlier_one():
    """New prefixes stand beside the old ones, and images find theirs."""
    (first, data), (second, other) = make_tasks(3, 4)
    method = learned([(first, data)])
    before = scores(method, data.images, first.classes)
    run_task(method, second, other, steps=12, rate=3e-2)
    assert_near(scores(method, data.images, first.classes), before, 1e-5)


def test_texts_between_two_levels_are_near_exact_ones():
    tasks = make_tasks(3)
    (task, data), steps = tasks[0], {}
    method = learned(tasks)
    images = data.images[:6]
    features = method._frozen_features(images)
    weights = recognised(method.gaussians.log_density(features), method.divisor)[1]
    assert 0 < weights.min() < weights.max() < 1
    with torch.no_grad(), choosing(method.vision, 0, weights):
        seen = method.model.encode_image(images)
    exact = []
    for x, weight in zip(seen, weights.tolist(), strict=True):
        with torch.no_grad():
            texts = method._texts(task.classes, 0, weight)
            exact.append(method.model.similarities(x[None], texts))
    for levels in (1, 4, 16):
        method.text_levels = levels
        steps[levels] = (scores(method, images, task.classes) - torch.cat(exact)).abs().max()
    assert steps[16] < steps[4] < steps[1]
    assert steps[4] < 0.05


def test_encodes_texts_once_per_task_and_level_that_occur(monkeypatch):
    tasks = make_tasks(3, 4)
    method = learned(tasks)
    images = torch.cat([data.images for _, data in tasks])
    candidates = tasks[0][0].classes + tasks[1][0].classes
    encoded = []
    encode = method.model.encode_text
    monkeypatch.setattr(
        type(method.model), "encode_text", lambda _, t: encoded.append(t) or encode(t)
    )
    for part in images.split(5):
        scores(method, part, candidates)
    assert 0 < len(encoded) <= 2 * method.text_levels + 1


def test_as_released_the_batch_votes():
    tasks = make_tasks(3, 4)
    method = learned(tasks, as_released=True)
    (first, data), (second, other) = tasks
    candidates = first.classes + second.classes
    alone = scores(method, data.images[:2], candidates)
    outvoted = scores(method, torch.cat([data.images[:2], other.images[:3]]), candidates)[:2]
    assert (alone - outvoted).abs().max() > 0.1
    assert method.decides_by_batch
    assert not DIKI().decides_by_batch


def test_only_the_vote_makes_the_test_batch_part_of_the_identity():
    def identity(size, **params):
        overrides = {"evaluation.batch_size": size, **{f"method.{k}": v for k, v in params.items()}}
        settings, _ = resolve(method="diki", benchmark="mini", overrides=overrides)
        return settings.fingerprint()

    assert identity(8) == identity(16)
    assert identity(8, as_released=True) != identity(16, as_released=True)


def test_keeps_promises_as_released():
    def make():
        return DIKI(as_released=True)

    decides_by_the_image(make, torch.device("cpu"))
    resumes_between_tasks(make, torch.device("cpu"))


def test_only_new_prefixes_train():
    method = learned(make_tasks(3))
    task, data = make_tasks(3, 4)[1]
    old = [p.clone() for prefixes in method.vision for p in prefixes.sets[0].parameters()]
    run_steps(method, data, begin(method, task, data), range(3))
    now = [p for prefixes in method.vision for p in prefixes.sets[0].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(old, now, strict=True))
    trained = {n.rpartition(".")[2] for n, p in method.named_parameters() if p.requires_grad}
    assert trained == {"keys", "values"}
    end(method, task, data)


def test_gates_close_blocks_image_by_image():
    """IAP: with all gates closed the prefixes are gone, with all open nothing changes."""
    tasks = make_tasks(3, 4)
    method = learned(tasks, gates=True)
    images = tasks[0][1].images
    frozen = method._frozen_features(images)
    found = {}
    for side in (0, 1):
        for gate in method.gating.sets:
            gate.weight.data.zero_()
            gate.bias.data.copy_(torch.tensor([1.0 - side, float(side)]))
        guessed, weights = recognised(method.gaussians.log_density(frozen), method.divisor)
        with torch.no_grad(), choosing(method.vision, guessed, weights * side):
            expected = method.model.encode_image(images)
        with (
            torch.no_grad(),
            choosing(method.vision, guessed, weights * method.gating(frozen, guessed)),
        ):
            found[side] = method.model.encode_image(images)
        assert_near(found[side], expected, 1e-6)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_gates_learn_and_stay_as_they_were_learned():
    tasks = make_tasks(3, 4)
    method = learned(tasks[:1], gates=True)
    first = {name: p.clone() for name, p in method.gating.named_parameters()}
    assert any(p.any() for name, p in first.items() if name.endswith("bias"))
    run_task(method, *tasks[1], steps=3, rate=3e-2)
    now = dict(method.gating.named_parameters())
    assert all(torch.equal(p, now[name]) for name, p in first.items())
    assert len(method.gating.sets) == 2


def test_keeps_promises_with_gates():
    def make():
        return DIKI(gates=True)

    cpu = torch.device("cpu")
    for promise in (decides_by_the_image, resumes_between_tasks, resumes_within_a_task):
        promise(make, cpu)
