"""What a device cannot do is refused in words, and less precise numbers learn what precise ones do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from raypipe.errors import ModelError, ResourceError
from raypipe.records import TrainResult
from raypipe.spec.train import TrainSpec
from raypipe.train import loop, precision
from raypipe.train.rows import World
from tests.unit.train.interrupted import answer_after_interruption
from tests.unit.train.orders import order

ADAM = {"optimizer": {"kind": "adamw", "lr": 0.01}, "epochs": 3}


def _run(folder: Path, run_id: str, train: dict[str, Any], **options: Any) -> TrainResult:
    return loop.run(order(folder, run_id, {**ADAM, **train}, **options), World(), lambda event: None)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_run_in_less_precision_learns_what_float32_does(kind: str, tmp_path: Path) -> None:
    precise, less = _run(tmp_path, "r1", {}), _run(tmp_path, "r2", {"precision": kind})

    assert less.metrics["val_loss"] == pytest.approx(precise.metrics["val_loss"], rel=0.02)
    assert less.metrics["val_loss"] != precise.metrics["val_loss"]


def test_run_in_float16_stopped_within_an_epoch_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raypipe.train.reporter.REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    monkeypatch.setattr(precision, "GROWS_AFTER_STEPS", 3)  # so that the scale differs from step to step
    settings = {**ADAM, "precision": "float16", "checkpoint": {"every_steps": 2}}
    whole = loop.run(order(tmp_path, "whole", settings), World(), lambda event: None)

    resumed = answer_after_interruption(order(tmp_path, "resumed", settings), World())

    assert resumed["started_at"] == [0, 8]
    assert resumed["artifact"]["digest"] == whole.artifact.digest


def test_run_that_asks_for_a_gpu_where_there_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"num_gpus: 1 asks for GPUs, but worker 0 sees none") as caught:
        _run(tmp_path, "r1", {"resources": {"num_gpus": 1}})
    assert "num_gpus: 0" in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "capability", "advice"),
    [("bfloat16", (7, 5), "float16 or float32"), ("bfloat16", (5, 0), "float32"), ("float16", (5, 2), "float32")],
)
def test_check_device_gpu_without_such_numbers_is_refused(
    kind: precision.Precision, capability: tuple[int, int], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)  # of a GPU not there
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla")
    spec, world = TrainSpec(precision=kind), World(device=torch.device("cuda:0"))
    with pytest.raises(ResourceError, match=rf"train.precision: {kind} needs a GPU .* worker 0 has Tesla") as caught:
        precision.check_device(spec, world)
    assert caught.value.hint == f"use train.precision: {advice}"


MIXED = """
from torch import nn

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4).double(), nn.Linear(4, 2)
    def forward(self, x):
        return self.last(self.first(x.double()).float())

def build():
    return Mixed()
"""


def test_run_network_with_parameters_of_mixed_types_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "mixed_model.py").write_text(MIXED)
    own = {"kind": "import", "path": "mixed_model.py:build"}
    expected = (
        "model.kind: import: its parameters are of 2 types (float64: first.weight, first.bias; float32: last.weight, "
        "last.bias); they must be of one"
    )
    with pytest.raises(ModelError, match=re.escape(expected)):
        _run(tmp_path, "r1", {}, model=own, code_dir=tmp_path)


def test_run_averages_are_validated_and_packaged_and_do_not_change_the_training(tmp_path: Path) -> None:
    plain, averaged = _run(tmp_path, "r1", {}), _run(tmp_path, "r2", {"ema_decay": 0.9})

    def train_losses(result: TrainResult) -> list[float]:
        return [entry.metrics["train_loss"] for entry in result.history]

    assert train_losses(averaged) == train_losses(plain)
    assert averaged.metrics["val_loss"] > plain.metrics["val_loss"], "an average of a loss that falls lags behind"


def test_fingerprint_of_a_file_that_says_what_was_always_done_stays(tmp_path: Path) -> None:
    old = order(tmp_path, "r1", {}).fingerprint()
    same = {"parallel": "auto", "micro_batch_rows": "auto", "precision": "float32", "ema_decay": None, "step": None}
    same |= {"max_steps": None, "sync_batch_norm": False, "compile": False, "recompute": True}
    assert order(tmp_path, "r1", same).fingerprint() == old
    other: dict[str, Any]
    for other in (
        {"parallel": "sharded"}, {"micro_batch_rows": 4}, {"precision": "bfloat16"}, {"ema_decay": 0.9},
        {"max_steps": 4}, {"sync_batch_norm": True}, {"compile": True},
    ):  # fmt: skip
        assert order(tmp_path, "r1", other).fingerprint() != old
