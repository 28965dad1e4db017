"""OSF: peft's released layer, and leading components that training leaves alone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.singular import SingularLinear
from clbench.clip.subspaces.directions import thin_svds
from clbench.methods.osf import OSF, kept_components
from clbench.testing.checks import check_method
from clbench.testing.driving import begin, run_steps, run_task
from tests.golden.golden import read
from tests.golden.subspaces import assert_near

PARTS = {"U_low": "up", "S_low": "values", "V_low": "down"}


def begin_layer(layer, rank):
    """Start a task as `OSF.begin_task` does, with peft's way to give a rank."""
    u, s, vh = thin_svds([layer.base.weight], torch.float64)[0]
    layer.split(u, s, vh, rank if isinstance(rank, int) else kept_components(len(s), rank))


def test_reproduces_the_released_layer():
    golden = read("osf")
    hp = golden.metadata["hp"]
    weights = golden.below("before.")
    width, hidden, out, classes = hp["dims"]
    net = nn.ModuleDict(
        {
            "a": nn.Linear(width, hidden),
            "b": nn.Linear(hidden, out),
            "head": nn.Linear(out, classes),
        }
    )
    net.load_state_dict(weights)
    layers = {name: SingularLinear(net[name]) for name in ("a", "b")}

    def logits(x):
        return net["head"](layers["b"](layers["a"](x).relu()).relu())

    for index, (rank, rate) in enumerate(zip(hp["ranks"], hp["lr"], strict=True)):
        recorded = golden.below(f"task{index}.")
        for name, layer in layers.items():
            begin_layer(layer, rank)
            assert layer.kept_up.shape[1] == recorded[f"rank_high.{name}"].item()
        trained = [p for layer in layers.values() for p in layer.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=hp["wd"])
        signs = {name: signs_of(layer, recorded, name) for name, layer in layers.items()}
        steps = zip(recorded["x"], recorded["labels"], recorded["losses"], strict=True)
        for step, (x, labels, expected) in enumerate(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(x), labels, label_smoothing=hp["ls"])
            loss.backward()
            for name, layer in layers.items():
                layer.confine(layer.up.grad, layer.down.grad)
                assert_step(layer, recorded, f"step{step}", name, signs[name])
            optimizer.step()
            assert_near(loss.detach(), expected, 1e-5)
        for name, layer in layers.items():
            layer.merge()
            assert_near(layer.base.weight.detach(), recorded[f"after.{name}.weight"], 1e-5)
        with torch.no_grad():
            assert_near(logits(recorded["x"][0]), recorded["logits"], 1e-5)


def signs_of(layer, recorded, name):
    """By which the recorded components differ: the decomposition leaves them free."""
    return (layer.up.detach() * recorded[f"step0.param.{name}.U_low"]).sum(dim=0).sign()


def assert_step(layer, recorded, step, name, signs):
    for theirs, ours in PARTS.items():
        if f"{step}.param.{name}.{theirs}" not in recorded:
            return
        part = getattr(layer, ours)
        sign = {"up": signs, "down": signs[:, None], "values": 1}[ours]
        assert_near(part.detach() * sign, recorded[f"{step}.param.{name}.{theirs}"], 1e-4)
        assert_near(part.grad * sign, recorded[f"{step}.grad.{name}.{theirs}"], 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of transformers, which peft imports
def test_trains_as_peft_does():
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[parity]'")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 8))
    ours = [SingularLinear(copy.deepcopy(net[0])), nn.ReLU(), SingularLinear(copy.deepcopy(net[2]))]
    layers = [ours[0], ours[2]]
    mine = nn.Sequential(*ours)
    for task, share in enumerate((0.3, 0.6)):
        config = peft.OSFConfig(effective_rank=share, target_modules=["0", "2"])
        theirs = peft.get_peft_model(net, config)
        for layer in layers:
            begin_layer(layer, share)
        optimizers = [
            torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=0.01)
            for m in (theirs, mine)
        ]
        generator = torch.Generator().manual_seed(task)
        for _ in range(5):
            x = torch.randn(16, 12, generator=generator)
            labels = torch.randint(8, (16,), generator=generator)
            losses = [F.cross_entropy(m(x), labels) for m in (theirs, mine)]
            assert_near(losses[1], losses[0], 1e-5)
            for loss, optimizer in zip(losses, optimizers, strict=True):
                optimizer.zero_grad()
                loss.backward()
            for layer in layers:
                layer.confine(layer.up.grad, layer.down.grad)
            for optimizer in optimizers:
                optimizer.step()
        net = theirs.merge_and_unload()
        for layer, linear in zip(layers, (net[0], net[2]), strict=True):
            layer.merge()
            assert_near(layer.base.weight, linear.weight, 1e-5)


def changed(clip, tiny_task_data, **params):
    """Per weight: its decomposition before a task, how many components stayed, and its change."""
    method = OSF(**params)
    method.prepare(clip)
    run_task(method, *tiny_task_data(0), steps=3)
    before = {name: layer.base.weight.detach().clone() for name, layer in method.layers.items()}
    task, data = tiny_task_data(1)
    driven = begin(method, replace(task, index=1, count=2), data)
    kept = {name: layer.kept_up.shape[1] for name, layer in method.layers.items()}
    run_steps(method, data, driven, range(5))
    method.end_task(task, data)
    for name, layer in method.layers.items():
        u, _, vh = torch.linalg.svd(before[name])
        yield u[:, : kept[name]], vh[: kept[name]], layer.base.weight.detach() - before[name]


def test_leading_components_see_no_change(tiny_clip, tiny_task_data):
    """The claim, for Adam with weight decay: ``U_h^T W`` and ``W V_h`` stay."""
    moved = 0.0
    for u, vh, change in changed(tiny_clip, tiny_task_data):
        moved += change.norm().item()
        assert (u.T @ change).norm() < 1e-4 * change.norm()
        assert (change @ vh.T).norm() < 1e-4 * change.norm()
    assert moved > 0.1


def test_projected_gradients_leak_through_adam(tiny_clip, tiny_task_data):
    """Why they are not the default."""
    leaks = [
        ((u.T @ change).norm() / change.norm()).item()
        for u, _, change in changed(tiny_clip, tiny_task_data, projection="gradient")
    ]
    assert sum(leaks) / len(leaks) > 0.01


def test_more_components_stay_from_task_to_task(tiny_clip, tiny_task_data):
    method = OSF(kept=0.25, last_kept=0.75)
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    counts = []
    for index in range(3):
        begin(method, replace(task, index=index, count=3), data)
        counts.append({len(layer.kept_down) / 64 for layer in method.layers.values()})
        method.end_task(task, data)
    assert counts == [{0.25}, {0.5}, {0.75}]


def test_all_weights_of_all_blocks_and_nothing_else(tiny_clip, tiny_task_data):
    method = OSF()
    method.prepare(tiny_clip)
    assert len(method.layers) == 4 * 6  # q, k, v, out and two of the MLP
    begin(method, *tiny_task_data(0))
    trained = {n.rpartition(".")[0] for n, p in method.model.named_parameters() if p.requires_grad}
    assert trained == set(method.layers)


@pytest.mark.slow
def test_keeps_the_contract_with_projected_gradients():
    check_method(OSF, {"projection": "gradient"})
