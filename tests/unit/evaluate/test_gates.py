"""Every answer has a reason in words and numbers, and every doubt closes the gate."""

from __future__ import annotations

import math

import pytest

from raypipe.evaluate.gates import Standing, judge, needs_champion
from raypipe.records import GateResult
from raypipe.spec.evaluate import GateSpec

CHAMPION = Standing(version=4, metrics={"accuracy": 0.9, "mae": 2.0})


def one(found: float, champion: Standing | None = None, metric: str = "accuracy", **gate: float) -> GateResult:
    (result,) = judge([GateSpec(metric=metric, **gate)], {metric: found}, champion)
    return result


@pytest.mark.parametrize(
    ("found", "gate", "passed", "rule", "reason"),
    [
        (0.97, {"min": 0.96}, True, "accuracy >= 0.96", "0.97 is at least 0.96"),
        (0.96, {"min": 0.96}, True, "accuracy >= 0.96", "0.96 is at least 0.96"),
        (0.9, {"min": 0.96}, False, "accuracy >= 0.96", "0.9 is 0.06 under 0.96"),
        (3.0, {"max": 5}, True, "accuracy <= 5", "3 is at most 5"),
        (5.5, {"max": 5}, False, "accuracy <= 5", "5.5 is 0.5 over 5"),
    ],
)
def test_judge_against_a_bound_says_by_how_much(found: float, gate, passed: bool, rule: str, reason: str):
    result = one(found, **gate)
    assert (result.passed, result.rule, result.reason) == (passed, rule, reason)


@pytest.mark.parametrize("found", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gate", [{"min": -1e308}, {"max": 1e308}, {"min_gain_over_champion": -1e308}])
@pytest.mark.parametrize("champion", [None, CHAMPION])
def test_judge_a_metric_that_is_no_number_never_passes(found: float, gate, champion: Standing | None):
    result = one(found, champion, **gate)
    assert not result.passed
    assert "not a finite number" in result.reason


def test_judge_a_metric_that_was_not_measured_never_passes():
    (result,) = judge([GateSpec(metric="r2", min=-1e9)], {"accuracy": 1.0}, None)
    assert not result.passed


@pytest.mark.parametrize(
    ("metric", "found", "gain", "passed", "reason"),
    [
        ("accuracy", 0.92, 0.0, True, "0.92 is 0.02 better than version 4's 0.9"),
        ("accuracy", 0.9, 0.0, True, "0.9 is equal to version 4's 0.9"),
        ("accuracy", 0.89, 0.0, False, "0.89 is 0.01 worse than version 4's 0.9"),
        ("accuracy", 0.92, 0.02, True, "0.92 is 0.02 better than version 4's 0.9"),
        ("accuracy", 0.91, 0.02, False, "0.91 is 0.01 better than version 4's 0.9"),
        ("accuracy", 0.89, -0.02, True, "0.89 is 0.01 worse than version 4's 0.9"),
        ("mae", 1.5, 0.5, True, "1.5 is 0.5 better than version 4's 2"),
        ("mae", 2.5, 0.0, False, "2.5 is 0.5 worse than version 4's 2"),
    ],
)
def test_judge_against_the_champion_knows_which_way_is_better(
    metric: str, found: float, gain: float, passed: bool, reason: str
):
    result = one(found, CHAMPION, metric, min_gain_over_champion=gain)
    assert (result.passed, result.reason) == (passed, reason)


def test_judge_without_a_champion_holds():
    result = one(0.1, None, min_gain_over_champion=0.5)
    assert result.passed
    assert result.reason == "there is no champion to compare with"


def test_judge_against_a_champion_that_cannot_be_compared_does_not_hold():
    result = one(1.0, Standing(4, None, "its classes are (1, 2)"), min_gain_over_champion=0)
    assert not result.passed
    assert result.reason == "version 4, the champion, cannot be compared: its classes are (1, 2)"


@pytest.mark.parametrize("metrics", [{}, {"accuracy": math.nan}])
def test_judge_against_a_champion_without_the_metric_does_not_hold(metrics: dict[str, float]):
    assert not one(1.0, Standing(4, metrics), min_gain_over_champion=0).passed


def test_judge_gives_one_result_a_condition_in_the_order_of_the_file():
    gates = [GateSpec(metric="mae", max=3, min=1, min_gain_over_champion=0), GateSpec(metric="accuracy", min=0.5)]
    results = judge(gates, {"mae": 2.0, "accuracy": 0.4}, CHAMPION)
    assert [(result.rule, result.passed) for result in results] == [
        ("mae >= 1", True),
        ("mae <= 3", True),
        ("mae no worse than champion's", True),
        ("accuracy >= 0.5", False),
    ]


def test_needs_champion_only_when_a_gate_compares():
    assert not needs_champion([GateSpec(metric="accuracy", min=0.5)])
    assert needs_champion([GateSpec(metric="accuracy", min=0.5), GateSpec(metric="r2", min_gain_over_champion=0)])
