"""The loop in this process, on one rank: what it learns, tells and refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.data.shards import load_rows
from raypipe.errors import (
    CheckpointError,
    DataError,
    ModelError,
    NonFiniteLossError,
    UserCodeError,
)
from raypipe.model.build import build_model
from raypipe.model.predictor import Predictor
from raypipe.runtime import seeds
from raypipe.storage import layout, open_store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import BATCH_NORM, NUM_TRAIN, UNUSED, dataset, order
from tests.unit.train.runs import run_alone, weights_of


def test_run_small_classes_are_learned(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"epochs": 30}, model={"kind": "mlp", "hidden": [16]})

    result = run_alone(training)

    losses = [entry.metrics["train_loss"] for entry in result.history]
    assert losses[-1] < 0.5 * losses[0]
    assert result.metrics["val_accuracy"] >= 0.85
    assert (result.num_steps, result.best_epoch, result.stopped_early) == (30 * 6, 30, False)
    assert result.num_parameters == 3 * 16 + 16 + 16 * 2 + 2


def test_run_small_regression_is_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2))
    data = tiny_dataset(
        LocalFolder(str(tmp_path)),
        {"a": x[:, 0], "b": x[:, 1]},
        3 * x[:, 0] - x[:, 1] + 2,
        task="regression",
        num_val=50,
    )

    result = run_alone(order(tmp_path, "r1", {"epochs": 40}, model={"kind": "linear"}, data=data))

    assert result.metrics["val_r2"] > 0.999
    assert result.metrics["val_rmse"] < 0.01


def test_run_says_start_and_each_epoch_with_its_metrics(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    result = loop.run(order(tmp_path, "r1", {}), World(), events.append)

    assert [event["event"] for event in events] == ["rows", "start", "epoch", "epoch", "epoch"]
    assert events[0]["rows"] == {
        "train": {"home": "memory", "num_bytes": 1340},
        "val": {"home": "memory", "num_bytes": 400},
    }
    assert events[1]["total_steps"] == result.num_steps == 18
    assert events[-1]["metrics"] == result.history[-1].metrics
    assert events[-1]["left_s"] == 0


def test_run_validation_metrics_are_those_of_the_predictor_on_the_same_rows(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {})
    result = run_alone(training)
    store = open_store(training.store_uri)
    rows = load_rows(store, training.dataset, "val")

    labels = Predictor.load(store, result.artifact).predict(rows.columns).labels()

    assert result.metrics["val_accuracy"] == (labels == rows.target).mean()


def test_run_early_stopping_packages_the_best_epoch(tmp_path: Path) -> None:
    # So high a rate that the loss on rows not seen gets worse again.
    train = {"epochs": 40, "early_stopping": {"patience_epochs": 4}, "optimizer": {"kind": "adam", "lr": 0.3}}
    training = order(tmp_path, "r1", train, model={"kind": "mlp", "hidden": [64, 64]})

    result = run_alone(training)

    losses = [entry.metrics["val_loss"] for entry in result.history]
    assert result.stopped_early and len(losses) < 40
    assert losses[result.best_epoch - 1] == min(losses)
    assert len(losses) == result.best_epoch + 4
    until_best = run_alone(
        order(tmp_path, "r2", {**train, "epochs": result.best_epoch}, model={"kind": "mlp", "hidden": [64, 64]})
    )
    best, same = weights_of(training, result), weights_of(training, until_best)
    assert all(torch.equal(best[name], same[name]) for name in best)


def test_run_early_stopping_min_delta_does_not_count_small_gains(tmp_path: Path) -> None:
    early = {"patience_epochs": 2, "min_delta": 1.0, "metric": "val_accuracy"}

    result = run_alone(order(tmp_path, "r1", {"epochs": 9, "early_stopping": early}))

    assert (result.best_epoch, len(result.history), result.stopped_early) == (1, 3, True)


@pytest.mark.parametrize(
    "setting", [{"clip_grad_norm": 1e-9}, {"schedule": {"kind": "constant", "warmup_steps": 10**9}}]
)
def test_run_clipping_and_warm_up_reach_the_optimizer(setting: dict[str, Any], tmp_path: Path) -> None:
    training = order(tmp_path, "r1", setting)
    torch.manual_seed(seeds.derive(7, "weights"))
    first = build_model(training.spec.model, training.dataset.signature, (3,), None).state_dict()

    after = weights_of(training, run_alone(training))

    assert all(torch.allclose(after[name], first[name], rtol=0, atol=1e-6) for name in first), "hardly moved"


def test_run_label_smoothing_raises_the_loss(tmp_path: Path) -> None:
    plain, smooth = (run_alone(order(tmp_path, f"r{s}", {"label_smoothing_frac": s / 10})) for s in (0, 3))

    assert smooth.metrics["train_loss"] > plain.metrics["train_loss"]


def test_run_rate_far_too_high_stops_and_names_the_step(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"optimizer": {"kind": "sgd", "lr": 1e30}})

    with pytest.raises(NonFiniteLossError, match=r"training step [23] \(epoch 1\): .* nothing was published"):
        run_alone(training)
    assert not list(open_store(training.store_uri).list(training.artifact_key))
    assert not list(open_store(training.store_uri).list(layout.checkpoints("r1")))


def test_run_more_workers_than_rows_is_refused(tmp_path: Path) -> None:
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": np.eye(3)}, np.arange(3), num_val=1)
    training = order(tmp_path, "r1", {"num_workers": 3, "global_batch_size": 3}, data=data)

    with pytest.raises(DataError, match="3 workers cannot share 2 training rows"):
        loop.Trainer(training, World(rank=0, size=3), lambda event: None)


def test_run_without_validation_rows_has_no_validation_metrics(tmp_path: Path) -> None:
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": np.eye(30)}, np.arange(30) % 2)

    assert set(run_alone(order(tmp_path, "r1", {}, data=data)).metrics) == {"train_loss"}


def test_run_model_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cnn reads one image"):
        run_alone(order(tmp_path, "r1", {}, model={"kind": "cnn"}))


def test_run_network_with_unused_and_frozen_parameters_names_them_and_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "unused_model.py").write_text(UNUSED)
    own = {"kind": "import", "path": "unused_model.py:build"}
    told: list[dict[str, Any]] = []
    whole = loop.run(order(tmp_path, "r1", {}, model=own, code_dir=tmp_path), World(), told.append)
    assert [event["text"] for event in told if event["event"] == "unused"] == [
        "the network's forward does not use aux.weight, aux.bias: they stay as they are"
    ]

    run_alone(order(tmp_path, "r2", {"epochs": 1}, model=own, code_dir=tmp_path))
    assert run_alone(order(tmp_path, "r2", {}, model=own, code_dir=tmp_path)).artifact.digest == whole.artifact.digest


def test_run_network_that_cannot_be_trained_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "frozen_model.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(3, 2).requires_grad_(False)\n"
    )
    own = {"kind": "import", "path": "frozen_model.py:build"}
    with pytest.raises(ModelError, match="every parameter is frozen"):
        run_alone(order(tmp_path, "r1", {}, model=own, code_dir=tmp_path))


def test_run_own_code_changed_since_the_checkpoint_is_refused(tmp_path: Path) -> None:
    source = "from torch import nn\ndef build():\n    return nn.Linear(3, 2)\n"
    for folder, text in {"a": source, "b": source + "# changed\n"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_model.py").write_text(text)
    own = {"kind": "import", "path": "own_model.py:build"}
    run_alone(order(tmp_path, "r1", {"epochs": 1}, model=own, code_dir=tmp_path / "a"))

    with pytest.raises(CheckpointError, match="training with other settings"):
        run_alone(order(tmp_path, "r1", {"epochs": 2}, model=own, code_dir=tmp_path / "b"))


def test_fingerprint_ignores_what_only_moves_or_bounds_the_work(tmp_path: Path) -> None:
    same = {"epochs": 9, "max_failures": 0, "checkpoint": {"every_steps": 5}, "resources": {"num_cpus": 2}}

    same |= {"rows": {"resident_bytes": 0}}

    assert order(tmp_path, "r1", same).fingerprint() == order(tmp_path, "r2", {}).fingerprint()
    shaping = {"rows": {"window_rows": 9}}
    assert order(tmp_path, "r1", shaping).fingerprint() != order(tmp_path, "r2", {}).fingerprint()
    assert order(tmp_path, "r1", {"clip_grad_norm": 1}).fingerprint() != order(tmp_path, "r2", {}).fingerprint()


RAISING = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, where):
        super().__init__()
        self.layer, self.where, self.calls = nn.Linear(3, 2), where, 0
    def forward(self, x):
        self.calls += self.training
        if self.where == "train" and self.training and self.calls == 3:
            raise KeyError("no such token\\nfrom its author")
        if self.where == "shape" and self.training and self.calls == 3:
            return self.layer(x[:, :2])
        if self.where == "val" and not self.training and self.calls:
            raise ValueError("validation is not for me")
        if self.where == "peer" and self.calls == 3:
            raise ConnectionResetError("Connection reset by peer")
        if self.where == "memory" and self.training and self.calls == 3:
            torch.empty(2**52, dtype=torch.uint8)
        return self.layer(x)

def build(where):
    return Own(where)
"""


def _raising(folder: Path, where: str) -> TrainOrder:
    (folder / "code").mkdir()
    (folder / "code" / f"raising_{where}.py").write_text(RAISING)
    own = {"kind": "import", "path": f"raising_{where}.py:build", "args": {"where": where}}
    return order(folder, "r1", {}, model=own, code_dir=folder / "code")


@pytest.mark.parametrize(
    ("where", "message", "advice"),
    [
        (
            "train",
            r"the model failed in training step 3: raising_train\.py line 12, in forward: "
            r"KeyError: 'no such token\\nfrom its author'",
            "correct the code",
        ),
        (
            "shape",
            r"the model failed in training step 3: raising_shape\.py line 14, in forward: RuntimeError: mat1 .*",
            "correct the code",
        ),
        (
            "val",
            r"the model failed in validation after step 6: raising_val\.py line 16, in forward: "
            r"ValueError: validation is not for me",
            "correct the code",
        ),
        (
            "memory",
            r"the model failed in training step 3: raising_memory\.py line 20, in forward: RuntimeError: .*allocate "
            r"4503599627370496 bytes.*; out of memory \(OOM\): 12 rows at a time take more memory than there is",
            "set train.micro_batch_rows lower",
        ),
    ],
)
def test_run_network_that_raises_is_told_with_type_file_line_and_step(
    where: str, message: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(UserCodeError) as caught:
        run_alone(_raising(tmp_path, where))

    assert re.fullmatch(message, caught.value.message)
    assert advice in caught.value.hint and "--resume" not in caught.value.hint
    assert caught.value.exit_code == 2


def test_run_error_that_may_pass_by_itself_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        run_alone(_raising(tmp_path, "peer"))


def _batch_norm(tmp_path: Path, run_id: str, train: dict[str, Any], num_rows: int) -> TrainOrder:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "norm_model.py").write_text(BATCH_NORM)
    x = np.random.default_rng(0).normal(size=(num_rows, 3))
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": x}, np.arange(num_rows) % 2)
    own = {"kind": "import", "path": "norm_model.py:build"}
    return order(tmp_path, run_id, train, model=own, code_dir=tmp_path / "code", data=data)


def test_run_batch_norm_with_a_single_row_left_over_takes_it_with_the_step_before(tmp_path: Path) -> None:
    result = run_alone(_batch_norm(tmp_path, "r1", {"global_batch_size": 64, "epochs": 2}, 129))

    assert result.num_steps == 2 * 2


@pytest.mark.parametrize(("batch", "num_rows"), [(1, 20), (8, 1)])
def test_run_batch_norm_with_single_rows_alone_is_refused_by_its_layer(
    batch: int, num_rows: int, tmp_path: Path
) -> None:
    training = _batch_norm(tmp_path, "r1", {"global_batch_size": batch}, 20)
    splits = {**training.dataset.splits}
    if num_rows == 1:
        x, y = np.zeros((1, 3)), np.array([0])
        one = tiny_dataset(LocalFolder(str(tmp_path)), {"x": x}, y, name="one")
        splits["train"] = one.splits["train"]
    training = replace(training, dataset=training.dataset.model_copy(update={"splits": splits}))

    with pytest.raises(ModelError, match=r"batches have one row, but the model holds BatchNorm1d \('1'\)") as caught:
        run_alone(training)
    assert "raise train.global_batch_size" in caught.value.hint


def test_run_each_row_counts_once_where_the_last_step_is_short(tmp_path: Path) -> None:
    """A rate of nothing, so train_loss is the mean over the rows seen: compared with the mean over all rows."""
    frozen = {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e-30}}
    data = dataset(LocalFolder(str(tmp_path)))
    assert NUM_TRAIN % 12 != 0

    by_twelve = run_alone(order(tmp_path, "r1", frozen, model={"kind": "linear"}, data=data))
    at_once = run_alone(
        order(tmp_path, "r2", {**frozen, "global_batch_size": 100}, model={"kind": "linear"}, data=data)
    )

    assert by_twelve.metrics["train_loss"] == pytest.approx(at_once.metrics["train_loss"], rel=1e-6)
