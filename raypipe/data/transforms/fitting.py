"""Fitting transforms on train: what each shard contributes, merged in shard order.

No more than a shard is in memory at once, and the same shards give the same bits every time.  One pass over the shards
fits all that does not wait for another transform of the same column; what follows an `impute` does not wait for it: it
sees the rows that have a value, and learns of the others afterwards, as so many copies of the fill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.table.problems import Problems
from raypipe.data.transforms import KINDS, FittedTransforms, State, base
from raypipe.data.transforms.base import Kind, Values
from raypipe.data.transforms.fitted import ready
from raypipe.records import Column
from raypipe.spec.transforms import Transform


@dataclass(frozen=True)
class Share:
    """What one shard contributes to one column of one transform."""

    num_rows: int
    """Rows that were read: all, or the first that are enough."""
    num_missing: int
    """Those of them without a value, which an `impute` of the same pass fills; not in `found`."""
    found: Any
    """`Kind.partial` of the others."""


Partial = dict[str, Share]
"""Column name -> share, for one transform; empty where the transform needs no rows."""

RunShards = Callable[[FittedTransforms, Sequence[Transform]], list[list[Partial]]]
"""Given what is fitted already and the transforms to fit next: `partials` of every shard, in shard order."""

Numbered = tuple[int, Transform]
"""A transform, or some of its columns, and its place among all."""

COPIES = 2**16
"""Copies of a fill made at a time."""


def fit(transforms: Sequence[Transform], inputs: Sequence[Column], run: RunShards) -> FittedTransforms:
    """Fit all transforms, in as few passes over the train shards as their order allows.

    Raises:
        DataError: a transform does not fit its column or refuses a value of train, or there is nothing to fit on.
    """
    check_types(transforms, inputs)
    states = [_settings(transform) for transform in transforms]
    for now in _numbered_passes(transforms):
        group = [transform for _, transform in now]
        shards: list[list[Partial]] = []
        if any(_reads(transform) for transform in group):
            shards = run(FittedTransforms([state for state in states if state["columns"]]), group)
        fills: dict[str, Values] = {}
        for place, (number, transform) in enumerate(now):
            shares = [shard[place] for shard in shards]
            states[number]["columns"].update(_fitted(transform, shares, fills))
    for transform, state in zip(transforms, states, strict=True):
        state["columns"] = {name: state["columns"][name] for name in _names(transform)}
    return FittedTransforms(states)


def partials(
    before: FittedTransforms,
    group: Sequence[Transform],
    columns: Mapping[str, Any],
    inputs: Sequence[Column],
    *,
    rows_before: int = 0,
) -> list[Partial]:
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
    found: list[Partial] = []
    for transform in group:
        kind = KINDS[transform.kind]
        if kind.joint and not kind.needs_rows(transform):
            found.append({})
            continue
        read = [passing[name] for name in transform.columns]
        shares: Partial = {}
        if kind.joint:
            read = [_Passing(base.together([column.read() for column in read], transform.columns))]
        for name, column in zip(_names(transform), read, strict=True):
            if kind.needs_rows(transform):
                shares[name] = _share(kind, transform, name, column, rows_before)
                if kind.fills:
                    column.leave_out_missing()
            else:
                state = {**_settings(transform), "columns": {name: kind.merge(transform, [], name)}}
                column.then(ready(state, name).apply)
                if kind.refuses(transform):
                    column.read()
        found.append(shares)
    return found


def check_types(transforms: Sequence[Transform], inputs: Sequence[Column]) -> None:
    """Raise DataError unless every transform fits its columns and all text becomes numbers; reads no rows.

    All columns that do not fit are told together; of each, the first transform that refuses it.
    """
    now = {column.name: column for column in inputs}
    left_out: set[str] = set()
    problems = Problems()
    for transform in transforms:
        kind = KINDS[transform.kind]
        for name in transform.columns:
            column = now.pop(name, None)
            if column is not None:
                with problems.collected():
                    after = kind.check(transform, column)
                    now[name] = column if kind.joint else after
        if kind.joint and not getattr(transform, "keep", True):
            left_out.update(transform.columns)
    for column in now.values():
        if column.dtype == "string" and column.name not in left_out:
            problems.add(base.still_text(column))
    problems.refuse()


def passes(transforms: Sequence[Transform]) -> list[list[Transform]]:
    """What each pass over train fits, in order: the groups that `fit` hands to `run`, and those that need no rows."""
    return [[transform for _, transform in now] for now in _numbered_passes(transforms)]


def has_enough(transform: Transform) -> bool:
    """Whether some train rows may be enough to fit it, so that rows are left out; see `rows_before` of `partials`."""
    return KINDS[transform.kind].enough_rows(transform) is not None


def may_refuse(transforms: Sequence[Transform]) -> bool:
    """Whether rows that fit the schema may still be refused, so that val and test should be tried; train has been."""
    return any(KINDS[transform.kind].refuses(transform) for transform in transforms)


def try_partials(transforms: Sequence[Transform], fitted: FittedTransforms, others: Sequence[list[Partial]]) -> bool:
    """See by the partials of the first pass whether the rows of other splits hold a value the transforms refuse.

    Args:
        others: `partials` of every shard of val and test.
    Returns:
        Whether that told it for all rows; otherwise they must be tried themselves.
    Raises:
        DataError: a value is refused.
    """
    if len(_numbered_passes(transforms)) > 1:
        return False
    for place, (number, transform) in enumerate(_numbered_passes(transforms)[0]):
        kind = KINDS[transform.kind]
        if not kind.refuses(transform) or not kind.needs_rows(transform):
            continue  # what is refused without being fitted was refused when the partial was taken
        shares = [(name, share) for shard in others for name, share in shard[place].items()]
        if not kind.distinct or any(share.num_missing for _, share in shares):
            return False
        for name in transform.columns:
            values = set().union(*(share.found for of, share in shares if of == name))
            text = any(isinstance(value, str) for value in values)
            found = pa.array(sorted(values), pa.string()) if text else np.array(sorted(values), np.float64)
            ready(fitted.state()[number], name).apply(found)
    return True


# --- what goes into which pass ---------------------------------------------------------------------------------------


def _numbered_passes(transforms: Sequence[Transform]) -> list[list[Numbered]]:
    found: list[list[Numbered]] = []
    left = list(enumerate(transforms))
    while left:
        now, left = _next_pass(left)
        found.append(now)
    return found


def _next_pass(left: Sequence[Numbered]) -> tuple[list[Numbered], list[Numbered]]:
    """The transforms whose columns are known when the pass begins, and those that wait; one may be cut by column."""
    now: list[Numbered] = []
    later: list[Numbered] = []
    unknown: set[str] = set()
    filled: set[str] = set()
    for number, transform in left:
        kind = KINDS[transform.kind]
        ready_names = [name for name in transform.columns if name not in unknown]
        if kind.joint and (len(ready_names) < len(transform.columns) or filled.intersection(ready_names)):
            ready_names = []  # which row lacks a value matters here, not only how many do
        waiting = [name for name in transform.columns if name not in ready_names]
        for names, these in ((ready_names, now), (waiting, later)):
            if names:
                these.append((number, transform.model_copy(update={"columns": names})))
        unknown.update(waiting)
        if kind.fills:
            filled.update(ready_names)
        elif kind.needs_rows(transform) and not kind.joint:
            unknown.update(ready_names)
    return now, later


def _reads(transform: Transform) -> bool:
    kind = KINDS[transform.kind]
    return kind.needs_rows(transform) or kind.refuses(transform)


def _names(transform: Transform) -> list[str]:
    """Keys of the transform's `columns` in its state."""
    return [" x ".join(transform.columns)] if KINDS[transform.kind].joint else transform.columns


def _settings(transform: Transform) -> State:
    settings = transform.model_dump(mode="json", exclude={"columns"})
    reads = {"reads": list(transform.columns)} if KINDS[transform.kind].joint else {}
    return {**settings, **reads, "columns": {}}


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


def _share(kind: type[Kind], transform: Transform, name: str, column: _Passing, rows_before: int) -> Share:
    limit = kind.enough_rows(transform)
    if limit is not None and rows_before >= limit:
        limit = 0
    if kind.distinct and limit is None and (encoded := column.encoded) is not None:
        return Share(len(encoded), 0, kind.partial(transform, column.each_once(encoded), name))
    values, num_rows, num_missing = column.first(limit)
    return Share(num_rows, num_missing, kind.partial(transform, values, name))


# --- all shards ------------------------------------------------------------------------------------------------------


def _fitted(transform: Transform, shards: Sequence[Partial], fills: dict[str, Values]) -> dict[str, base.Fitted]:
    """What is fitted for each column; `fills` follows what a value filled in this pass becomes (one row a column)."""
    kind = KINDS[transform.kind]
    fitted: dict[str, base.Fitted] = {}
    for name in _names(transform):
        needs_rows = kind.needs_rows(transform)
        found = _in_order(kind, transform, name, [s[name] for s in shards], fills.get(name)) if needs_rows else []
        if needs_rows and not found:
            raise base.nothing_to_fit(transform, name)
        fitted[name] = kind.merge(transform, found, name)
        if kind.fills and name not in fills:
            fill = fitted[name]["fill"]
            fills[name] = pa.array([fill]) if isinstance(fill, str) else np.array([fill], np.float64)
        elif name in fills and not needs_rows:
            state = {**_settings(transform), "columns": {name: fitted[name]}}
            fills[name] = ready(state, name).apply(fills[name])
    return fitted


def _in_order(
    kind: type[Kind], transform: Transform, name: str, shares: Sequence[Share], fill: Values | None
) -> list[Any]:
    """The partials of as many shards as are enough; behind each those of the values that were filled in it."""
    limit = kind.enough_rows(transform)
    found: list[Any] = []
    num_rows = 0
    for share in shares:
        if limit is not None and num_rows >= limit:
            break
        num_rows += share.num_rows
        found.append(share.found)
        for start in range(0, share.num_missing, COPIES):
            assert fill is not None
            copies = base.repeated(fill, min(COPIES, share.num_missing - start))
            found.append(kind.partial(transform, copies, name))
    return found
