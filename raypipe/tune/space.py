"""Ranges in the spec -> Optuna's distributions, and what was drawn -> field values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from raypipe.spec.ranges import Choice, IntRange, LogUniformRange, Range, UniformRange

Space = Mapping[str, Range]
"""Field path to range, each behind the fields that it exists beside."""


class Draws(Protocol):
    """The part of an Optuna trial that draws."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def draw(space: Space, draws: Draws) -> dict[str, Any]:
    """One point: of a `choice` the option's index, as an option may be a list; of a stepped float the step's number."""
    drawn: dict[str, Any] = {}
    for path, values in space.items():
        if values.applies(_options(space, drawn)):
            drawn[path] = _draw_one(path, values, draws)
    return drawn


def values(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Field path to value, from what was drawn."""
    return {path: _value(space[path], each) for path, each in drawn.items()}


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every point of a space whose fields list their values, the last field changing fastest."""
    seen: set[tuple[tuple[str, Any], ...]] = set()
    for numbers in itertools.product(*(range(len(values.listed)) for values in space.values())):
        drawn: dict[str, Any] = {}
        for (path, values), number in zip(space.items(), numbers, strict=True):
            if values.applies(_options(space, drawn)):
                drawn[path] = values.listed[number] if isinstance(values, IntRange) else number
        point = tuple(drawn.items())
        if any(values.when for values in space.values()):  # fields that do not exist here repeat the point
            if point in seen:
                continue
            seen.add(point)
        yield drawn


def _options(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {path: space[path] for path in drawn}
    return {path: each.choice[drawn[path]] for path, each in chosen.items() if isinstance(each, Choice)}


def _draw_one(path: str, values: Range, draws: Draws) -> Any:
    if isinstance(values, Choice):
        return draws.suggest_categorical(path, range(len(values.choice)))
    if isinstance(values, IntRange):
        low, high = values.bounds
        return draws.suggest_int(path, low, high, step=values.step, log=values.log)
    if values.listed:
        return draws.suggest_int(path, 0, len(values.listed) - 1)
    return draws.suggest_float(path, *values.bounds, log=isinstance(values, LogUniformRange))


def _value(values: Range, drawn: Any) -> Any:
    if isinstance(values, Choice):
        return values.choice[drawn]
    if isinstance(values, UniformRange) and values.listed:
        return values.listed[drawn]
    return int(drawn) if isinstance(values, IntRange) else float(drawn)
