"""The loop in this process, on one rank; one file as the loop is one, and its tests share what a run leaves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.data.shards import load_rows
from raypipe.errors import CheckpointError, DataError, DigestMismatch, ModelError, NonFiniteLossError, UserCodeError
from raypipe.model.artifact import read_artifact
from raypipe.model.predictor import Predictor
from raypipe.records import TrainResult
from raypipe.storage import layout, open_store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.interrupted import answer_after_interruption
from tests.unit.train.orders import BATCH_NORM, NUM_TRAIN, UNUSED, dataset, order


def _run(order: TrainOrder) -> TrainResult:
    return loop.run(order, World(), lambda event: None)


def _weights(order: TrainOrder, result: TrainResult) -> dict[str, torch.Tensor]:
    return dict(read_artifact(open_store(order.store_uri), result.artifact, code_dir=order.code_dir)[1].state_dict())


def test_run_small_classes_are_learned(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"epochs": 30}, model={"kind": "mlp", "hidden": [16]})

    result = _run(training)

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

    result = _run(order(tmp_path, "r1", {"epochs": 40}, model={"kind": "linear"}, data=data))

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
    result = _run(training)
    store = open_store(training.store_uri)
    rows = load_rows(store, training.dataset, "val")

    labels = Predictor.load(store, result.artifact).predict(rows.columns).labels()

    assert result.metrics["val_accuracy"] == (labels == rows.target).mean()


def test_run_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    def digest(run_id: str, seed: int) -> str:
        training = order(tmp_path, run_id, {})
        spec = training.spec.model_copy(update={"seed": seed})
        return _run(
            TrainOrder(spec, training.dataset, training.store_uri, run_id, training.artifact_key)
        ).artifact.digest

    first, second, other = digest("r1", 7), digest("r2", 7), digest("r3", 8)

    assert first == second
    assert other != first


@pytest.mark.parametrize(
    "optimizer",
    [{"kind": "sgd", "lr": 0.1, "momentum": 0.9}, {"kind": "adam", "lr": 0.01}, {"kind": "adamw", "lr": 0.01}],
    ids=lambda optimizer: optimizer["kind"],
)
def test_run_stopped_within_an_epoch_ends_with_the_same_bits(
    optimizer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAY_EVERY_S", 0.0)  # an event each step, to stop at one
    data = dataset(LocalFolder(str(tmp_path)))
    train = {"checkpoint": {"every_steps": 2}, "optimizer": optimizer, "schedule": {"kind": "cosine"}}
    train |= {"early_stopping": {"patience_epochs": 3}}

    whole = _run(order(tmp_path, "whole", train, data=data))
    resumed = answer_after_interruption(order(tmp_path, "resumed", train, data=data), World())

    assert resumed["started_at"] == [0, 8], "it must have lost a step and gone on from the checkpoint before"
    assert resumed["artifact"]["digest"] == whole.artifact.digest
    assert resumed["history"] == whole.model_dump(mode="json")["history"]


@pytest.mark.parametrize("window_rows", [7, 20])
def test_run_streamed_and_stopped_within_an_epoch_ends_with_the_bits_of_rows_in_memory(
    window_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAY_EVERY_S", 0.0)  # an event each step, to stop at one
    data = dataset(LocalFolder(str(tmp_path)))
    train = {"checkpoint": {"every_steps": 2}, "optimizer": {"kind": "adamw", "lr": 0.01}}
    held = {**train, "rows": {"window_rows": window_rows}}
    streamed = {**train, "rows": {"window_rows": window_rows, "resident_bytes": 0}}

    whole = _run(order(tmp_path, "held", held, data=data))
    resumed = answer_after_interruption(order(tmp_path, "streamed", streamed, data=data), World())

    assert resumed["started_at"] == [0, 8]
    assert resumed["artifact"]["digest"] == whole.artifact.digest
    assert resumed["history"] == whole.model_dump(mode="json")["history"]


def test_run_streamed_shard_damaged_while_training_stops_with_its_name(tmp_path: Path) -> None:
    store = LocalFolder(str(tmp_path))
    data = dataset(store)
    store.write(data.splits["train"].shards[3].key, b"nothing")
    training = order(tmp_path, "r1", {"rows": {"resident_bytes": 0, "window_rows": 10}}, data=data)

    with pytest.raises(DigestMismatch, match=r"00003\.arrow"):
        _run(training)
    assert not list(store.list(training.artifact_key))


@pytest.mark.parametrize("every_steps", [1, 2, 5])
def test_run_number_of_checkpoints_changes_no_weight_where_there_is_dropout(every_steps: int, tmp_path: Path) -> None:
    data = dataset(LocalFolder(str(tmp_path)))
    rare = _run(order(tmp_path, "rare", {}, data=data))

    often = _run(order(tmp_path, "often", {"checkpoint": {"every_steps": every_steps}}, data=data))

    assert often.artifact.digest == rare.artifact.digest
    assert often.history == rare.history


def test_run_whose_checkpoints_are_all_damaged_stops_and_trains_nothing(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {})
    _run(training)
    store = open_store(training.store_uri)
    for info in list(store.list(layout.checkpoints("r1"))):
        store.write(info.key, b"nothing")
    events: list[dict[str, Any]] = []

    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoint\(s\) can be read"):
        loop.run(training, World(), events.append)
    assert events == []


def test_run_passing_over_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {})
    _run(training)
    store = open_store(training.store_uri)
    store.write(f"{layout.checkpoint('r1', 18)}/tensors.safetensors", b"nothing")
    events: list[dict[str, Any]] = []

    again = loop.run(training, World(), events.append)

    assert (events[1]["step"], again.num_steps) == (12, 18)
    assert "step-00000018/tensors.safetensors is damaged" in events[1]["notes"][0]


def test_run_of_a_finished_training_repeats_nothing(tmp_path: Path) -> None:
    first = _run(order(tmp_path, "r1", {}))
    events: list[dict[str, Any]] = []

    again = loop.run(order(tmp_path, "r1", {}), World(), events.append)

    assert events[1:] == [{"event": "start", "step": 18, "total_steps": 18, "notes": []}]
    assert again.artifact == first.artifact
    assert again.history == first.history


def test_run_with_more_epochs_goes_on_where_it_ended(tmp_path: Path) -> None:
    _run(order(tmp_path, "r1", {"epochs": 2}))

    longer = _run(order(tmp_path, "r1", {"epochs": 3}))

    assert longer.artifact.digest == _run(order(tmp_path, "r2", {"epochs": 3})).artifact.digest


def test_run_with_other_settings_refuses_the_checkpoint(tmp_path: Path) -> None:
    _run(order(tmp_path, "r1", {}))

    with pytest.raises(CheckpointError, match="training with other settings"):
        _run(order(tmp_path, "r1", {"optimizer": {"kind": "sgd", "lr": 0.2}}))


def test_run_without_checkpoints_leaves_only_the_artifact(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {}, checkpoints=False)

    _run(training)

    keys = [info.key for info in open_store(training.store_uri).list("runs")]
    assert keys and all(key.startswith(training.artifact_key) for key in keys)


def test_run_keeps_so_many_checkpoints(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"checkpoint": {"every_steps": 1, "num_to_keep": 3}})

    _run(training)

    keys = [info.key for info in open_store(training.store_uri).list(layout.checkpoints("r1"))]
    assert {key.split("/")[-2] for key in keys} == {"step-00000016", "step-00000017", "step-00000018"}


def test_run_early_stopping_packages_the_best_epoch(tmp_path: Path) -> None:
    # So high a rate that the loss on rows not seen gets worse again.
    train = {"epochs": 40, "early_stopping": {"patience_epochs": 4}, "optimizer": {"kind": "adam", "lr": 0.3}}
    training = order(tmp_path, "r1", train, model={"kind": "mlp", "hidden": [64, 64]})

    result = _run(training)

    losses = [entry.metrics["val_loss"] for entry in result.history]
    assert result.stopped_early and len(losses) < 40
    assert losses[result.best_epoch - 1] == min(losses)
    assert len(losses) == result.best_epoch + 4
    until_best = _run(
        order(tmp_path, "r2", {**train, "epochs": result.best_epoch}, model={"kind": "mlp", "hidden": [64, 64]})
    )
    best, same = _weights(training, result), _weights(training, until_best)
    assert all(torch.equal(best[name], same[name]) for name in best)


def test_run_early_stopping_min_delta_does_not_count_small_gains(tmp_path: Path) -> None:
    early = {"patience_epochs": 2, "min_delta": 1.0, "metric": "val_accuracy"}

    result = _run(order(tmp_path, "r1", {"epochs": 9, "early_stopping": early}))

    assert (result.best_epoch, len(result.history), result.stopped_early) == (1, 3, True)


@pytest.mark.parametrize(
    "setting", [{"clip_grad_norm": 1e-9}, {"schedule": {"kind": "constant", "warmup_steps": 10**9}}]
)
def test_run_clipping_and_warm_up_reach_the_optimizer(setting: dict[str, Any], tmp_path: Path) -> None:
    training = order(tmp_path, "r1", setting)
    torch.manual_seed(loop.seeds.derive(7, "weights"))
    first = loop.build_model(training.spec.model, training.dataset.signature, (3,), None).state_dict()

    after = _weights(training, _run(training))

    assert all(torch.allclose(after[name], first[name], rtol=0, atol=1e-6) for name in first), "hardly moved"


def test_run_label_smoothing_raises_the_loss(tmp_path: Path) -> None:
    plain, smooth = (_run(order(tmp_path, f"r{s}", {"label_smoothing_frac": s / 10})) for s in (0, 3))

    assert smooth.metrics["train_loss"] > plain.metrics["train_loss"]


def test_run_rate_far_too_high_stops_and_names_the_step(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"optimizer": {"kind": "sgd", "lr": 1e30}})

    with pytest.raises(NonFiniteLossError, match=r"training step [23] \(epoch 1\): .* nothing was published"):
        _run(training)
    assert not list(open_store(training.store_uri).list(training.artifact_key))
    assert not list(open_store(training.store_uri).list(layout.checkpoints("r1")))


def test_run_more_workers_than_rows_is_refused(tmp_path: Path) -> None:
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": np.eye(3)}, np.arange(3), num_val=1)
    training = order(tmp_path, "r1", {"num_workers": 3, "global_batch_size": 3}, data=data)

    with pytest.raises(DataError, match="3 workers cannot share 2 training rows"):
        loop.Trainer(training, World(rank=0, size=3), lambda event: None)


def test_run_without_validation_rows_has_no_validation_metrics(tmp_path: Path) -> None:
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": np.eye(30)}, np.arange(30) % 2)

    assert set(_run(order(tmp_path, "r1", {}, data=data)).metrics) == {"train_loss"}


def test_run_model_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cnn reads one image"):
        _run(order(tmp_path, "r1", {}, model={"kind": "cnn"}))


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

    _run(order(tmp_path, "r2", {"epochs": 1}, model=own, code_dir=tmp_path))
    assert _run(order(tmp_path, "r2", {}, model=own, code_dir=tmp_path)).artifact.digest == whole.artifact.digest


def test_run_network_that_cannot_be_trained_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "frozen_model.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(3, 2).requires_grad_(False)\n"
    )
    own = {"kind": "import", "path": "frozen_model.py:build"}
    with pytest.raises(ModelError, match="every parameter is frozen"):
        _run(order(tmp_path, "r1", {}, model=own, code_dir=tmp_path))


def test_run_own_code_changed_since_the_checkpoint_is_refused(tmp_path: Path) -> None:
    source = "from torch import nn\ndef build():\n    return nn.Linear(3, 2)\n"
    for folder, text in {"a": source, "b": source + "# changed\n"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_model.py").write_text(text)
    own = {"kind": "import", "path": "own_model.py:build"}
    _run(order(tmp_path, "r1", {"epochs": 1}, model=own, code_dir=tmp_path / "a"))

    with pytest.raises(CheckpointError, match="training with other settings"):
        _run(order(tmp_path, "r1", {"epochs": 2}, model=own, code_dir=tmp_path / "b"))


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
    ],
)
def test_run_network_that_raises_is_told_with_type_file_line_and_step(
    where: str, message: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(UserCodeError) as caught:
        _run(_raising(tmp_path, where))

    assert re.fullmatch(message, caught.value.message)
    assert advice in caught.value.hint and "--resume" not in caught.value.hint
    assert caught.value.exit_code == 2


def test_run_error_that_may_pass_by_itself_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        _run(_raising(tmp_path, "peer"))


def _batch_norm(tmp_path: Path, run_id: str, train: dict[str, Any], num_rows: int) -> TrainOrder:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "norm_model.py").write_text(BATCH_NORM)
    x = np.random.default_rng(0).normal(size=(num_rows, 3))
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": x}, np.arange(num_rows) % 2)
    own = {"kind": "import", "path": "norm_model.py:build"}
    return order(tmp_path, run_id, train, model=own, code_dir=tmp_path / "code", data=data)


def test_run_batch_norm_with_a_single_row_left_over_takes_it_with_the_step_before(tmp_path: Path) -> None:
    result = _run(_batch_norm(tmp_path, "r1", {"global_batch_size": 64, "epochs": 2}, 129))

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
        _run(training)
    assert "raise train.global_batch_size" in caught.value.hint


def test_run_each_row_counts_once_where_the_last_step_is_short(tmp_path: Path) -> None:
    """A rate of nothing, so train_loss is the mean over the rows seen: compared with the mean over all rows."""
    frozen = {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e-30}}
    data = dataset(LocalFolder(str(tmp_path)))
    assert NUM_TRAIN % 12 != 0

    by_twelve = _run(order(tmp_path, "r1", frozen, model={"kind": "linear"}, data=data))
    at_once = _run(order(tmp_path, "r2", {**frozen, "global_batch_size": 100}, model={"kind": "linear"}, data=data))

    assert by_twelve.metrics["train_loss"] == pytest.approx(at_once.metrics["train_loss"], rel=1e-6)
