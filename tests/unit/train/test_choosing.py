"""Who starts the workers of a training, and why."""

from __future__ import annotations

import pytest

from raypipe.spec.train import TrainSpec
from raypipe.train import stage


@pytest.mark.parametrize(
    ("trainer", "checkpoints", "alone", "way", "reason"),
    [
        ("auto", True, True, "actors", "all are on this machine"),
        ("auto", True, False, "ray_train", "this is a cluster"),
        ("auto", False, True, "ray_train", "it frees what a stopped trial held"),
        ("ray_train", True, True, "ray_train", "train.trainer asks for it"),
        ("ray_train", True, False, "ray_train", "train.trainer asks for it"),
    ],
)
def test_one_place_chooses_and_says_why(
    monkeypatch: pytest.MonkeyPatch, trainer: str, checkpoints: bool, alone: bool, way: str, reason: str
):
    monkeypatch.setattr(stage, "is_on_this_machine_alone", lambda: alone)
    spec = TrainSpec.model_validate({"trainer": trainer})
    assert stage.choose(spec, checkpoints=checkpoints) == (way, reason)
