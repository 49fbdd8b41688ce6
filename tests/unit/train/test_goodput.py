"""Where a training's time goes, told by the loop in this process; restarts go on from its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypipe.records import Goodput, TrainResult
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context
from raypipe.train import loop, reporter, stage
from raypipe.train.goodput import Stopwatch, with_restarts
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.interrupted import STOP_AT_STEP, Interrupted, answer_after_interruption
from tests.unit.train.orders import STREAMED, order

PARTS = {
    "steps_s": 41.2,
    "starting_s": 3.1,
    "rows_s": 0.02,
    "validation_s": 1.9,
    "checkpoints_s": 0.4,
    "failures_s": 0.0,
    "packaging_s": 0.68,
}


class Clocks:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.at = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.at += seconds

    def watch(self, asked_at: float = 1000.0) -> Stopwatch:
        return Stopwatch(asked_at, clock=lambda: self.at, now=lambda: self.at)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def _trained(order: TrainOrder, events: list[dict[str, Any]] | None = None) -> TrainResult:
    return loop.run(order, World(), [].append if events is None else events.append)


def test_text_names_the_largest_parts_first_and_leaves_out_what_is_none() -> None:
    told = Goodput(share=0.8712, **PARTS)

    assert told.text == (
        "goodput 0.87: steps 41.2 s of 47.3 s; starting 3.1 s, validation 1.9 s, packaging 0.7 s, checkpoints 0.4 s"
    )
    assert told.model_copy(update={"mfu": 0.523}).text == f"{told.text}; MFU 0.52"


def test_record_from_before_goodput_was_kept_is_read(tmp_path: Path) -> None:
    result = _trained(order(tmp_path, "r1", {"epochs": 1}))
    assert TrainResult.model_validate_json(result.to_json()) == result
    older = result.model_dump(mode="json")
    del older["goodput"]

    assert TrainResult.model_validate(older).goodput is None


def test_every_second_counts_for_one_part(clocks: Clocks) -> None:
    clocks.pass_s(2.0)  # a process starts
    watch = clocks.watch()
    clocks.pass_s(1.0)

    def batches() -> Iterator[int]:
        for number in range(3):
            clocks.pass_s(0.25)
            yield number

    for _ in watch.between_steps(batches()):
        clocks.pass_s(4.0)
        with watch.during("checkpoints"):
            clocks.pass_s(0.5)
    watch.turn_to("validation")
    clocks.pass_s(5.0)
    watch.turn_to("packaging")
    clocks.pass_s(1.0)

    told = watch.goodput()

    assert (told.starting_s, told.rows_s, told.steps_s, told.checkpoints_s) == (3.0, 0.75, 12.0, 1.5)
    assert (told.validation_s, told.packaging_s, told.failures_s) == (5.0, 1.0, 0.0)
    assert told.whole_s == clocks.at - 1000.0
    assert told.share == pytest.approx(12.0 / 23.25)


def test_steps_after_the_last_checkpoint_are_lost_and_count_once(clocks: Clocks) -> None:
    first = clocks.watch()
    clocks.pass_s(3.0)
    first.turn_to("steps")
    clocks.pass_s(10.0)
    kept = first.so_far()
    clocks.pass_s(6.0)  # done, and lost
    clocks.pass_s(2.0)  # the next workers start
    second = clocks.watch()
    clocks.pass_s(1.0)
    second.resume(*kept)
    clocks.pass_s(0.5)
    second.turn_to("steps")
    clocks.pass_s(6.0)  # the same steps again

    told = second.goodput()

    assert (told.starting_s, told.steps_s, told.failures_s) == (3.0, 16.0, 9.5)
    assert told.whole_s == clocks.at - 1000.0


def test_time_between_two_commands_belongs_to_neither(clocks: Clocks) -> None:
    first = clocks.watch()
    first.turn_to("steps")
    clocks.pass_s(10.0)
    kept = first.so_far()
    clocks.pass_s(86_400.0)
    asked_at = clocks.at
    clocks.pass_s(4.0)
    second = clocks.watch(asked_at)
    second.resume(*kept)

    told = second.goodput()

    assert (told.starting_s, told.steps_s, told.failures_s, told.whole_s) == (4.0, 10.0, 0.0, 14.0)


def test_workers_lost_before_any_checkpoint_are_not_taken_for_a_long_start() -> None:
    told = Goodput(share=0.8, **{**PARTS, "starting_s": 9.0})

    corrected = with_restarts(told, starting_s=3.1)

    assert (corrected.starting_s, corrected.failures_s) == (pytest.approx(3.1), pytest.approx(5.9))
    assert corrected.whole_s == pytest.approx(told.whole_s)
    assert with_restarts(told, starting_s=9.5) == told, "clocks of two machines differ a little"


def test_run_tells_where_its_time_went(tmp_path: Path) -> None:
    training = order(tmp_path, "r1", {"rows": STREAMED, "checkpoint": {"every_steps": 2}})
    events: list[dict[str, Any]] = []

    told = _trained(training, events).goodput

    assert told is not None and told.mfu is None, "no GPU, no figure for one"
    parts = told.model_dump(exclude={"share", "mfu", "failures_s"})
    assert all(seconds > 0 for seconds in parts.values()), parts
    assert told.failures_s == 0.0
    assert told.share == pytest.approx(told.steps_s / told.whole_s, rel=1e-3)
    assert events[1]["starting_s"] == pytest.approx(told.starting_s, abs=0.05)


def test_run_killed_and_started_again_counts_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocks: Clocks
) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    monkeypatch.setattr(loop, "Stopwatch", clocks.watch)
    for owner, name, takes_s in (
        (loop, "start", 3.0),
        (loop.Trainer, "train_step", 10.0),
        (loop.Validation, "measure", 2.0),
        (loop, "write_artifact", 5.0),
    ):
        monkeypatch.setattr(owner, name, _taking(getattr(owner, name), clocks, takes_s))
    training = replace(order(tmp_path, "killed", {"checkpoint": {"every_steps": 2}}), asked_at=clocks.at)

    answer = answer_after_interruption(training, World())

    told = Goodput.model_validate(answer["goodput"])
    assert answer["started_at"] == [0, STOP_AT_STEP - 1]
    assert told.steps_s == 10.0 * answer["num_steps"] == 180.0
    assert (told.starting_s, told.validation_s, told.packaging_s) == (3.0, 3 * 2.0, 5.0)
    assert told.failures_s == 10.0 + 3.0, "a step after the last checkpoint, and another start"
    assert told.whole_s == clocks.at - 1000.0


def _taking(function: Callable[..., Any], clocks: Clocks, seconds: float) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        clocks.pass_s(seconds)
        return function(*args, **kwargs)

    return run


def test_train_whose_workers_are_lost_before_any_checkpoint_tells_that_time_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocks: Clocks
) -> None:
    monkeypatch.setattr(loop, "Stopwatch", lambda asked_at: clocks.watch())
    monkeypatch.setattr(loop, "start", _taking(loop.start, clocks, 3.0))
    monkeypatch.setattr(loop.Trainer, "train_step", _taking(loop.Trainer.train_step, clocks, 10.0))

    def lost_once(order: TrainOrder, channel: str, tell: Callable[[dict[str, Any]], None], *_: object) -> TrainResult:
        def stop(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                raise Interrupted
            tell(event)

        without_checkpoints = replace(order, checkpoints=False)
        with pytest.raises(Interrupted):
            loop.run(without_checkpoints, World(), stop)
        return loop.run(without_checkpoints, World(), tell)

    monkeypatch.setattr(stage, "fit", lost_once)  # in this process: how workers are lost is told elsewhere
    training = order(tmp_path, "r1", {"epochs": 1})

    result = stage.train(training.spec, training.dataset, run_context(open_store(training.store_uri), run_id="r1"))

    assert result.attempts == 2 and result.goodput is not None
    assert (result.goodput.steps_s, result.goodput.starting_s) == (60.0, 3.0)
    assert result.goodput.failures_s == 60.0 + 3.0, "an epoch that is done again, and another start"


def test_order_of_another_time_is_the_same_order(tmp_path: Path) -> None:
    made = order(tmp_path, "r1", {})

    assert made == replace(made, asked_at=0.0)
    assert made.fingerprint() == replace(made, asked_at=0.0).fingerprint()
