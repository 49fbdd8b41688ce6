"""Fitting transforms on train: what each shard contributes, put together in shard order.

No more than a shard, and one partial a transform and column, is in memory at once, and the same shards give the same
bits every time.  One pass over the shards fits all that does not wait for another transform of the same column; what
follows an `impute` does not wait for it: it sees the rows that have a value, and learns of the others afterwards, as so
many copies of the fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.transforms import KINDS, FittedTransforms, base
from raypipe.data.transforms.base import TransformKind, Values
from raypipe.data.transforms.fitted import ready, state_keys, unfitted
from raypipe.data.transforms.passes import check_types, may_refuse, numbered_passes, reads_rows
from raypipe.records import Column
from raypipe.spec.transforms import Transform


@dataclass(frozen=True)
class Contribution:
    """What the rows of one shard, or of several, tell a transform about one column."""

    num_rows: int
    """Rows that were read: all, or the first that are enough."""
    num_missing: int
    """Those of them without a value, which an `impute` of the same pass fills; not in `partial`."""
    partial: Any
    """`TransformKind.partial` of the others."""


Contributions = list[dict[str, Contribution]]
"""Of each transform of a pass: column name -> contribution; empty where the transform needs no rows."""

RunShards = Callable[[FittedTransforms, Sequence[Transform]], Iterable[Contributions]]
"""Given what is fitted already and the transforms to fit next: `contributions` of every shard, in shard order."""

COPIES = 2**16
"""Copies of a fill made at a time."""


def fit(transforms: Sequence[Transform], inputs: Sequence[Column], run: RunShards) -> FittedTransforms:
    """Fit all transforms, in as few passes over the train shards as their order allows.

    Raises:
        DataError: a transform does not fit its column or refuses a value of train, or there is nothing to fit on.
    """
    check_types(transforms, inputs)
    states = [unfitted(transform) for transform in transforms]
    for now in numbered_passes(transforms):
        group = [transform for _, transform in now]
        total: Contributions = [{} for _ in group]
        if any(reads_rows(transform) for transform in group):
            total = summed(group, run(FittedTransforms([state for state in states if state["columns"]]), group))
        fills: dict[str, Values] = {}
        for (number, transform), of_all in zip(now, total, strict=True):
            states[number]["columns"].update(_fitted(transform, of_all, fills))
    for transform, state in zip(transforms, states, strict=True):
        state["columns"] = {name: state["columns"][name] for name in state_keys(transform)}
    return FittedTransforms(states)


def contributions(
    before: FittedTransforms,
    group: Sequence[Transform],
    columns: Mapping[str, Any],
    inputs: Sequence[Column],
    *,
    rows_before: int = 0,
) -> Contributions:
    """What one shard's rows contribute to each transform of the group.

    Args:
        columns: name -> raw values of the shard's rows, as FittedTransforms.apply reads them.
        rows_before: train rows in the shards before this one, at least; rows beyond what is enough are not sent. It
            never changes what is fitted, if there are indeed that many.
    Raises:
        DataError: a value that a transform of the group refuses.
    """
    by_name = {column.name: column for column in inputs}
    passing = {
        name: _Passing(columns[name], partial(before.column, column=by_name[name]))
        for transform in group
        for name in transform.columns
    }
    of_shard: Contributions = []
    for transform in group:
        kind = KINDS[transform.kind]
        if kind.joint and not kind.needs_rows(transform):
            of_shard.append({})
            continue
        read = [passing[name] for name in transform.columns]
        by_column: dict[str, Contribution] = {}
        if kind.joint:
            read = [_Passing(base.together([column.read() for column in read], transform.columns))]
        for name, column in zip(state_keys(transform), read, strict=True):
            if kind.needs_rows(transform):
                by_column[name] = _contribution(kind, transform, name, column, rows_before)
                if kind.fills:
                    column.leave_out_missing()
            else:
                state = {**unfitted(transform), "columns": {name: kind.finish(transform, None, name)}}
                column.then(ready(state, name).apply)
                if kind.refuses(transform):
                    column.read()
        of_shard.append(by_column)
    return of_shard


def summed(group: Sequence[Transform], shards: Iterable[Contributions]) -> Contributions:
    """The contributions of neighbouring shards as one, of which none is kept; of no shards, no contribution.

    Raises:
        DataError: a column holds more than a transform may keep of it.
    """

    def both(first: Contributions, second: Contributions) -> Contributions:
        return [
            {name: _both(transform, name, one[name], other[name]) for name in one} if one else other
            for transform, one, other in zip(group, first, second, strict=True)
        ]

    return reduce(both, shards, [{} for _ in group])


class FirstPass:
    """What shards contribute to the transforms that are fitted first, put together as they are written.

    Attributes:
        group: those transforms; empty where there are none.
        train, others: the contributions of the shards of train, and of val and test.
        was_reckoned: whether there are as many train rows before each shard as were reckoned with.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._numbered, *later = numbered_passes(transforms) or [[]]
        self._is_only, self._may_refuse = not later, may_refuse(transforms)
        self.group = tuple(transform for _, transform in self._numbered)
        self.train: Contributions = [{} for _ in self.group]
        self.others = self.train
        self.was_reckoned = True
        self._num_rows = 0

    def add(self, split: str, contributed: Contributions | None, num_rows: int, rows_before: int) -> None:
        """The next shard, in shard order; `rows_before` is what it was reckoned with."""
        more = [] if contributed is None else [contributed]
        if split != "train":
            self.others = summed(self.group, (self.others, *more))
            return
        self.train = summed(self.group, (self.train, *more))
        self.was_reckoned &= rows_before <= self._num_rows
        self._num_rows += num_rows

    def takes_others(self, fitted: FittedTransforms) -> bool:
        """Whether what val and test contributed shows that all of their rows are taken; False: they must be tried.

        Raises:
            DataError: a value is refused.
        """
        if not self._may_refuse:
            return True
        if not self._is_only:
            return False
        for (number, transform), by_column in zip(self._numbered, self.others, strict=True):
            kind = KINDS[transform.kind]
            if not kind.refuses(transform) or not kind.needs_rows(transform):
                continue  # what is refused without being fitted was refused when the contribution was taken
            if not kind.distinct or any(contribution.num_missing for contribution in by_column.values()):
                return False
            for name, contribution in by_column.items():
                values = sorted(contribution.partial)
                text = bool(values) and isinstance(values[0], str)
                given = pa.array(values, pa.string()) if text else np.array(values, float)
                ready(fitted.state()[number], name).apply(given)
        return True


# --- one shard -------------------------------------------------------------------------------------------------------


class _Passing:
    """A column of one shard on its way through a pass; nothing is computed that no transform reads."""

    def __init__(self, values: Any, *steps: Callable[[Any], Values]) -> None:
        self._values = values
        self._steps = list(steps)
        self._gap_B: np.ndarray | None = None

    def then(self, step: Callable[[Any], Values]) -> None:
        self._steps.append(step)

    def read(self) -> Values:
        while self._steps:
            self._values = self._steps.pop(0)(self._values)
        return self._values

    @property
    def encoded(self) -> pa.DictionaryArray | None:
        """Encoded text that nothing has read yet."""
        return self._values if isinstance(self._values, pa.DictionaryArray) else None

    def each_once(self, encoded: pa.DictionaryArray) -> Values:
        """`read` of the distinct values alone: a step looks at every row for itself."""
        values: Any = encoded.unique().dictionary_decode()
        for step in self._steps:
            values = step(values)
        return values

    def leave_out_missing(self) -> None:
        if self._gap_B is None:
            values = self.read()
            self._gap_B = base.is_missing(values)
            self._values = base.some(values, ~self._gap_B)

    def first(self, limit: int | None) -> tuple[Values, int, int]:
        """Values of the shard's first rows, how many rows these are, and how many of them have no value."""
        values = self.read()
        if self._gap_B is None:
            return values[:limit], len(values[:limit]), 0
        gap_B = self._gap_B[:limit]
        num_missing = int(gap_B.sum())
        return values[: len(gap_B) - num_missing], len(gap_B), num_missing


def _contribution(
    kind: type[TransformKind], transform: Transform, name: str, column: _Passing, rows_before: int
) -> Contribution:
    limit = kind.enough_rows(transform)
    if limit is not None and rows_before >= limit:
        limit = 0
    if kind.distinct and limit is None and (encoded := column.encoded) is not None:
        return Contribution(len(encoded), 0, kind.partial(transform, column.each_once(encoded), name))
    values, num_rows, num_missing = column.first(limit)
    return Contribution(num_rows, num_missing, kind.partial(transform, values, name))


# --- all shards ------------------------------------------------------------------------------------------------------


def _both(transform: Transform, name: str, first: Contribution, second: Contribution) -> Contribution:
    kind = KINDS[transform.kind]
    limit = kind.enough_rows(transform)
    if limit is not None and first.num_rows >= limit:
        return first
    return Contribution(
        first.num_rows + second.num_rows,
        first.num_missing + second.num_missing,
        kind.combine(transform, first.partial, second.partial, name),
    )


def _fitted(
    transform: Transform, of_all: Mapping[str, Contribution], fills: dict[str, Values]
) -> dict[str, base.Fitted]:
    """What is fitted for each column; `fills` follows what a value filled in this pass becomes (one row a column)."""
    kind = KINDS[transform.kind]
    fitted: dict[str, base.Fitted] = {}
    for name in state_keys(transform):
        needs_rows = kind.needs_rows(transform)
        whole = None
        if needs_rows:
            whole = _with_fills(transform, name, of_all.get(name), fills.get(name))
        fitted[name] = kind.finish(transform, whole, name)
        if kind.fills and name not in fills:
            fill = fitted[name]["fill"]
            fills[name] = pa.array([fill]) if isinstance(fill, str) else np.array([fill], np.float64)
        elif name in fills and not needs_rows:
            state = {**unfitted(transform), "columns": {name: fitted[name]}}
            fills[name] = ready(state, name).apply(fills[name])
    return fitted


def _with_fills(transform: Transform, name: str, of_all: Contribution | None, fill: Values | None) -> Any:
    """The partial of all rows, behind those that have a value those that were filled.

    Raises:
        DataError: there are no rows.
    """
    if of_all is None:
        raise base.nothing_to_fit(transform, name)
    kind = KINDS[transform.kind]
    whole = of_all.partial
    for start in range(0, of_all.num_missing, COPIES):
        assert fill is not None
        copies = base.repeated(fill, min(COPIES, of_all.num_missing - start))
        whole = kind.combine(transform, whole, kind.partial(transform, copies, name), name)
    return whole
