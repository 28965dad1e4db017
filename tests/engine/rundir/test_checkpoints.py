"""Checkpoints are what was written, or are known not to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.engine.rundir import checkpoints
from clbench.engine.rundir.checkpoints import (
    Checkpoint,
    CheckpointStore,
    DamagedCheckpointError,
    Position,
)
from clbench.engine.rundir.state_tree import pack, unpack


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def checkpoint(learned: int, step: int = 0, **state: Any) -> Checkpoint:
    return Checkpoint(
        Position(learned, step), {"w": torch.arange(5.0) + step} | state, {"steps": step}
    )


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_state_of_any_kind_survives(store: CheckpointStore) -> None:
    shared = torch.arange(3.0)
    state = {
        "a": shared,
        "b": shared,
        "c": shared,
        "view": shared[1:],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "nan": torch.tensor(float("nan")),
        "extra": {"x": torch.ones(2, dtype=torch.int64), "n": 3, "s": "tensor:a", "p": "plain:"},
        "a/b": torch.zeros(1),
        "list": [1, 2.5, None, [True]],
        "empty": {},
        "milestones": {2: 1, 5: {True: None}},
        "items": {"items:": 1},
    }
    training = {"optimizer": {"state": {"0": {"step": torch.tensor(7.0)}}}}
    store.save(Checkpoint(Position(1, 7), state, {"seconds": {"training": 0.1}}, training))
    loaded = store.load(Position(1, 7))
    assert loaded.method.keys() == state.keys()
    for key in ("a", "b", "c", "view", "half", "flags", "a/b"):
        assert torch.equal(loaded.method[key], state[key]), key
    assert loaded.method["half"].dtype == torch.bfloat16
    assert loaded.method["nan"].isnan()
    assert torch.equal(loaded.method["extra"]["x"], state["extra"]["x"])
    assert {k: v for k, v in loaded.method["extra"].items() if k != "x"} == {
        "n": 3,
        "s": "tensor:a",
        "p": "plain:",
    }
    assert (loaded.method["list"], loaded.method["empty"]) == ([1, 2.5, None, [True]], {})
    assert loaded.method["milestones"] == {2: 1, 5: {True: None}}
    assert loaded.method["items"] == {"items:": 1}
    assert loaded.counters == {"seconds": {"training": 0.1}}
    assert loaded.training is not None
    assert loaded.training["optimizer"]["state"]["0"]["step"] == 7


def test_keys_that_look_like_paths_do_not_collide() -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)}
    tensors, skeleton = pack(tree)
    assert len(tensors) == 2
    restored = unpack(tensors, json.loads(json.dumps(skeleton)))
    assert restored["a"]["b"].item() == 0
    assert restored["a/b"].item() == 1


def test_a_part_of_a_tensor_is_kept_without_the_rest() -> None:
    whole = torch.arange(6.0)
    tensors, _ = pack({"part": whole[2:4], "whole": whole})
    assert tensors["part"].tolist() == [2, 3]
    assert tensors["part"].untyped_storage().nbytes() == 8
    assert tensors["whole"].tolist() == whole.tolist()


@pytest.mark.parametrize("value", [object(), {1: object()}, {"x": {3, 4}}])
def test_state_that_is_no_data_is_refused_by_name(store: CheckpointStore, value: object) -> None:
    with pytest.raises(ClbenchError, match="cannot keep method/thing"):
        store.save(checkpoint(1, thing=value))


def test_positions_are_ordered_and_old_checkpoints_dropped(store: CheckpointStore) -> None:
    for learned, step in ((1, 0), (2, 0), (2, 50), (2, 100), (2, 150)):
        store.save(checkpoint(learned, step))
    assert store.positions() == [Position(2, 150), Position(2, 100), Position(2)]
    store.save(checkpoint(3))
    assert store.positions() == [Position(3), Position(2, 150), Position(2)]
    store.save(checkpoint(4))
    assert store.positions() == [Position(4), Position(3)]
    assert names(store) == [
        "task-003.json",
        "task-003.safetensors",
        "task-004.json",
        "task-004.safetensors",
    ]
    store.keep_only(Position(4))
    assert store.positions() == [Position(4)]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_bit_and_every_cut_is_noticed(store: CheckpointStore, suffix: str) -> None:
    store.save(checkpoint(1, 3))
    path = store.folder / f"task-001-step-000003{suffix}"
    good = path.read_bytes()
    for offset in range(0, len(good), 3):
        path.write_bytes(
            good[:offset] + bytes([good[offset] ^ 1 << offset % 8]) + good[offset + 1 :]
        )
        with pytest.raises(DamagedCheckpointError):
            store.load(Position(1, 3))
        path.write_bytes(good[:offset])
        with pytest.raises(DamagedCheckpointError):
            store.load(Position(1, 3))
    path.write_bytes(good)
    assert store.load(Position(1, 3)).counters == {"steps": 3}


def test_a_checkpoint_under_another_name_is_not_taken_for_that(store: CheckpointStore) -> None:
    store.save(checkpoint(1))
    for path in list(store.folder.iterdir()):
        path.rename(path.with_name(path.name.replace("001", "002")))
    with pytest.raises(DamagedCheckpointError, match="not what was written"):
        store.load(Position(2))


def test_tensors_without_their_json_are_no_checkpoint(store: CheckpointStore) -> None:
    store.save(checkpoint(1))
    (store.folder / "task-001.json").unlink()
    assert store.positions() == []
    store.save(checkpoint(2))
    assert names(store) == ["task-002.json", "task-002.safetensors"]


def test_a_disk_that_gives_back_something_else_costs_no_older_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(checkpoint(1))
    before = names(store)
    write = checkpoints.save_file

    def lie(tensors: dict[str, torch.Tensor], path: Path) -> None:
        write({name: tensor + 1 for name, tensor in tensors.items()}, path)

    monkeypatch.setattr(checkpoints, "save_file", lie)
    with pytest.raises(ClbenchError, match="the disk gives back another method/w"):
        store.save(checkpoint(2))
    assert names(store) == before
    assert torch.equal(store.load(Position(1)).method["w"], torch.arange(5.0))


def test_saving_at_the_same_place_again_replaces(store: CheckpointStore) -> None:
    store.save(checkpoint(1, w=torch.zeros(2)))
    store.save(checkpoint(1, w=torch.ones(3)))
    assert torch.equal(store.load(Position(1)).method["w"], torch.ones(3))


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_links_are_not_followed(store: CheckpointStore, tmp_path: Path, suffix: str) -> None:
    store.save(checkpoint(1))
    path = store.folder / f"task-001{suffix}"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCheckpointError):
        store.load(Position(1))


def test_checkpoints_beyond_a_position_are_forgotten(store: CheckpointStore) -> None:
    for step in (0, 50, 100):
        store.save(checkpoint(2, step))
    store.drop_after(Position(2, 50))
    assert store.positions() == [Position(2, 50), Position(2)]
    store.drop_after(Position(2))
    assert store.positions() == [Position(2)]
    store.drop_after(None)
    assert names(store) == []


def test_half_a_checkpoint_is_dropped_like_a_whole_one(store: CheckpointStore) -> None:
    for learned in (1, 2):
        store.save(checkpoint(learned))
    (store.folder / "task-001.safetensors").unlink()
    store.keep_only(Position(2))
    assert names(store) == ["task-002.json", "task-002.safetensors"]


def test_what_killed_writes_left_is_removed_by_the_next(store: CheckpointStore) -> None:
    store.save(checkpoint(1))
    for name in (".task-002.1234.tmp", ".task-002.json.12.tmp", "task-003.safetensors"):
        (store.folder / name).touch()
    store.save(checkpoint(2))
    assert names(store) == [
        "task-001.json",
        "task-001.safetensors",
        "task-002.json",
        "task-002.safetensors",
    ]


def test_the_newest_sound_checkpoint_is_found_behind_damaged_ones(store: CheckpointStore) -> None:
    assert store.newest_sound() is None
    for learned in (1, 2):
        store.save(checkpoint(learned))
    assert store.newest_sound() == Position(2)
    (store.folder / "task-002.json").write_text("{")
    assert store.newest_sound() == Position(1)
    (store.folder / "task-001.safetensors").unlink()
    assert store.newest_sound() is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(28, "No space left"), "No space left"), (OSError("gone"), "gone")],
)
def test_a_disk_that_takes_nothing_is_one_clear_error(
    error: OSError, reason: str, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(
        ClbenchError, match=r"cannot write the checkpoint .*task-001\.safetensors: "
    ):
        store.save(checkpoint(1))
    assert names(store) == []


def test_steps_within_a_task_keep_its_start(store: CheckpointStore) -> None:
    """The newest two, and where the tasks that they are in began."""
    for place in (Position(1), Position(1, 10), Position(1, 20), Position(1, 30)):
        store.save(checkpoint(place.learned, place.step))
    assert store.positions() == [Position(1, 30), Position(1, 20), Position(1)]
