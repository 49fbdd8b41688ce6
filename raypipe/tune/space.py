"""Ranges in the spec -> Tune domains, and a trial's draw -> field values."""

from __future__ import annotations

from typing import Any

from ray import tune

from raypipe.spec.tune import Choice, IntRange, LogUniformRange, Range, UniformRange

Space = dict[str, Range]


def domains(space: Space) -> dict[str, Any]:
    """What Tune's searchers draw from."""
    return {path: _domain(values) for path, values in space.items()}


def values(space: Space, drawn: dict[str, Any]) -> dict[str, Any]:
    """Field path to value, from what a searcher drew."""
    return {path: _value(space[path], draw) for path, draw in drawn.items()}


def _domain(values: Range) -> Any:
    if isinstance(values, UniformRange):
        return tune.uniform(*values.uniform)
    if isinstance(values, LogUniformRange):
        return tune.loguniform(*values.log_uniform)
    if isinstance(values, IntRange):
        low, high = values.int_uniform
        return tune.randint(low, high + 1)  # Tune leaves the upper bound out
    # Searchers compare and store what they draw, so they draw the option's index: an option may be a list.
    return tune.choice(list(range(len(values.choice))))


def _value(values: Range, draw: Any) -> Any:
    if isinstance(values, Choice):
        return values.choice[draw]
    return int(draw) if isinstance(values, IntRange) else float(draw)
