"""What a network reads, part by part: which places of a row hold the index of a category, and of how many.

A dataset version and an artifact tell the same, so that a network is built alike in training and in serving.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raypipe.data.transforms import FittedTransforms, State
from raypipe.data.transforms.base import empty
from raypipe.records import Column

BYTE_IDS = 258
"""Ids of `tokenizer: byte`: padding, unknown, and 256 bytes."""


class Part(NamedTuple):
    """What one column became.

    Attributes:
        start: its first place in a row of flattened features.
        width: how many places it takes.
        num_indices: its values are whole numbers below this, or -1 for an unknown category; None: plain numbers.
    """

    name: str
    start: int
    width: int
    num_indices: int | None


@dataclass(frozen=True)
class Features:
    """One row as the network reads it.

    Attributes:
        shape: of one row after the transforms.
        inputs: the raw feature columns, in order.
        transforms: their fitted state, as in a dataset version.
    """

    shape: tuple[int, ...]
    inputs: Sequence[Column] = ()
    transforms: Sequence[State] = ()

    def parts(self) -> list[Part]:
        """Each column's part, in the order of the row: inputs first, crosses last."""
        fitted = FittedTransforms(self.transforms)
        left_out = {name for state in self.transforms if not state.get("keep", True) for name in state["reads"]}
        parts: list[Part] = []
        start = 0
        for column in self.inputs:
            if column.name in left_out:
                continue
            shape = getattr(fitted.column(empty(column), column), "shape", (0,))[1:]
            parts.append(Part(column.name, start, math.prod(shape), _num_indices(_last_state(self, column), column)))
            start += parts[-1].width
        for state in self.transforms:
            for name, known in state["columns"].items() if "reads" in state else ():
                num = state["num_buckets"] or len(known["categories"])
                is_index = state["output"] == "index"
                parts.append(Part(name, start, 1 if is_index else num, num if is_index else None))
                start += parts[-1].width
        return parts

    def vocabulary(self) -> int | None:
        """Token ids are below this, where a row is the ids of one text; else None."""
        parts = self.parts() if len(self.shape) == 1 else []
        state = _last_state(self, self.inputs[0]) if len(parts) == 1 and len(self.inputs) == 1 else None
        return parts[0].num_indices if state is not None and _has_token_ids(state, self.inputs[0]) else None


def _has_token_ids(state: State, column: Column) -> bool:
    """Whether 0 is padding, and all others are ids."""
    is_pretrained = state["kind"] == "pretrained_tokens"
    return state["kind"] == "tokens" or (is_pretrained and state["columns"][column.name]["padding"] == 0)


def _last_state(features: Features, column: Column) -> State | None:
    """The last transform of a column's own."""
    own = [state for state in features.transforms if "reads" not in state and column.name in state["columns"]]
    return own[-1] if own else None


def _num_indices(state: State | None, column: Column) -> int | None:
    if state is None:
        return None
    known: Mapping[str, Any] = state["columns"][column.name]
    if state["kind"] == "tokens":
        return state["max_vocabulary"] or BYTE_IDS
    if state["kind"] == "pretrained_tokens":
        return known["num_ids"]
    if state["kind"] == "ordinal":
        return len(known["categories"])
    if state["kind"] == "hashing" and state["output"] == "index":
        return state["num_buckets"]
    if state["kind"] == "bucketize" and state["output"] == "index":
        return len(known["boundaries"]) + 1
    return None
