"""Thresholds and comparison with the champion; each answer has a reason.  Every doubt closes the gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raypipe.records import GateResult
from raypipe.spec.evaluate import GateSpec
from raypipe.spec.metrics import is_better_when_higher

ROUNDING = 1e-12
"""A bound missed by no more than this counts as met: 0.3 - 0.2 is a gain of 0.1."""


@dataclass(frozen=True)
class Standing:
    """The champion on the candidate's test rows.

    Attributes:
        version: its number.
        metrics: None when it cannot be compared.
        problem: why not.
    """

    version: int
    metrics: Mapping[str, float] | None
    problem: str = ""


def judge(gates: Iterable[GateSpec], metrics: Mapping[str, float], champion: Standing | None) -> list[GateResult]:
    """One result a condition, in the order of the file.

    A metric that is missing, NaN or infinite passes no gate. Without a champion `min_gain_over_champion` holds; with
    one that cannot be compared it does not, because nobody can say that the candidate is no worse.

    Args:
        metrics: the candidate's, on the test split.
        champion: on the same rows; None when there is none.
    """
    results: list[GateResult] = []
    for gate in gates:
        found = metrics.get(gate.metric, math.nan)
        if gate.min is not None:
            results.append(_at_least(gate.metric, found, gate.min))
        if gate.max is not None:
            results.append(_at_most(gate.metric, found, gate.max))
        if gate.min_gain_over_champion is not None:
            results.append(_gain(gate.metric, found, gate.min_gain_over_champion, champion))
    return results


def needs_champion(gates: Iterable[GateSpec]) -> bool:
    """Whether a gate compares with the champion."""
    return any(gate.min_gain_over_champion is not None for gate in gates)


def _at_least(metric: str, found: float, bound: float) -> GateResult:
    rule = f"{metric} >= {bound:g}"
    if not math.isfinite(found):
        return _not_a_number(metric, rule, found)
    if found >= bound - ROUNDING:
        return _result(metric, rule, found, True, f"{found:.6g} is at least {bound:g}")
    return _result(metric, rule, found, False, f"{found:.6g} is {bound - found:.3g} under {bound:g}")


def _at_most(metric: str, found: float, bound: float) -> GateResult:
    rule = f"{metric} <= {bound:g}"
    if not math.isfinite(found):
        return _not_a_number(metric, rule, found)
    if found <= bound + ROUNDING:
        return _result(metric, rule, found, True, f"{found:.6g} is at most {bound:g}")
    return _result(metric, rule, found, False, f"{found:.6g} is {found - bound:.3g} over {bound:g}")


def _gain(metric: str, found: float, bound: float, champion: Standing | None) -> GateResult:
    better = "higher" if is_better_when_higher(metric) else "lower"
    rule = (
        f"{metric} at least {bound:g} {better} than the champion's" if bound else f"{metric} no worse than champion's"
    )
    if not math.isfinite(found):
        return _not_a_number(metric, rule, found)
    if champion is None:
        return _result(metric, rule, found, True, "there is no champion to compare with")
    if champion.metrics is None:
        reason = f"version {champion.version}, the champion, cannot be compared: {champion.problem}"
        return _result(metric, rule, found, False, reason)
    theirs = champion.metrics.get(metric, math.nan)
    if not math.isfinite(theirs):
        return _result(metric, rule, found, False, f"version {champion.version}, the champion, has {metric} {theirs}")
    gain = found - theirs if better == "higher" else theirs - found
    change = "equal to" if gain == 0 else f"{abs(gain):.3g} {'better' if gain > 0 else 'worse'} than"
    reason = f"{found:.6g} is {change} version {champion.version}'s {theirs:.6g}"
    return _result(metric, rule, found, gain >= bound - ROUNDING, reason)


def _not_a_number(metric: str, rule: str, found: float) -> GateResult:
    return _result(metric, rule, found, False, f"{metric} is {found}, not a finite number")


def _result(metric: str, rule: str, found: float, passed: bool, reason: str) -> GateResult:
    return GateResult(metric=metric, rule=rule, found=found, passed=passed, reason=reason)
