"""Which way `parallel: auto` takes, by what a whole copy needs and what is free."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raypipe.spec.train import TrainSpec
from raypipe.testing.fakes import MemoryStore
from raypipe.train import checkpoints, parallel_choice, state_memory
from raypipe.train.checkpoints import Saver, TrainState
from raypipe.train.rows import World
from raypipe.train.state_memory import StateBytes, free_bytes, state_bytes

TWO = World(rank=0, size=2, local_size=2)
NUM = 10 * 5 + 5
"""Numbers that are trained, of 4 bytes each; as many are frozen."""


def network() -> nn.Module:
    module = nn.ModuleList([nn.Linear(10, 5), nn.Linear(10, 5)])
    module[1].requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({"optimizer": {"kind": "sgd", "lr": 0.1}}, StateBytes(8 * NUM, 8 * NUM, 0, 0, 0, 0, 4 * NUM)),
        (
            {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}},
            StateBytes(8 * NUM, 8 * NUM, 4 * NUM, 0, 0, 0, 6 * NUM),
        ),
        ({}, StateBytes(8 * NUM, 8 * NUM, 8 * NUM, 0, 0, 0, 8 * NUM)),
        (
            {"precision": "bfloat16", "ema_decay": 0.9, "early_stopping": {}},
            StateBytes(8 * NUM, 8 * NUM, 8 * NUM, 4 * NUM, 4 * NUM, 8 * NUM, 14 * NUM),
        ),
    ],
)
def test_state_bytes_count_what_a_rank_holds_of_a_copy(fields: dict[str, Any], need: StateBytes) -> None:
    assert state_bytes(network(), TrainSpec.model_validate(fields), TWO) == need


@pytest.mark.parametrize("is_enough", [True, False])
def test_auto_shards_where_a_copy_takes_more_than_is_free_and_tells_the_numbers(
    is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, spec = network(), TrainSpec()
    need = state_bytes(module, spec, TWO)
    least = sum(need) * 10 // 8 + (0 if is_enough else -2)
    monkeypatch.setattr(state_memory, "available_bytes", lambda: 2 * (least - need.weights))
    monkeypatch.setattr(parallel_choice, "gathered", lambda value, world: [10**12, value])
    reason = parallel_choice.reason_to_shard(module, spec, TWO)
    if is_enough:
        assert reason is None
    else:
        assert reason is not None and (reason["state_bytes"], reason["free_bytes"]) == (sum(need), least)
        assert reason["text"] == (
            "train.parallel: auto takes sharded, each of 2 workers a part: a whole copy takes 1.76 kB a worker "
            "(weights 440 B, gradients 440 B, optimizer 440 B, checkpoint 440 B), which is more than 80% of the 2.2 kB "
            "that there are for one"
        )


def test_free_bytes_are_no_more_than_the_file_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_memory, "available_bytes", lambda: 10**12)
    spec = TrainSpec.model_validate({"resources": {"memory_bytes": 5000}})
    assert free_bytes(state_bytes(network(), spec, TWO), spec, TWO) == 5000


def test_way_that_a_checkpoint_was_held_in_is_kept_with_it() -> None:
    store = MemoryStore()
    assert checkpoints.parallel_of_newest(store, "r1") is None
    for step, way in ((2, "ddp"), (4, "sharded")):
        saver = Saver(store, "r1", TrainSpec(), parallel=way)
        saver.save(TrainState("f", step=step), lambda: checkpoints.whole({"a": torch.ones(2)}), wait=True)
        saver.close()
        assert checkpoints.parallel_of_newest(store, "r1") == way
