"""Settings that reach beyond the training are warned of: before anything runs, and once rows are known."""

from __future__ import annotations

import pytest

from raypipe.spec.advice import advice
from raypipe.spec.load import parse_pipeline

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
train: {epochs: 3, global_batch_size: 40}
"""

STEP = "{kind: step, every_epochs: 3}"
ASHA = "tune={space: {seed: {choice: [1, 2]}}, scheduler: {kind: asha, grace_epochs: 3}}"


def told(*overrides: str, train_rows: int | None = None) -> list[str]:
    return advice(parse_pipeline(FILE, overrides=overrides), train_rows)


def test_warmup_beyond_the_training_is_warned_of_once_the_rows_are_known():
    warmup = "train.schedule={kind: cosine, warmup_steps: 9}"
    assert told(warmup) == []
    assert told(warmup, train_rows=121) == []  # 4 steps an epoch
    (text,) = told(warmup, train_rows=120)
    assert text.startswith("train.schedule.warmup_steps=9 is beyond the training's 9 steps (3 epochs of 120 rows)")


@pytest.mark.parametrize(
    ("override", "start"),
    [
        (f"train.schedule={STEP}", "train.schedule.every_epochs=3 is not below train.epochs=3"),
        ("train.early_stopping={patience_epochs: 3}", "train.early_stopping.patience_epochs=3 is not below train.epo"),
        (ASHA, "tune.scheduler.grace_epochs=3 is not below train.epochs=3"),
    ],
)
def test_epochs_beyond_the_training_are_warned_of(override: str, start: str):
    (text,) = told(override)
    assert text.startswith(start)
    assert told(override, "train.epochs=4") == []


def test_setting_that_is_searched_is_not_warned_of():
    searched = "tune={space: {train.schedule.every_epochs: {int_uniform: [1, 3]}}}"
    assert told(f"train.schedule={STEP}", searched) == []
    most = "tune={space: {train.epochs: {int_uniform: [2, 9]}}, scheduler: {kind: asha, grace_epochs: 3}}"
    assert told(most) == []
