"""The fitted transforms of a dataset version: raw columns in, what the model reads out.

Every path comes through here: training shards, evaluation, batch rows and requests.  B rows, F features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.data.transforms import base
from raypipe.data.transforms.base import State, TransformKind, Values
from raypipe.data.transforms.few_rows import FewRows
from raypipe.data.transforms.table import KINDS
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import Transform

SMALL_SQUARES = 1e76
"""The largest float32 is 3.4e38; its square is ten times this."""


class FittedTransforms:
    """The transforms of one dataset version, ready for any rows."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = tuple(states)
        self._steps = [(state, name, ready(state, name)) for state in states for name in state["columns"]]
        self._left_out = {name for state in states if not state.get("keep", True) for name in state["reads"]}
        self._has_joint = any(kind.joint for _, _, kind in self._steps)
        self._own: defaultdict[str, list[TransformKind]] = defaultdict(list)  # column -> its transforms, in order
        for _, name, kind in self._steps:
            if not kind.joint:
                self._own[name].append(kind)
        self._few: tuple[Sequence[Column], FewRows | None] = ((), None)
        self._bytes: tuple[Sequence[Column], np.ndarray | None] = ((), None)

    @classmethod
    def from_state(cls, states: Sequence[State]) -> FittedTransforms:
        """Rebuild from what `state` gave, e.g. DatasetVersion.transforms."""
        return cls(states)

    def state(self) -> tuple[State, ...]:
        """JSON-able; one entry a transform, in order."""
        return self._states

    def apply(self, columns: Mapping[str, Any], inputs: Sequence[Column]) -> np.ndarray:
        """What the model reads.

        Args:
            columns: name -> raw values [B, *shape]; text as object arrays, missing as None or NaN, or as Arrow strings.
            inputs: the raw feature columns, in order (Signature.inputs).
        Returns:
            float32 [B, *feature_shape]: a single tensor column keeps its shape, otherwise [B, F] in `inputs` order,
            crosses last.
        Raises:
            DataError: an unknown category, or a value that is missing or no finite float32; names column and value.
        """
        table = self._byte_table(inputs)
        if table is not None:
            values = columns.get(inputs[0].name)
            if type(values) is np.ndarray and values.dtype == np.uint8 and values.ndim > 1:
                return table.take(values)
        return self._applied(columns, inputs)[1]

    def apply_exact(self, columns: Mapping[str, Any], inputs: Sequence[Column]) -> np.ndarray:
        """`apply` before the cast to float32."""
        return self._applied(columns, inputs)[0]

    def _applied(self, columns: Mapping[str, Any], inputs: Sequence[Column]) -> tuple[np.ndarray, np.ndarray]:
        """Before the cast to float32, and after."""
        for column in inputs:
            if column.name not in columns:
                raise DataError(
                    f"column '{column.name}' is missing; the columns are {list(columns)}", "give every feature"
                )
        few = self._few_rows(inputs)
        if few is not None:
            done = few.apply(columns)
            if done is not None and _is_small(done):
                return done, done.astype(np.float32)
        values = {column.name: base.start(columns[column.name], column) for column in inputs}
        joined: list[np.ndarray] = []
        for state, name, kind in self._steps:
            if kind.joint:
                parts = [values[read] for read in state["reads"]]
                joined.append(np.asarray(kind.apply(base.together(parts, state["reads"]))))
            elif name in values:
                values[name] = kind.apply(values[name])
        kept = [column for column in inputs if column.name not in self._left_out]
        done = _side_by_side([*(_numbers(values[column.name], column) for column in kept), *joined])
        if _is_small(done):
            return done, done.astype(np.float32, copy=False)
        cast = _float32(done)
        if not np.isfinite(cast).all():
            for column in kept:
                _refuse_infinite(values[column.name], column)
        return done, cast

    def _byte_table(self, inputs: Sequence[Column]) -> np.ndarray | None:
        """What each byte becomes, float32 [256], where the only input is an array of bytes and their place in it does
        not matter: looked up, the pixels of a request take a third of the time."""
        if self._bytes[0] is not inputs:
            if not isinstance(inputs, tuple) or len(inputs) != 1 or self._has_joint:  # what may change is not kept
                return None
            (column,) = inputs
            kinds, table = self._own.get(column.name, ()), None
            is_bytes = column.dtype == "uint8" and column.shape and not column.nullable
            if is_bytes and all(kind.by_value for kind in kinds):
                with np.errstate(over="ignore", invalid="ignore"):  # of bytes that no row may hold
                    table = _float32(self.column(np.arange(256, dtype=np.uint8), column))
            self._bytes = (inputs, table if table is not None and np.isfinite(table).all() else None)
        return self._bytes[1]

    def _few_rows(self, inputs: Sequence[Column]) -> FewRows | None:
        """The way of few rows, where there is one; worked out when the inputs are new."""
        if self._few[0] is not inputs:
            if not isinstance(inputs, tuple) or not inputs or self._has_joint:  # what may change is not kept
                return None
            few = FewRows(inputs, [(name, kind) for _, name, kind in self._steps])
            self._few = (inputs, few if few.is_faster else None)
        return self._few[1]

    def feature_shape(self, inputs: Sequence[Column]) -> tuple[int, ...]:
        """Shape of one row after `apply`."""
        return self.apply_exact({column.name: base.empty(column) for column in inputs}, inputs).shape[1:]

    def column(self, values: Any, column: Column) -> Values:
        """One column after all its own transforms; missing values that nothing filled stay NaN or null."""
        values = base.start(values, column)
        for kind in self._own.get(column.name, ()):
            values = kind.apply(values)
        return values


def state_keys(transform: Transform) -> list[str]:
    """Keys of the transform's `columns` in its state."""
    return [" x ".join(transform.columns)] if KINDS[transform.kind].joint else transform.columns


def unfitted(transform: Transform) -> State:
    """Its state before anything is fitted."""
    settings = transform.model_dump(mode="json", exclude={"columns"})
    reads = {"reads": list(transform.columns)} if KINDS[transform.kind].joint else {}
    return {**settings, **reads, "columns": {}}


def ready(state: State, name: str) -> TransformKind:
    """The transform of one entry of `state["columns"]`, ready to be applied.

    Raises:
        DataError: it is of a kind that this raypipe does not know.
    """
    if state["kind"] not in KINDS:
        raise DataError(
            f"the dataset was prepared with a transform '{state['kind']}', which this raypipe does not know",
            "use the version of raypipe that prepared it, or a newer one",
        )
    return KINDS[state["kind"]](state, state["columns"][name], name)


def _side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0] if parts[0].ndim > 1 else parts[0][:, None]
    return np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in parts], axis=1)


def _numbers(values: Values, column: Column) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    raise base.still_text(column)


def _is_small(values: np.ndarray) -> bool:
    """Whether all are surely finite in float32: their squares, added up in one pass, are far from its end. False says
    no more than that it takes a closer look."""
    flat = values.reshape(-1)
    return float(np.vdot(flat, flat)) < SMALL_SQUARES  # infinite is not small either, and vdot does not warn of it


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return values.astype(np.float32, copy=False)


def _refuse_infinite(values: np.ndarray, column: Column) -> None:
    finite = np.isfinite(_float32(values))
    if not finite.all():
        bad = values[~finite].ravel()[0]
        what, how = f"{bad}", "a smaller value, or train with a `clip` or `log` transform"
        if np.isnan(bad):
            what, how = "a missing value", "a value, or train with an `impute` transform"
        raise DataError(
            f"column '{column.name}' holds {what}; every value must be a finite number within float32 (3.4e38)",
            f"give {how} for the column",
        )
