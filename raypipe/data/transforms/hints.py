"""What a fitted model gives away about the raw values of its inputs: ranges, typical values, known categories.

A page where people try a model starts from this. Nothing is checked by it: what a column takes is for the transforms to
say (taken.py), and a range that is guessed says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from raypipe.data.table import fits
from raypipe.data.transforms.base import OF_PROSE, State
from raypipe.records import Column, Value

USUAL_TOPS = (1.0, 16.0, 255.0, 65535.0)
"""Where the values of pictures usually end, the smallest first."""

SAME_VALUES = ("impute", "clip", "resize", "channels_first", "level")
"""Kinds after which the values are still in the unit they came in, or a sound is still a sound."""

RangeSource = Literal["fitted", "scale", "guessed", "dtype"]


@dataclass(frozen=True)
class Hint:
    """About one raw input column.

    Attributes:
        low, high: where its values in training began and ended.
        told_by: how that is known. `fitted`: seen in the train split; `scale`: what a scale transform brings to [0, 1]
            or around 0; `guessed` from mean and deviation; `dtype`: from the type alone.
        is_light: most of a picture is nearer to `high` than to `low`; None: not known.
        typical: a value in the middle of the train split, or what stands for a missing one.
        known: categories of the train split, or given in the file.
        sample_rate: samples a second of a sound.
        is_prose: a text that is cut into tokens.
    """

    low: float | None = None
    high: float | None = None
    told_by: RangeSource | None = None
    is_light: bool | None = None
    typical: Value | None = None
    known: tuple[Value, ...] = ()
    sample_rate: int | None = None
    is_prose: bool = False


def input_hints(states: Sequence[State], inputs: Sequence[Column]) -> dict[str, Hint]:
    """A hint for each input.

    Args:
        states: as `FittedTransforms.state` gives them.
    """
    return {column.name: _hint(states, column) for column in inputs}


def _hint(states: Sequence[State], column: Column) -> Hint:
    hint = Hint()
    factor, offset = 1.0, 0.0  # the scale transforms so far: x * factor + offset
    for state in states:
        if column.name not in state["columns"] or "reads" in state:
            continue
        if state["kind"] == "scale":
            if hint.told_by is None:
                hint = _scaled(hint, state)
            factor, offset = factor * state["factor"], offset * state["factor"] + state["offset"]
            if factor == 0:
                break
            continue
        hint = _learned(hint, state, state["columns"][column.name], column, factor, offset)
        if state["kind"] not in SAME_VALUES:
            break
    if column.dtype != "string" and hint.told_by is None:
        low, high = _of_dtype(column.dtype)
        hint = replace(hint, low=low, high=high, told_by="dtype")
    return hint


def _learned(hint: Hint, state: State, fitted: Mapping[str, Any], column: Column, factor: float, offset: float) -> Hint:
    """The hint with what one transform adds; it saw raw * factor + offset."""

    def raw(value: Any) -> float:
        return (float(np.mean(value)) - offset) / factor

    kind = state["kind"]
    if kind == "impute":
        fill = fitted["fill"]
        return replace(hint, typical=fill if isinstance(fill, str) else raw(fill))
    if kind == "clip":
        low, high = fitted["min"], fitted["max"]
        return hint if low is None or high is None else _between(hint, raw(low), raw(high))
    if kind == "min_max":
        hint = _between(hint, raw(min(fitted["min"])), raw(max(fitted["max"])))
        return hint if column.shape else replace(hint, typical=(raw(fitted["min"]) + raw(fitted["max"])) / 2)
    if kind in ("standardize", "normalize") and column.dtype != "bool":
        return _centred(hint, column, raw(fitted["mean"]), abs(float(np.mean(fitted["std"])) / factor))
    if kind == "robust":
        return replace(hint, typical=raw(fitted["median"]))
    if kind == "bucketize" and fitted["boundaries"]:
        return replace(hint, typical=raw(sorted(fitted["boundaries"])[len(fitted["boundaries"]) // 2]))
    if "categories" in fitted:
        return replace(hint, known=tuple(fitted["categories"]))
    if kind == "log_mel":
        return replace(hint, sample_rate=state["sample_rate"], low=-1.0, high=1.0, told_by="guessed")
    return replace(hint, is_prose=True) if kind in OF_PROSE else hint


def _between(hint: Hint, one: float, other: float) -> Hint:
    if one == other:
        return hint
    return replace(hint, low=min(one, other), high=max(one, other), told_by="fitted")


def _scaled(hint: Hint, state: State) -> Hint:
    """What becomes 0 to 1, or with a negative offset what comes to lie around 0."""
    factor, offset = state["factor"], state["offset"]
    if factor <= 0 or factor == 1 or offset > 0:
        return hint
    high = (1.0 if offset == 0 else -2 * offset) / factor
    return replace(hint, low=0.0, high=float(np.float32(high)), told_by="scale")


def _centred(hint: Hint, column: Column, mean: float, std: float) -> Hint:
    if not column.shape:
        return replace(hint, typical=mean)
    if hint.told_by is None and mean > 0:
        # Values in [0, top] vary by mean * (top - mean) at most (Bhatia and Davis 2000).
        top = next((top for top in USUAL_TOPS if mean + std**2 / mean <= top), None)
        if top is not None and top <= fits.limits(column.dtype)[1]:
            hint = replace(hint, low=0.0, high=top, told_by="guessed")
    if hint.low is None or hint.high is None:
        return hint
    return replace(hint, is_light=mean > (hint.low + hint.high) / 2)


def _of_dtype(dtype: str) -> tuple[float, float]:
    if dtype == "bool" or dtype.startswith("float"):
        return 0.0, 1.0
    return 0.0, float(min(fits.limits(dtype)[1], 255))
