from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from raypipe.errors import CheckpointError
from raypipe.spec.train import AdamSpec, AdamWSpec, Optimizer, SgdSpec
from raypipe.storage import layout
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import MANIFEST, publish
from raypipe.testing.fakes import MemoryStore
from raypipe.train import checkpoint
from raypipe.train.checkpoint import TrainState
from raypipe.train.optim import build_optimizer

TENSORS = {"model/weight": torch.tensor([[0.1, -0.0], [float("inf"), 1e-40]]), "model/steps": torch.tensor(7)}


def _save(store, step: int, *, num_to_keep: int = 10, fingerprint: str = "f") -> None:
    state = TrainState(fingerprint=fingerprint, epoch=2, epoch_step=1, step=step, loss_sum=0.1 + 0.2, rows=5)
    checkpoint.save(store, "r1", state, TENSORS, num_to_keep=num_to_keep)


def test_checkpoint_saved_and_read_is_the_same_to_the_bit() -> None:
    store = MemoryStore()
    _save(store, 12)

    found, notes = checkpoint.newest(store, "r1", "f")

    assert found is not None and notes == []
    state, tensors = found
    assert state == TrainState(fingerprint="f", epoch=2, epoch_step=1, step=12, loss_sum=0.1 + 0.2, rows=5)
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_checkpoint_none_there_gives_none() -> None:
    assert checkpoint.newest(MemoryStore(), "r1", "f") == (None, [])


def test_checkpoint_interrupted_write_is_passed_over() -> None:
    store = MemoryStore()
    _save(store, 10)
    _save(store, 20)
    store.delete(f"{layout.checkpoint('r1', 20)}/{MANIFEST}")

    found, notes = checkpoint.newest(store, "r1", "f")

    assert found is not None and found.state.step == 10
    assert notes == [], "an interrupted write was never a checkpoint"


def test_checkpoint_only_interrupted_writes_are_told() -> None:
    store = MemoryStore()
    _save(store, 10)
    store.delete(f"{layout.checkpoint('r1', 10)}/{MANIFEST}")

    found, notes = checkpoint.newest(store, "r1", "f")

    assert found is None
    assert notes == ["no checkpoint is complete (of step 10 parts are there), so nothing is kept"]


@pytest.mark.parametrize("file", [checkpoint.TENSORS, checkpoint.STATE, MANIFEST])
def test_checkpoint_damaged_byte_is_passed_over(file: str) -> None:
    store = MemoryStore()
    _save(store, 10)
    _save(store, 20)
    key = f"{layout.checkpoint('r1', 20)}/{file}"
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 0x80
    store.write(key, bytes(data))

    found, notes = checkpoint.newest(store, "r1", "f")

    assert found is not None and found.state.step == 10
    assert len(notes) == 1 and f"step-00000020/{file} is damaged" in notes[0]


def test_checkpoint_all_damaged_is_refused_with_each_reason() -> None:
    store = MemoryStore()
    _save(store, 10)
    _save(store, 20)
    store.write(f"{layout.checkpoint('r1', 20)}/{checkpoint.TENSORS}", b"short")
    store.delete(f"{layout.checkpoint('r1', 10)}/{checkpoint.STATE}")

    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoint\(s\) can be read") as caught:
        checkpoint.newest(store, "r1", "f")
    assert "step-00000020/tensors.safetensors is damaged" in caught.value.message
    assert "step-00000010/state.json" in caught.value.message
    assert "--run r1 --fresh" in caught.value.hint


def test_checkpoint_saved_below_a_damaged_one_is_kept() -> None:
    store = MemoryStore()
    _save(store, 20)
    store.write(f"{layout.checkpoint('r1', 20)}/{checkpoint.STATE}", b"short")
    _save(store, 10)

    _save(store, 11, num_to_keep=1)

    found, _ = checkpoint.newest(store, "r1", "f")
    assert found is not None and found.state.step == 11


def test_checkpoint_cleared_leaves_nothing_of_this_run_alone() -> None:
    store = MemoryStore()
    _save(store, 10)
    _save(store, 20)
    store.delete(f"{layout.checkpoint('r1', 20)}/{MANIFEST}")
    checkpoint.save(store, "r2", TrainState(fingerprint="f", step=5), TENSORS, num_to_keep=1)

    checkpoint.clear(store, "r1")

    assert not list(store.list(layout.checkpoints("r1")))
    assert len(list(store.list(layout.checkpoints("r2")))) == 3


def test_checkpoint_of_other_settings_is_refused() -> None:
    store = MemoryStore()
    _save(store, 10, fingerprint="other")

    with pytest.raises(CheckpointError, match="step-00000010 belongs to a training with other settings"):
        checkpoint.newest(store, "r1", "f")


@pytest.mark.parametrize(
    ("change", "field"),
    [({"epoch_step": None}, "state.epoch_step"), ({"seen_tokens": 3}, "state.seen_tokens")],
    ids=["missing", "unknown"],
)
def test_checkpoint_of_another_version_is_refused_by_name(change: dict[str, int | None], field: str) -> None:
    store = MemoryStore()
    state = {**TrainState(fingerprint="f", step=10).__dict__, **change}
    state = {name: value for name, value in state.items() if value is not None}
    files = {checkpoint.STATE: json.dumps(state).encode(), checkpoint.TENSORS: safetensors.torch.save(TENSORS)}
    publish(store, layout.checkpoint("r1", 10), files)

    with pytest.raises(CheckpointError) as caught:
        checkpoint.newest(store, "r1", "f")
    assert f"step-00000010 was written by another version of raypipe: {field} is missing" in caught.value.message
    assert "without --resume" in caught.value.hint


def test_checkpoint_without_its_tensors_is_refused_by_name() -> None:
    store = MemoryStore()
    state = json.dumps(TrainState(fingerprint="f", step=10).__dict__).encode()
    publish(store, layout.checkpoint("r1", 10), {checkpoint.STATE: state})

    with pytest.raises(CheckpointError, match=r"another version of raypipe: tensors\.safetensors is missing"):
        checkpoint.newest(store, "r1", "f")


def test_checkpoint_older_than_num_to_keep_is_deleted(tmp_path: Path) -> None:
    store = LocalFolder(str(tmp_path))

    for step in (1, 2, 3, 4):
        _save(store, step, num_to_keep=2)

    kept = {info.key.split("/")[-2] for info in store.list(layout.checkpoints("r1"))}
    assert kept == {"step-00000003", "step-00000004"}


@pytest.mark.parametrize(
    "spec",
    [
        SgdSpec(kind="sgd", lr=0.1),
        SgdSpec(kind="sgd", lr=0.1, momentum=0.9),
        AdamSpec(kind="adam", lr=0.1),
        AdamWSpec(kind="adamw", lr=0.1),
    ],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_optimizer_restored_from_a_checkpoint_goes_on_to_the_same_bits(spec: Optimizer) -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    optimizer = build_optimizer(spec, module.parameters())
    for _ in range(3):
        _step(module, optimizer)
    store = MemoryStore()
    tensors = {f"model/{name}": value for name, value in module.state_dict().items()}
    tensors |= checkpoint.flatten_optimizer(optimizer.state_dict())
    checkpoint.save(store, "r1", TrainState(fingerprint="f", step=3), tensors, num_to_keep=1)

    found, _ = checkpoint.newest(store, "r1", "f")
    assert found is not None
    other = nn.Linear(5, 3)
    other.load_state_dict({k.removeprefix("model/"): v for k, v in found[1].items() if k.startswith("model/")})
    fresh = build_optimizer(spec, other.parameters())
    fresh.load_state_dict(checkpoint.unflatten_optimizer(found[1], fresh.state_dict()["param_groups"]))
    for _ in range(2):
        _step(module, optimizer)
        _step(other, fresh)

    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


def _step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.linspace(0, 1, 10).reshape(2, 5)).square().sum().backward()
    optimizer.step()
