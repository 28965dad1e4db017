"""iCaRL: herding and memory sizes, right and as released; losses and weights as released."""

import pytest
import torch

from clbench.core.data import Batch
from clbench.methods.icarl import Exemplars, ICaRL, herd, positions_left
from clbench.testing.driving import begin, end, first_batch, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden import distilling
from tests.golden.golden import read


class Pool:
    """The images of a golden task in the order of the data set."""

    def __init__(self, images):
        self.images = images.float()

    def __len__(self):
        return len(self.images)

    def batches(self, batch_size):
        nothing = torch.zeros(0, dtype=torch.int64)
        return (Batch(part, nothing, nothing) for part in self.images.split(batch_size))


def kept_rows(method, pools):
    """Which image of which task every image in the memory is, ``(M, 2)``."""
    counts = method.memory.counts.tolist()
    owners = [task for task, count in enumerate(counts) for _ in range(count)]
    return torch.tensor(
        [
            (task, next(i for i, other in enumerate(pools[task]) if torch.equal(image, other)))
            for task, image in zip(owners, method.memory.images, strict=True)
        ]
    )


def test_losses_weights_and_memory_are_the_released_ones():
    golden, model = distilling.opened("icarl")
    hp = golden.metadata["hp"]
    method = ICaRL(
        capacity=hp["memory_size"],
        temperature=hp["T"],
        label_smoothing=hp["label_smoothing"],
        reference_batch=hp["batch_size"],
        as_released=True,
    )
    method.prepare(model)
    pools = []
    for task in range(3):
        own = golden.below(f"task{task}.")
        distilling.give_tokens(method.initial, own["tokens"])
        pools.append(own["pool"].float())
        terms = distilling.train(method, golden, task, Pool(own["pool"]))
        distilling.assert_as_golden(model, golden, task, terms)
        assert method.memory.counts.tolist() == own["memory_sizes"].tolist()
        assert torch.equal(kept_rows(method, pools), own["memory_after"])
    assert len(golden.below("task2.after.")) == 5


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_herding_is_that_of_the_equations_and_positions_are_the_released_ones(case):
    golden = read("icarl_herding")
    own = golden.below(f"{case}.")
    features = torch.nn.functional.normalize(own["features"], dim=1)
    rows = herd(features, golden.metadata["hp"][case]["selected"])
    assert rows.tolist() == own["greedy_images"].tolist()
    assert positions_left(rows).tolist() == own["positions"].tolist()


@pytest.mark.parametrize("order", ["order1", "order2"])
def test_memory_sizes_of_mtil_are_the_released_ones(order):
    golden = read("icarl_memory")
    settings, own = golden.metadata["hp"][order], golden.below(f"{order}.")
    released = sizes(own["train_sizes"].tolist(), settings["memory_size"], as_released=True)
    assert released == [[n for n in row if n] for row in own["memory_sizes"].tolist()]
    assert max(map(sum, released)) > settings["memory_size"]
    right = sizes(own["train_sizes"].tolist(), settings["memory_size"], as_released=False)
    assert max(map(sum, right)) <= settings["memory_size"]


def sizes(train_sizes, capacity, *, as_released):
    """What the memory holds after every task, choosing the first images instead of good ones."""
    method = ICaRL(capacity=capacity, as_released=as_released)
    method.memory = Exemplars(shuffled=False)
    method._choose = lambda data, room: torch.arange(min(len(data), room))
    found = []
    for size in train_sizes:
        method.end_task(None, Pool(torch.zeros(size, 3, 1, 1)))
        found.append(method.memory.counts.tolist())
    return found


def test_the_memory_never_outgrows_its_capacity_and_shares_are_equal(tiny_clip, tiny_task_data):
    method = ICaRL(capacity=11, reference_batch=4)
    method.prepare(tiny_clip)
    counts = []
    for index in range(3):
        run_task(method, *tiny_task_data(index), steps=1)
        counts.append(method.memory.counts.tolist())
    assert counts == [[11], [5, 5], [3, 3, 3]]
    assert method.memory.images.dtype == torch.uint8
    teacher = sum(p.nbytes for p in tiny_clip.parameters())
    assert method.footprint().stored == teacher + 9 * 3 * 32 * 32


def test_what_is_kept_longest_is_what_was_chosen_first(tiny_clip, tiny_task_data):
    method = ICaRL(capacity=8)
    method.prepare(tiny_clip)
    task, data = tiny_task_data(0)
    run_task(method, task, data, steps=1)
    with torch.no_grad():
        rows = herd(method.model.encode_image(data.images), 8)
    assert torch.equal(method.memory.images, data.images[rows])
    run_task(method, *tiny_task_data(1), steps=1)
    assert torch.equal(method.memory.images[:4], data.images[rows[:4]])


def test_herded_rows_stand_for_all():
    """Their mean is closer to the mean of all than that of the first rows is."""
    features = torch.nn.functional.normalize(torch.randn(200, 16), dim=1)
    mean = features.mean(dim=0)
    herded = (mean - features[herd(features, 20)].mean(dim=0)).norm()
    assert herded < 0.2 * (mean - features[:20].mean(dim=0)).norm()


@pytest.mark.parametrize("as_released", [False, True])
def test_a_pass_shows_every_kept_image_once(as_released):
    memory = Exemplars(shuffled=not as_released)
    memory.add(torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 1, 1))
    generator = torch.Generator().manual_seed(0)
    passes = [
        [n for _ in range(3) for n in memory.take(3, generator)[:, 0, 0, 0].tolist()]
        for _ in range(3)
    ]
    assert all(sorted(numbers) == list(range(7)) for numbers in passes)
    assert (passes == [list(range(7))] * 3) is as_released


@pytest.mark.parametrize("teacher", ["initial", "previous"])
def test_distillation_holds_what_the_teacher_sees_in_kept_images(teacher, tiny_task_data):
    moved = {}
    for weight in (0.0, 20.0):
        method = ICaRL(capacity=12, reference_batch=12, teacher=teacher, distillation=weight)
        method.prepare(make_clip())
        run_task(method, *tiny_task_data(0), steps=5)
        task, data = tiny_task_data(1)
        driven = begin(method, task, data)
        images, texts = method.memory.images.clone(), method.judge.texts.clone()
        before = method.judge.logits(images)
        run_steps(method, data, driven, range(8))
        after = method.model.logits(images, texts).detach()
        moved[weight] = (after.log_softmax(1) - before.log_softmax(1)).abs().mean()
    assert moved[20.0] < 0.7 * moved[0.0]


def test_a_previous_teacher_as_released_distils_nothing(tiny_clip, tiny_task_data):
    method = ICaRL(capacity=12, teacher="previous", as_released=True)
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=2)
    task, data = tiny_task_data(1)
    run_steps(method, data, begin(method, task, data), range(2))
    tiny_clip.zero_grad()
    method.loss(first_batch(data))["distillation"].backward()
    assert tiny_clip.network.visual.proj.grad.norm() < 1e-4
    end(method, task, data)
