"""Who starts the workers of a training, and why."""

from __future__ import annotations

import pytest

from raypipe.spec.train import TrainSpec
from raypipe.train import stage


@pytest.mark.parametrize(
    ("trainer", "alone", "way", "reason"),
    [
        ("auto", True, "actors", "all are on this machine"),
        ("auto", False, "ray_train", "this is a cluster"),
        ("elastic", True, "actors", "all are on this machine"),
        ("elastic", False, "actors", "their number is elastic"),
        ("ray_train", True, "ray_train", "train.trainer asks for it"),
        ("ray_train", False, "ray_train", "train.trainer asks for it"),
    ],
)
def test_one_place_chooses_and_says_why(
    monkeypatch: pytest.MonkeyPatch, trainer: str, alone: bool, way: str, reason: str
):
    monkeypatch.setattr(stage, "is_on_this_machine_alone", lambda: alone)
    elastic = {"num_workers": {"min": 1, "max": 2}}
    spec = TrainSpec.model_validate(elastic if trainer == "elastic" else {"trainer": trainer})
    assert stage.choose(spec) == (way, reason)
