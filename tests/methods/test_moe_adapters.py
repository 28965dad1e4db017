"""MoE-Adapters: the released values, idle and frozen experts, and images that find their task."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.experts import NOISE, Experts
from clbench.config import resolve
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts, Task
from clbench.core.training import rate_factor
from clbench.methods.moe_adapters import (
    SCALE,
    AlexNet,
    Autoencoder,
    MoEAdapters,
    choose_tasks,
    train_autoencoder,
)
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, end, run_steps, run_task, scores
from clbench.testing.toys import make_tasks
from tests.golden.golden import FOLDER, Golden, build_clip, read
from tests.golden.subspaces import assert_near

QUICK = {"experts": 5, "bottleneck": 8, "autoencoder_steps": 60, "reference_steps": 20}


def opened(name):
    """A golden file, whose image encoder lies in a file of its own."""
    golden = read(name)
    beside = f"{name}_visual"
    if (FOLDER / f"{beside}.safetensors").is_file():
        golden = Golden(read(beside).tensors | golden.tensors, golden.metadata)
    base = {key: weight.float() for key, weight in golden.below("base.").items()}
    return golden, build_clip(golden.metadata["cfg"], base)


def made(golden, model, **options):
    hp = golden.metadata["hp"]
    method = MoEAdapters(
        experts=hp["experts"],
        chosen=hp["top_k"],
        bottleneck=hp["bottleneck"],
        as_released=True,
        code=2,
        reference_steps=1,
        autoencoder_steps=1,
        **options,
    )
    method.prepare(model)
    assert (hp["scale"], hp["noise_epsilon"]) == (SCALE, NOISE)
    return method.eval()


def tensors_of(method):
    """The trained tensors by the golden files' names."""
    named = {}
    blocks = len(method.layers) // 2
    for i, layer in enumerate(method.layers):
        tower = "visual." if i >= blocks else ""
        block = f"{tower}transformer.resblocks.{i % blocks}"
        for e, expert in enumerate(layer.experts):
            for part in ("down", "up"):
                for kind in ("weight", "bias"):
                    name = f"{block}.adaptmlp_list.{e}.{part}_proj.{kind}"
                    named[name] = getattr(getattr(expert, part), kind)
        for t, router in enumerate(layer.routers):
            named[f"{block}.router_list.{t}"] = router.gate
            named[f"{block}.w_noise_list.{t}"] = router.noise
    return named


def layers_of(method):
    """The blocks' experts by the golden files' names of blocks."""
    blocks = len(method.layers) // 2
    names = [f"{encoder}.{i}" for encoder in ("text", "image") for i in range(blocks)]
    return dict(zip(names, method.layers, strict=True))


def put(method, tensors):
    named = tensors_of(method)
    with torch.no_grad():
        for name, tensor in tensors.items():
            named[name].copy_(tensor)


@torch.no_grad()
def assert_features(method, route, images, tokens, recorded, prefix):
    """The file's features are not normalised, the model's are."""
    with method._sent(route):
        for found, kind in (
            (method.model.encode_image(images), "image"),
            (method.model.encode_text(tokens), "text"),
        ):
            expected = F.normalize(recorded[f"{prefix}{kind}_features"], dim=1)
            assert_near(found, expected, 1e-5)


def test_one_pass_is_the_released_one(monkeypatch):
    golden, model = opened("moe_forward")
    hp, tensors = golden.metadata["hp"], golden.tensors
    images, tokens = tensors["images"].float(), tensors["tokens"]
    method = made(golden, model, dropout=0.0)
    for layer in method.layers:
        while len(layer.routers) < hp["routers"]:
            layer.routers.grow()
    put(method, golden.below("moe."))
    assert_features(method, None, images, tokens, tensors, "zeroshot.")
    seen = {}
    watch(monkeypatch, method, seen)
    for route in range(hp["routers"]):
        recorded = golden.below(f"eval.router{route}.")
        assert_features(method, route, images, tokens, recorded, "")
        assert_choices(method, seen, recorded)
        outputs = [name for name in recorded if name.endswith(".moe_out")]
        for name in outputs:
            block = name.removesuffix(".moe_out")
            assert_near(seen[block]["out"][: len(recorded[name])], recorded[name], 1e-5)
        assert outputs or route
    noisy = golden.below("noisy.")
    for block, layer in layers_of(method).items():
        router = layer.routers[1]
        monkeypatch.setattr(router, "_draw", lambda _, n=noisy[f"{block}.noise"]: n)
    method.train()
    assert_features(method, 1, images, tokens, noisy, "")
    assert_choices(method, seen, noisy)
    for block, layer in layers_of(method).items():
        assert layer.counts.tolist() == noisy[f"{block}.counts"].tolist()


def watch(monkeypatch, method, seen):
    """Note what blocks choose and add."""
    choose, forward = Experts.choose, Experts.forward
    names = {id(layer): name for name, layer in layers_of(method).items()}

    def noting_choose(layer, read_):
        gates, chosen = choose(layer, read_)
        dense = torch.zeros(len(gates), len(layer.experts)).scatter(1, chosen, gates)
        seen[names[id(layer)]] = {"gates": dense}
        return gates, chosen

    def noting_forward(layer, x):
        out = forward(layer, x)
        if out is not None:
            seen[names[id(layer)]]["out"] = out
        return out

    monkeypatch.setattr(Experts, "choose", noting_choose)
    monkeypatch.setattr(Experts, "forward", noting_forward)


def assert_choices(method, seen, recorded):
    for block in layers_of(method):
        expected = recorded[f"{block}.gates"]
        assert ((seen[block]["gates"] > 0) == (expected > 0)).all()
        assert_near(seen[block]["gates"], expected, 1e-5)


def test_an_adapter_drops_hidden_units_as_released(monkeypatch):
    golden, model = opened("moe_forward")
    method = made(golden, model, dropout=0.1)
    put(method, {k: v for k, v in golden.below("moe.").items() if "adaptmlp" in k})
    recorded = golden.below("dropout.")
    expert = layers_of(method)["image.0"].experts[1]
    monkeypatch.setattr(expert.dropout, "forward", lambda x: x * recorded["mask"] / 0.9)
    with torch.no_grad():
        assert_near(expert(recorded["input"]), recorded["output"], 1e-6)
        gate = torch.tensor([0.3, 1.0, 0.0])
        gated = gate[:, None, None] * recorded["output"]
        assert_near(expert(recorded["input"], gate), gated, 1e-6)


def test_reproduces_the_released_training(monkeypatch):
    golden, model = opened("moe_train")
    hp = golden.metadata["hp"]
    method = made(
        golden,
        model,
        dropout=0.0,
        freeze=hp["freeze_per_task"],
        label_smoothing=hp["label_smoothing"],
    )
    put(method, golden.below("init."))
    before = {}
    for index in range(len(hp["classes"])):
        recorded = golden.below(f"task{index}.")
        images = recorded["images"].float()
        data = Pool(images, recorded["labels"], recorded["tokens"])
        task = Task("golden", ClassTexts(("any",), (("any",),)), index, len(hp["classes"]))
        method.train()
        method.begin_task(task, data)
        train(monkeypatch, method, hp, index, recorded)
        counts = {block: layer.counts.tolist() for block, layer in layers_of(method).items()}
        method.eval()
        method.end_task(task, data)
        for block, layer in layers_of(method).items():
            assert counts[block] == recorded[f"counts.{block}"].tolist()
            assert layer.frozen.tolist() == recorded[f"frozen.{block}"].bool().tolist()
        named = tensors_of(method)
        after = golden.below(f"task{index}.after.")
        assert len(after) >= 2 * len(method.layers)
        for name, tensor in after.items():
            assert_near(named[name].detach(), tensor, 1e-4)
        for name, tensor in before.items():  # frozen experts and other routers
            if not named[name].requires_grad:
                assert torch.equal(named[name], tensor), name
        before = {name: tensor.detach().clone() for name, tensor in named.items()}
        for route in range(index + 1):
            prefix = f"eval.router{route}."
            assert_features(method, route, images, recorded["tokens"], recorded, prefix)


class Pool(SimpleNamespace):
    """A golden task's images, which stand for reference images, too."""

    source, nbytes = "golden", 0

    def __init__(self, images, labels, tokens):
        super().__init__(pool=images, labels=labels, tokens=tokens)

    def batches(self, *_, **__):
        yield Batch(self.pool, self.labels, self.tokens)

    def reference_stream(self, *_):
        return self

    def images(self, *_):
        return self.pool


def train(monkeypatch, method, hp, index, recorded):
    """The released loop, whose last step has rate zero."""
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=hp["wd"], betas=tuple(hp["betas"]))
    images, labels = recorded["images"].float(), recorded["labels"]
    for step, rows in enumerate(recorded["index"]):
        for block, layer in layers_of(method).items():
            encoder, number = block.split(".")
            noise = recorded[f"noise.{encoder}"][step, int(number)]
            monkeypatch.setattr(layer.routers[index], "_draw", lambda _, n=noise: n)
        rate = rate_factor(step, hp["warmup"], hp["iterations"])
        optimizer.param_groups[0]["lr"] = hp["lr"][index] * rate
        optimizer.zero_grad()
        loss = method.loss(Batch(images[rows], labels[rows], recorded["tokens"]))["classification"]
        loss.backward()
        optimizer.step()
        assert_near(loss.detach(), recorded["losses"][step], 1e-4)


def autoencoder_of(tensors):
    """An autoencoder with a golden file's weights."""
    weight = tensors["encoder.0.weight"]
    autoencoder = Autoencoder(weight.shape[1], len(weight))
    state = {name.replace(".0.", "."): tensor for name, tensor in tensors.items()}
    autoencoder.load_state_dict({**state, "limit": torch.tensor(0.0)})
    return autoencoder


def test_tasks_are_chosen_as_released():
    golden = read("moe_ddas")
    tensors = golden.tensors
    z = tensors["features"].sigmoid()
    names = {name.split(".")[0] for name in golden.below("ae.")}
    autoencoders = [autoencoder_of(golden.below(f"ae.{i}.")) for i in range(len(names))]
    errors = torch.stack([autoencoder.errors(z) for autoencoder in autoencoders])
    assert_near(errors, tensors["error.image"], 1e-6)
    parts = errors.split(tensors["batch_sizes"].tolist(), dim=1)
    assert_near(torch.stack([e.mean(1) for e in parts], 1), tensors["error.batch"], 1e-6)
    for row, threshold in enumerate(tensors["thresholds"].tolist()):
        limits = torch.full((len(errors),), threshold)
        by_image = choose_tasks(errors, limits, together=False)
        assert by_image.tolist() == tensors["task_id.image"][row].tolist()
        together = [choose_tasks(e, limits, together=True) for e in parts]
        assert all((tasks == tasks[0]).all() for tasks in together)
        assert [int(t[0]) for t in together] == tensors["task_id.batch"][row].tolist()
    assert len(tensors["task_id.image"].unique()) > 2


def test_autoencoders_are_trained_as_released():
    golden = read("moe_ddas")
    hp, recorded = golden.metadata["hp"], golden.below("train.")
    autoencoder = autoencoder_of(golden.below("train.before."))
    batches = [*recorded["features"].sigmoid()]
    losses = train_autoencoder(autoencoder, batches, len(recorded["losses"]), hp["lr"])
    assert_near(torch.tensor(losses), recorded["losses"], 1e-5)
    expected = autoencoder_of(golden.below("train.after."))
    for name, tensor in expected.named_parameters():
        assert_near(autoencoder.get_parameter(name).detach(), tensor.detach(), 1e-5)


def test_idle_experts_get_no_gradient_and_frozen_ones_stay(tiny_clip):
    method = MoEAdapters(**{**QUICK, "experts": 12}, freeze=3)
    method.prepare(tiny_clip)
    (task, data), later = make_tasks(3, 4)
    driven = begin(method, task, data)
    few = next(data.batches(2))
    method.loss(few)["classification"].backward()
    vision = method.layers[-1]
    idle = [e for e, count in enumerate(vision.counts.tolist()) if not count]
    assert len(idle) >= 12 - 2 * 2
    for e, expert in enumerate(vision.experts):
        assert all((p.grad is None) == (e in idle) for p in expert.parameters())
    run_steps(method, data, driven, range(6))
    counts = {i: layer.counts.tolist() for i, layer in each(method)}
    end(method, task, data)
    frozen = {i: set(layer.frozen.nonzero()[:, 0].tolist()) for i, layer in each(method)}
    for i, experts in frozen.items():
        others = [count for e, count in enumerate(counts[i]) if e not in experts]
        assert min(counts[i][e] for e in experts) >= max(others)
    assert all(len(experts) == 3 for experts in frozen.values())
    kept = {name: p.detach().clone() for name, p in method.named_parameters()}
    run_steps(method, later[1], begin(method, *later), range(8))
    chosen_again = 0
    for i, layer in each(method):
        chosen_again += sum(int(layer.counts[e]) for e in frozen[i])
        for e, expert in enumerate(layer.experts):
            assert all(p.requires_grad == (e not in frozen[i]) for p in expert.parameters())
    assert chosen_again
    moved = {n for n, p in method.named_parameters() if n in kept and not torch.equal(p, kept[n])}
    assert moved
    assert not any(".routers.0." in name or "autoencoders" in name for name in moved)


def each(method):
    return list(enumerate(method.layers))


def learned(clip, **options):
    """Two of three tasks learned, and what is needed to ask about them."""
    method = MoEAdapters(**QUICK, **options)
    method.prepare(clip)
    pairs = make_tasks(3, 4, 3)
    for task, data in pairs[:2]:
        run_task(method, task, data, steps=12, rate=5e-3)
    spoil(method, 0)  # toys have no reference images but those of the first task
    return method.eval(), pairs[:2]


def spoil(method, *numbers):
    """Let autoencoders err."""
    for number in numbers if len(method.autoencoders) else ():
        method.autoencoders[number].decoder.bias.data.fill_(50.0)


def test_texts_have_the_features_of_the_router_and_are_encoded_once(tiny_clip, monkeypatch):
    method, pairs = learned(tiny_clip)
    classes = pairs[0][0].classes + pairs[1][0].classes
    passes = []
    encode = type(tiny_clip).encode_text
    monkeypatch.setattr(
        type(tiny_clip), "encode_text", lambda m, t: (passes.append(len(t)), encode(m, t))[1]
    )
    found = {}
    with torch.no_grad():
        for route in (None, 0, 1, None, 1, 0):
            with method._sent(route):
                features = tiny_clip.class_features(classes)
            assert torch.equal(found.setdefault(route, features), features)
    assert len(passes) == 3
    for one, other in ((None, 0), (None, 1), (0, 1)):
        assert (found[one] - found[other]).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("as_released", [False, True])
def test_texts_choose_experts_by_what_they_say(tiny_clip, monkeypatch, as_released):
    """The first token, which the release reads, is the same for all texts."""
    method, _ = learned(tiny_clip, as_released=as_released)
    with torch.no_grad():
        for layer in method.layers:  # routers that tell inputs apart
            layer.routers[0].gate.normal_(generator=torch.Generator().manual_seed(0))
    texts = tiny_clip.tokenize(["a red bird", "the seven ships", "one", "of night and day"])
    seen = {}
    watch(monkeypatch, method, seen)
    with method._sent(0), torch.no_grad():
        tiny_clip.encode_text(texts)
    sets = [len((block["gates"] > 0).unique(dim=0)) for block in seen.values()]
    assert (max(sets) > 1) is not as_released


def test_every_image_has_the_router_of_its_own_task(tiny_clip):
    method, pairs = learned(tiny_clip)
    candidates = pairs[0][0].classes + pairs[1][0].classes
    images = torch.cat([data.images for _, data in pairs])
    tasks = method.tasks_of(images)
    right = torch.arange(2).repeat_interleave(len(images) // 2)
    assert (tasks == right).float().mean() > 0.7
    mixed = scores(method, images, candidates)
    for i in (0, 5, 25, 40):
        assert method.tasks_of(images[i : i + 1]).tolist() == [int(tasks[i])]
        assert_near(scores(method, images[i : i + 1], candidates)[0], mixed[i], 1e-4)
        with method._sent(int(tasks[i]) if tasks[i] >= 0 else None), torch.no_grad():
            features = tiny_clip.class_features(candidates)
            assert_near(tiny_clip.logits(images[i : i + 1], features)[0], mixed[i], 1e-4)
    assert not method.decides_by_batch


def test_images_of_no_task_are_left_to_zero_shot_clip(tiny_clip):
    ((task, data),) = make_tasks(3)
    images = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    images = images.to(torch.uint8)
    fresh = MoEAdapters(**QUICK)
    fresh.prepare(tiny_clip)
    zero_shot = scores(fresh.eval(), images, task.classes)
    run_task(fresh, task, data, steps=10, rate=5e-3)
    fresh.threshold = 1e-9
    assert fresh.tasks_of(images).tolist() == [-1] * 6
    assert_near(scores(fresh, images, task.classes), zero_shot, 1e-5)
    fresh.threshold = 1e9
    spoil(fresh, 0)
    assert (fresh.tasks_of(images) == 0).all()
    assert (scores(fresh, images, task.classes) - zero_shot).abs().max() > 1e-3


def test_as_released_a_batch_has_one_task_and_later_autoencoders_take_part(tiny_clip):
    method, pairs = learned(tiny_clip, as_released=True, threshold=10.0)
    assert len(method.autoencoders) == 4
    images = torch.cat([data.images for _, data in pairs])
    assert len(method.tasks_of(images).unique()) == 1
    assert method.decides_by_batch
    spoil(method, 1, 2)
    assert (method.tasks_of(images) == 2).all()  # a task that was not learned
    assert scores(method, images, pairs[0][0].classes).isfinite().all()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, False),
        ({"method.as_released": True}, True),
        ({"method.as_released": True, "method.routing": "shared"}, False),
    ],
)
def test_the_settings_say_whether_it_decides_by_batch(params, expected):
    settings, _ = resolve(method="moe_adapters", benchmark="mini", overrides=params)
    assert settings.method.decides_by_batch is expected


def test_one_router_serves_all_tasks(tiny_clip):
    method, pairs = learned(tiny_clip, routing="shared", freeze=0)
    assert [len(layer.routers) for layer in method.layers] == [1] * len(method.layers)
    assert not len(method.autoencoders)
    candidates = pairs[0][0].classes
    images = pairs[0][1].images[:4]
    with method._sent(0), torch.no_grad():
        expected = tiny_clip.logits(images, tiny_clip.class_features(candidates))
    assert_near(scores(method, images, candidates), expected, 1e-5)


def test_more_experts_cannot_be_chosen_than_there_are():
    with pytest.raises(ClbenchError, match=r"is more than method\.experts=2"):
        MoEAdapters(experts=2, chosen=3)


def test_alexnet_needs_its_weights(tmp_path, monkeypatch, tiny_clip):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    method = MoEAdapters(**QUICK, features="alexnet")
    with pytest.raises(ClbenchError, match=r"put https://download\.pytorch\.org/models/alexnet"):
        method.prepare(tiny_clip)
    path = tmp_path / "checkpoints/alexnet-owt-7be5be79.pth"
    path.parent.mkdir()
    sizes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    state = {}
    for layer, (outputs, inputs, side) in sizes.items():
        state[f"features.{layer}.weight"] = torch.randn(outputs, inputs, side, side) / 30
        state[f"features.{layer}.bias"] = torch.randn(outputs)
    torch.save(state, path)
    features = AlexNet().features(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 256 * 3 * 3)
    assert (features < 0).any()  # before the last ReLU
    method = MoEAdapters(**QUICK, features="alexnet")
    method.prepare(tiny_clip)
    ((task, data),) = make_tasks(3)
    run_task(method, task, data, steps=2)
    images = data.images
    assert method.tasks_of(images).shape == (len(images),)
    assert not any("alexnet" in name for name in method.state_dict())


@pytest.mark.slow
def test_keeps_the_contract_as_released():
    check_method(MoEAdapters, {**QUICK, "bottleneck": 64, "as_released": True})
