"""`train.step`: what a user's own step may do, and how one that answers no loss is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import CheckpointError, ModelError, NonFiniteLossError, UserCodeError
from raypipe.records import TrainResult
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import order

LINEAR = {"kind": "linear"}

STEPS = """
import torch

def usual(network, features, target, loss):
    return loss(network(features), target, reduction="mean")

def of_each_row(network, features, target, loss):
    return loss(network(features), target)

def of_mixed_rows(network, features, target, loss):
    mixed = 0.7 * features + 0.3 * features.flip(0)
    output = network(mixed)
    return 0.7 * loss(output, target) + 0.3 * loss(output, target.flip(0))

def nothing(network, features, target, loss):
    loss(network(features), target).mean().backward()

def number(network, features, target, loss):
    return loss(network(features), target).mean().item()

def output(network, features, target, loss):
    return network(features)

def detached(network, features, target, loss):
    return loss(network(features), target).mean().detach()

def nan(network, features, target, loss):
    return loss(network(features), target).mean() * float("nan")

def raises(network, features, target, loss):
    raise KeyError("no such term")

def of_two(network, features):
    return network(features).mean()
"""


def _order(folder: Path, run_id: str, function: str, train: dict[str, Any] | None = None, **options: Any) -> TrainOrder:
    (folder / "steps.py").write_text(options.pop("source", STEPS))
    settings = {"step": f"steps.py:{function}", **(train or {})}
    return order(folder, run_id, settings, code_dir=folder, **{"model": LINEAR, **options})


def _run(training: TrainOrder) -> TrainResult:
    return loop.run(training, World(), lambda event: None)


@pytest.mark.parametrize("function", ["usual", "of_each_row"])
def test_run_a_step_that_does_the_usual_learns_the_usual(function: str, tmp_path: Path) -> None:
    plain = _run(order(tmp_path, "plain", {}, model=LINEAR))

    own = _run(_order(tmp_path, "own", function))

    assert own.metrics == pytest.approx(plain.metrics, rel=1e-5)


def test_run_a_step_of_ones_own_shapes_the_weights_and_its_change_is_another_training(tmp_path: Path) -> None:
    plain = _run(order(tmp_path, "plain", {}, model=LINEAR))
    mixed = _run(_order(tmp_path, "own", "of_mixed_rows", {"epochs": 2}))
    assert mixed.history[0].metrics["val_loss"] != plain.history[0].metrics["val_loss"]

    changed = _order(tmp_path, "own", "of_mixed_rows", source=STEPS.replace("0.7 * features", "0.9 * features"))
    with pytest.raises(CheckpointError, match="training with other settings"):
        _run(changed)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("nothing", "nothing"),
        ("number", "a float"),
        ("output", "a tensor of shape [12, 2]"),
        ("detached", "float32 without a gradient"),
    ],
)
def test_run_a_step_that_answers_no_loss_is_refused_with_what_it_answered(
    function: str, answer: str, tmp_path: Path
) -> None:
    expected = f"train.step: steps.py:{function} answered {answer} for 12 rows; it must return their mean loss"
    with pytest.raises(UserCodeError, match=re.escape(expected)):
        _run(_order(tmp_path, "r1", function))


def test_run_a_step_that_answers_nan_stops_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"training step 1 \(epoch 1\)"):
        _run(_order(tmp_path, "r1", "nan"))


def test_run_a_step_that_raises_is_told_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"in training step 1: steps\.py line 31, in raises: KeyError"):
        _run(_order(tmp_path, "r1", "raises"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("of_two", r"train.step: steps.py:of_two cannot be called with \(network, features, target, loss\)"),
        ("usaul", r"train.step: .* has no function or class 'usaul', did you mean 'usual'"),
    ],
)
def test_run_a_step_that_is_not_there_or_takes_something_else_is_refused(
    function: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        _run(_order(tmp_path, "r1", function))


def test_run_a_step_beside_the_model_sees_the_very_class_of_the_network(tmp_path: Path) -> None:
    source = """
from torch import nn

class Own(nn.Linear):
    pass

def build():
    return Own(3, 2)

def step(network, features, target, loss):
    assert isinstance(network, Own)
    return loss(network(features), target)
"""
    model = {"kind": "import", "path": "steps.py:build"}
    assert _run(_order(tmp_path, "r1", "step", source=source, model=model)).metrics["val_accuracy"] > 0.5
