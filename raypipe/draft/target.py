"""Which column of a table is predicted, and whether it is a class or a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from raypipe.data.checks.classes import MANY_CLASSES
from raypipe.data.profile.meaning import meaning
from raypipe.draft.written import flow, some
from raypipe.errors import SpecError, did_you_mean
from raypipe.records import ColumnProfile

NAMES = ("target", "label", "class", "y", "labels", "outcome", "output")
"""What targets are often called, the likeliest first."""

PREDICTABLE = ("true/false", "number", "category")
"""What a target may be."""

LAST_PART = re.compile(r"(.+?)(?:[_.\- ][^_.\- ]*|\d+)")
"""A name whose last part numbers or tells apart columns of one kind: `is_red`, `y2`."""

ROWS_PER_CLASS = 5
"""Fewer rows a class, on average, speak for a quantity."""

SHOWN_COLUMNS, SHOWN_TARGETS = 50, 10


class Target(NamedTuple):
    """What is predicted.

    Attributes:
        note: how it was found, for a comment; empty where the user named it.
        others: columns that look like targets too.
    """

    column: ColumnProfile
    task: Literal["classification", "regression"]
    note: str
    others: Sequence[ColumnProfile] = ()


def find_target(columns: Sequence[ColumnProfile], wanted: str | None) -> Target:
    """The column that is named, or called as targets are, or the last one.

    Raises:
        SpecError: there is no such column, or it holds nothing that can be predicted; lists the columns.
    """
    names = [column.name for column in columns]
    listed = f"the columns are {some(names, SHOWN_COLUMNS)}"
    if wanted is not None and wanted not in names:
        raise SpecError(f"--target: there is no column '{wanted}'{did_you_mean(wanted, names)}; {listed}")
    by_name = {name.casefold(): name for name in reversed(names)}
    called = next((by_name[name] for name in NAMES if name in by_name), None)
    name = wanted or called or names[-1]
    column = columns[names.index(name)]
    kind = meaning(column).kind
    if kind not in PREDICTABLE:
        found = f"'{name}', which is {'named' if wanted else 'named like one' if called else 'the last column'}, "
        raise SpecError(
            f"found no target: {found}holds {_described(column)}; {listed}", "name the column: --target NAME"
        )
    task = "classification" if is_class(column) else "regression"
    why = "for its name; --target says otherwise" if called else "as the last column; --target says otherwise"
    others = [other for other in columns if other is not column and _looks_like_a_target(other, column, called)]
    if wanted:
        return Target(column, task, "", [other for other in others if other.name.casefold() in NAMES])
    return Target(column, task, f"guessed {why}", others)


def others_lines(target: Target) -> list[str]:
    """Comments about columns that look like targets beside the one that was chosen; none where there are none."""
    if not target.others:
        return []
    columns = [target.column, *target.others]
    names = [column.name for column in columns]
    listed = f"target: {flow(names)}" if len(names) <= SHOWN_TARGETS else "target: [...]"
    way = "a file predicts one of them"
    if all(map(_is_true_false, columns)):
        way = f"task: multi_label predicts several, {listed}"
    elif target.task == "regression" and all(meaning(column).kind == "number" for column in columns):
        way = f"task: regression predicts several, {listed}"
    is_one = len(target.others) == 1
    return [
        f"# {some(names[1:])} look{'s' if is_one else ''} like {'a target' if is_one else 'targets'} too: {way};",
        f"# here {'it is a feature' if is_one else 'they are features'}, so leave out of features what is not known "
        "before the target is",
    ]


def _looks_like_a_target(column: ColumnProfile, target: ColumnProfile, called: str | None) -> bool:
    if meaning(column).kind not in PREDICTABLE:
        return False
    if column.name.casefold() in NAMES:
        return True
    own, others = (LAST_PART.fullmatch(each.name) for each in (column, target))
    is_alike = own is not None and others is not None and own[1] == others[1]
    return is_alike and called is None and (_is_true_false(column) or not _is_true_false(target))


def _is_true_false(column: ColumnProfile) -> bool:
    """Whether it can be one of several labels: true and false, or 0 and 1 in each row."""
    is_whole = column.dtype.startswith(("int", "uint"))
    return column.dtype == "bool" or (is_whole and (column.min, column.max) == (0, 1))


def is_class(column: ColumnProfile) -> bool:
    """Whether the values are names of classes: text, truth, or few different whole numbers."""
    if column.dtype in ("string", "bool"):
        return True
    if meaning(column).text != "whole number" or column.distinct is None:
        return False
    return column.distinct < MANY_CLASSES and column.counted >= ROWS_PER_CLASS * column.distinct


def _described(column: ColumnProfile) -> str:
    kind = meaning(column).kind
    return {
        "no value": "no value",
        "one value": "one value in all rows",
        "row number": "the number of each row",
        "identifier": "a name of each row",
        "date": "dates",
        "text": "text that hardly ever repeats",
        "array": "arrays",
    }.get(kind, kind)
