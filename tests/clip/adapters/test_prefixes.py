"""Prefixes: beside the attention, of each input's own task, and away when none is chosen."""

import pytest
import torch

from clbench.clip.adapters.prefixes import Prefixes, add_prefixes, choosing


def queries_and_attended():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 2, 5, 4, generator=generator)


def grown(tasks=2):
    prefixes, generator = Prefixes(3, 8), torch.Generator().manual_seed(1)
    for _ in range(tasks):
        prefix = prefixes.grow(generator)
        assert prefix.keys.abs().max() <= 1
        assert not prefix.values.any()
        prefix.values.data.normal_(generator=generator)
    return prefixes


@torch.no_grad()
def test_adds_an_attention_of_its_own():
    queries, attended = queries_and_attended()
    prefixes = grown()
    prefix = prefixes.sets[1]
    with choosing([prefixes], 1, 0.5):
        found = prefixes(queries, attended)
    for head in range(2):
        columns = slice(4 * head, 4 * head + 4)
        shares = (queries[:, head] @ prefix.keys[:, columns].T / 4**0.5).softmax(dim=-1)
        expected = attended[:, head] + 0.5 * shares @ prefix.values[:, columns]
        torch.testing.assert_close(found[:, head], expected)
    assert torch.equal(prefixes(queries, attended), attended)


@torch.no_grad()
def test_inputs_have_tasks_and_weights_of_their_own():
    queries, attended = queries_and_attended()
    prefixes = grown()
    tasks, weights = torch.tensor([1, 0, 1]), torch.tensor([0.0, 0.3, 1.0])
    with choosing([prefixes], tasks, weights):
        found = prefixes(queries, attended)
    assert torch.equal(found[0], attended[0])
    for i in (1, 2):
        with choosing([prefixes], int(tasks[i]), weights[i].item()):
            alone = prefixes(queries[i : i + 1], attended[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], alone)


@torch.no_grad()
def test_texts_are_encoded_anew_for_another_task_or_weight(tiny_clip, tiny_task_data):
    added = add_prefixes(tiny_clip.blocks("text"), 3)
    classes = tiny_task_data(0)[0].classes
    plain = tiny_clip.class_features(classes)
    for prefixes in added:
        prefixes.grow(torch.Generator().manual_seed(0)).values.data.normal_()
    assert torch.equal(tiny_clip.class_features(classes), plain)
    seen = []
    for weight in (1.0, 0.5):
        with choosing(added, 0, weight):
            seen.append(tiny_clip.class_features(classes))
    assert not torch.allclose(seen[0], seen[1])
    assert torch.equal(tiny_clip.class_features(classes), plain)


def test_a_model_with_prefixes_is_not_exported(tiny_clip):
    add_prefixes(tiny_clip.blocks("vision")[:1], 3)[0].grow(torch.Generator())
    with pytest.raises(ValueError, match="unmerged adapters"):
        tiny_clip.export_state_dict()
