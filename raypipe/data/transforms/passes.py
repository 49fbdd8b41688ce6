"""Which transforms are fitted in which pass over train, and whether they fit their columns; no row is read here."""

from __future__ import annotations

from collections.abc import Sequence

from raypipe.data.table.problems import Problems
from raypipe.data.transforms import KINDS, base
from raypipe.records import Column
from raypipe.spec.transforms import Transform

Numbered = tuple[int, Transform]
"""A transform, or some of its columns, and its place among all."""


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
                    if not kind.takes_lists:
                        base.need_one_text(transform, column)
                    after = kind.check(transform, column)
                    now[name] = column if kind.joint else after
        if kind.joint and not getattr(transform, "keep", True):
            left_out.update(transform.columns)
    for column in now.values():
        if column.dtype == "string" and column.name not in left_out:
            problems.add(base.still_text(column))
    problems.refuse()


def numbered_passes(transforms: Sequence[Transform]) -> list[list[Numbered]]:
    """What each pass over train fits, in order, and what needs no rows."""
    passes: list[list[Numbered]] = []
    left = list(enumerate(transforms))
    while left:
        now, left = _next_pass(left)
        passes.append(now)
    return passes


def has_enough(transform: Transform) -> bool:
    """Whether some train rows may be enough to fit it, so that rows are left out; see `rows_before`."""
    return KINDS[transform.kind].enough_rows(transform) is not None


def may_refuse(transforms: Sequence[Transform]) -> bool:
    """Whether rows that fit the schema may still be refused, so that val and test should be tried; train has been."""
    return any(KINDS[transform.kind].refuses(transform) for transform in transforms)


def may_refuse_of_train(transforms: Sequence[Transform]) -> bool:
    """Whether rows may be refused that all were fitted on."""
    return any(KINDS[transform.kind].refuses_of_train(transform) for transform in transforms)


def reads_rows(transform: Transform) -> bool:
    """Whether fitting it, or seeing that it refuses none, takes a pass over the rows."""
    kind = KINDS[transform.kind]
    return kind.needs_rows(transform) or kind.refuses(transform)


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
        ready = set(ready_names)
        waiting = [name for name in transform.columns if name not in ready]
        for names, these in ((ready_names, now), (waiting, later)):
            if names:
                these.append((number, transform.model_copy(update={"columns": names})))
        unknown.update(waiting)
        if kind.fills:
            filled.update(ready_names)
        elif kind.needs_rows(transform) and not kind.joint:
            unknown.update(ready_names)
    return now, later
