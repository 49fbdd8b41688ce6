"""A training that is interrupted, made longer, or repeated, in this process, on one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import (
    CheckpointError,
    DigestMismatch,
    PreemptedError,
)
from raypipe.storage import layout, open_store
from raypipe.storage.local import LocalFolder
from raypipe.train import loop, preemption, reporter
from raypipe.train.order import TrainOrder
from raypipe.train.preemption import Preemption
from raypipe.train.rows import World
from tests.unit.train.interrupted import STOP_AT_STEP, answer_after_interruption, answer_until
from tests.unit.train.orders import dataset, order
from tests.unit.train.runs import run_alone


def test_run_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    def digest(run_id: str, seed: int) -> str:
        training = order(tmp_path, run_id, {})
        spec = training.spec.model_copy(update={"seed": seed})
        return run_alone(
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
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    data = dataset(LocalFolder(str(tmp_path)))
    train = {"checkpoint": {"every_steps": 2}, "optimizer": optimizer, "schedule": {"kind": "cosine"}}
    train |= {"early_stopping": {"patience_epochs": 3}}

    whole = run_alone(order(tmp_path, "whole", train, data=data))
    resumed = answer_after_interruption(order(tmp_path, "resumed", train, data=data), World())

    assert resumed["started_at"] == [0, 8], "it must have lost a step and gone on from the checkpoint before"
    assert resumed["artifact"]["digest"] == whole.artifact.digest
    assert resumed["history"] == whole.model_dump(mode="json")["history"]


@pytest.mark.parametrize("window_rows", [7, 20])
def test_run_streamed_and_stopped_within_an_epoch_ends_with_the_bits_of_rows_in_memory(
    window_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    data = dataset(LocalFolder(str(tmp_path)))
    train = {"checkpoint": {"every_steps": 2}, "optimizer": {"kind": "adamw", "lr": 0.01}}
    held = {**train, "rows": {"window_rows": window_rows}}
    streamed = {**train, "rows": {"window_rows": window_rows, "resident_bytes": 0}}

    whole = run_alone(order(tmp_path, "held", held, data=data))
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
        run_alone(training)
    assert not list(store.list(training.artifact_key))


@pytest.mark.parametrize("every_steps", [1, 2, 5])
def test_run_number_of_checkpoints_changes_no_weight_where_there_is_dropout(every_steps: int, tmp_path: Path) -> None:
    data = dataset(LocalFolder(str(tmp_path)))
    rare = run_alone(order(tmp_path, "rare", {}, data=data))

    often = run_alone(order(tmp_path, "often", {"checkpoint": {"every_steps": every_steps}}, data=data))

    assert often.artifact.digest == rare.artifact.digest
    assert often.history == rare.history


def test_run_whose_checkpoints_are_all_damaged_stops_and_trains_nothing(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {})
    run_alone(training)
    store = open_store(training.store_uri)
    for info in list(store.list(layout.checkpoints("r1"))):
        store.write(info.key, b"nothing")
    events: list[dict[str, Any]] = []

    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoint\(s\) can be read"):
        loop.run(training, World(), events.append)
    assert events == []


def test_run_passing_over_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {})
    run_alone(training)
    store = open_store(training.store_uri)
    part = next(info.key for info in store.list(layout.checkpoint("r1", 18)) if info.key.endswith(".safetensors"))
    store.write(part, b"nothing")
    events: list[dict[str, Any]] = []

    again = loop.run(training, World(), events.append)

    assert (events[1]["step"], again.num_steps) == (12, 18)
    assert f"{part} is damaged" in events[1]["notes"][0]


def test_run_of_a_finished_training_repeats_nothing(tmp_path: Path) -> None:
    first = run_alone(order(tmp_path, "r1", {}))
    events: list[dict[str, Any]] = []

    again = loop.run(order(tmp_path, "r1", {}), World(), events.append)

    assert [(event["event"], event["step"], event["notes"]) for event in events[1:]] == [("start", 18, [])]
    assert again.num_steps == 18
    assert again.artifact == first.artifact
    assert again.history == first.history


def test_run_ends_within_an_epoch_after_max_steps_and_repeats_nothing(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    first = loop.run(order(tmp_path, "r1", {"max_steps": 8}), World(), events.append)

    again = run_alone(order(tmp_path, "r1", {"max_steps": 8}))

    assert events[1]["total_steps"] == first.num_steps == 8
    assert [entry.step for entry in first.history] == [6, 8] and not first.stopped_early
    assert again.artifact == first.artifact
    with pytest.raises(CheckpointError, match="training with other settings"):
        run_alone(order(tmp_path, "r1", {"max_steps": 9}))


def test_run_with_fewer_epochs_than_were_trained_is_refused_and_packages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the artifact there would be weights of more steps than the file asks for."""
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    made = order(tmp_path, "r1", {"checkpoint": {"every_steps": 2}})
    answer_until(STOP_AT_STEP, made, World())  # within the second epoch

    with pytest.raises(CheckpointError, match=r"run r1 has trained into epoch 2 already \(step 8\), and .*epochs is 1"):
        run_alone(order(tmp_path, "r1", {"epochs": 1}))
    assert not list(LocalFolder(str(tmp_path)).list("runs/r1/train/artifact"))
    assert run_alone(order(tmp_path, "r1", {"epochs": 2})).num_steps == 12


@pytest.mark.parametrize("kind", ["linear", "one_cycle"])
def test_run_with_a_rate_that_spans_the_training_cannot_be_made_longer(kind: str, tmp_path: Path) -> None:
    run_alone(order(tmp_path, "r1", {"epochs": 1, "schedule": {"kind": kind}}))

    with pytest.raises(CheckpointError, match="training with other settings"):
        run_alone(order(tmp_path, "r1", {"epochs": 2, "schedule": {"kind": kind}}))


def test_run_plateau_stopped_within_an_epoch_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    plateau = {"kind": "plateau", "patience_epochs": 1, "min_delta": 9.0}  # cut after every epoch but the first
    train = {"checkpoint": {"every_steps": 2}, "schedule": plateau, "epochs": 4}
    whole = run_alone(order(tmp_path, "whole", train))

    resumed = answer_after_interruption(order(tmp_path, "resumed", train), World())

    assert resumed["started_at"] == [0, 8]
    assert resumed["artifact"]["digest"] == whole.artifact.digest
    assert (
        whole.artifact.digest
        != run_alone(order(tmp_path, "never", {**train, "schedule": {"kind": "constant"}})).artifact.digest
    )


def test_run_with_more_epochs_goes_on_where_it_ended(tmp_path: Path) -> None:
    run_alone(order(tmp_path, "r1", {"epochs": 2}))

    longer = run_alone(order(tmp_path, "r1", {"epochs": 3}))

    assert longer.artifact.digest == run_alone(order(tmp_path, "r2", {"epochs": 3})).artifact.digest


def test_run_with_other_settings_refuses_the_checkpoint(tmp_path: Path) -> None:
    run_alone(order(tmp_path, "r1", {}))

    with pytest.raises(CheckpointError, match="training with other settings"):
        run_alone(order(tmp_path, "r1", {"optimizer": {"kind": "sgd", "lr": 0.2}}))


def test_run_without_checkpoints_leaves_only_the_artifact(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {}, checkpoints=False)

    run_alone(training)

    keys = [info.key for info in open_store(training.store_uri).list("runs")]
    assert keys and all(key.startswith(training.artifact_key) for key in keys)


def test_run_keeps_so_many_checkpoints(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"checkpoint": {"every_steps": 1, "num_to_keep": 3}})

    run_alone(training)

    keys = [info.key for info in open_store(training.store_uri).list(layout.checkpoints("r1"))]
    assert {key.split("/")[-2] for key in keys} == {"step-00000016", "step-00000017", "step-00000018"}


def test_run_keeps_the_best_epochs_besides_the_newest(tmp_path: Path) -> None:
    # So high a rate that the loss on rows not seen gets worse again.
    train = {"epochs": 12, "checkpoint": {"num_to_keep": 1, "num_best_to_keep": 2}}
    training = order(tmp_path, "r1", {**train, "optimizer": {"kind": "adam", "lr": 0.3}})

    result = run_alone(training)

    best = sorted(result.history, key=lambda entry: entry.metrics["val_loss"])[:2]
    keys = [info.key for info in open_store(training.store_uri).list(layout.checkpoints("r1"))]
    kept = {int(key.split("/")[-2].removeprefix("step-")) for key in keys}
    assert kept == {result.num_steps, *(entry.step for entry in best)} and len(kept) == 3


class ToldAt(Preemption):
    """Told that its machine goes once `step` steps were asked about."""

    def __init__(self, step: int) -> None:
        self.asked, self.step = 0, step

    def is_told(self) -> bool:
        self.asked += 1
        return self.asked >= self.step


def test_run_told_that_its_machine_goes_keeps_a_checkpoint_at_once_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "ASK_S", 0.0)  # after every step
    data = dataset(LocalFolder(str(tmp_path)))
    whole = run_alone(order(tmp_path, "whole", {}, data=data))
    training = order(tmp_path, "left", {}, data=data)

    with pytest.raises(PreemptedError, match="the checkpoint of step 8 is kept"):
        loop.run(training, World(), lambda event: None, ToldAt(7))  # not asked where an epoch ends, after step 6
    starts: list[int] = []
    again = loop.run(training, World(), lambda event: starts.append(event["step"]) if "step" in event else None)

    assert starts[0] == 8
    assert again.artifact.digest == whole.artifact.digest and again.history == whole.history
