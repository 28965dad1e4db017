"""LwF-VR: losses and weights as released, and what its sentences are."""

import torch

from clbench.methods.lwf_vr import LwFVR
from clbench.testing.driving import begin, run_steps, run_task
from clbench.testing.toys import make_clip
from tests.golden import distilling


def test_losses_and_weights_are_the_released_ones(monkeypatch):
    golden, model = distilling.opened("lwf_vr")
    hp = golden.metadata["hp"]
    method = LwFVR(temperature=hp["T"], label_smoothing=hp["label_smoothing"])
    method.prepare(model)
    for task in range(2):
        own = golden.below(f"task{task}.")
        monkeypatch.setattr(method, "random_sentences", own["ref_tokens"].long)
        data = distilling.Recorded(own["pool"], own["ref_batches"], 0)
        terms = distilling.train(method, golden, task, data)
        distilling.assert_as_golden(model, golden, task, terms)
        assert len(golden.below(f"task{task}.after.")) == 5


def test_sentences_are_drawn_from_the_whole_vocabulary_and_anew_for_each_task(tiny_clip):
    method = LwFVR(sentences=400, words=5)
    method.prepare(tiny_clip)
    first, second = method.random_sentences(), method.random_sentences()
    tokenizer = tiny_clip.tokenizer
    assert first.shape == (400, 7)
    assert (first[:, 0] == tokenizer.sot_token_id).all()
    assert (first[:, -1] == tokenizer.eot_token_id).all()
    words = first[:, 1:-1]
    assert 0 <= words.min() <= 10
    assert tokenizer.vocab_size - 10 <= words.max() < tokenizer.vocab_size
    assert len(words.unique()) > 0.9 * tokenizer.vocab_size
    assert not torch.equal(first, second)


def test_a_sentence_fits_the_context(tiny_clip):
    method = LwFVR(sentences=3, words=99)
    method.prepare(tiny_clip)
    assert method.random_sentences().shape == (3, tiny_clip.context_length)


def test_distillation_holds_what_the_teacher_said_of_sentences(tiny_task_data):
    moved = {}
    for weight in (0.0, 20.0):
        method = LwFVR(sentences=50, distillation=weight)
        method.prepare(make_clip())
        run_task(method, *tiny_task_data(0), steps=5)
        task, data = tiny_task_data(1)
        driven = begin(method, task, data)
        texts, before = method.teacher.texts.clone(), method.teacher.logits(data.images)
        run_steps(method, data, driven, range(8))
        after = method.model.logits(data.images, texts).detach()
        moved[weight] = (after.log_softmax(1) - before.log_softmax(1)).abs().mean()
    assert moved[20.0] < 0.5 * moved[0.0]
