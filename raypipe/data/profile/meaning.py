"""What a column is, as far as its values tell: what `raypipe data` shows and what `raypipe init --from` starts from."""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

from raypipe.records import ColumnProfile
from raypipe.spec.moments import microseconds

Kind = Literal[
    "no value", "one value", "true/false", "number", "row number", "identifier", "date", "category", "text", "array"
]

MIN_ROWS = 50
"""Of fewer rows it may be chance that no value repeats."""

COUNTING = 0.9
"""Share of the whole numbers between a column's smallest and largest that row numbers hold, each once."""

REPEATING = 0.5
"""Text with fewer different values than this share of its rows is a category."""

DIFFERENT = 0.95
"""The same share from which on values name rows, some of which are there twice."""

IDENTIFIER = re.compile(r"(.*[_\-. ])?(id|uuid|guid|key|idx|index|nr|no|row|rownum)|.*[a-z](Id|ID|Key|Nr|No)", re.ASCII)
"""Names of columns whose numbers name things."""


class Meaning(NamedTuple):
    """What a column is.

    Attributes:
        text: the same for people, with how many categories there are.
    """

    kind: Kind
    text: str


def meaning(column: ColumnProfile) -> Meaning:
    """What a column's values are, judged by its profile alone."""
    there = column.count - column.nulls
    if not there:
        return Meaning("no value", "no value")
    if column.shape:
        return Meaning("array", f"array {' x '.join(map(str, column.shape))}")
    if column.distinct == 1 and not column.nulls:
        return Meaning("one value", "one value")
    if column.dtype == "bool":
        return Meaning("true/false", "true/false")
    if column.dtype == "string":
        return _of_text(column, there)
    if counts_rows(column):
        return Meaning("row number", "row number")
    if _is_whole(column) and names_rows(column):
        return Meaning("identifier", "identifier")
    return Meaning("number", "whole number" if _is_whole(column) else "number")


def counts_rows(column: ColumnProfile) -> bool:
    """Whether the column holds whole numbers, each once, with hardly a gap between them."""
    num_values = column.count - column.nulls
    if column.shape or num_values < MIN_ROWS or column.infinite or not _is_whole(column) or not _is_different(column):
        return False
    assert column.min is not None and column.max is not None
    return num_values <= column.max - column.min + 1 <= num_values / COUNTING


def names_rows(column: ColumnProfile) -> bool:
    """Whether hardly a value repeats, and the column's name, or the form of its text, is that of a key."""
    if column.count - column.nulls < MIN_ROWS or column.shape or _share_different(column) < DIFFERENT:
        return False
    if column.dtype == "string":
        lengths = column.lengths
        is_code = lengths is not None and lengths.min == lengths.max and _share(column, r"\S*\d\S*") >= COUNTING
        return is_code and not _is_date(column)
    return _is_whole(column) and IDENTIFIER.fullmatch(column.name) is not None


def _of_text(column: ColumnProfile, there: int) -> Meaning:
    if _is_date(column):
        return Meaning("date", "date")
    if names_rows(column):
        return Meaning("identifier", "identifier")
    if _share_different(column) <= REPEATING or (there < MIN_ROWS and column.distinct is not None):
        return Meaning(
            "category", f"category of {column.distinct if column.distinct is not None else 'more than 1000'}"
        )
    return Meaning("text", "text")


def _is_different(column: ColumnProfile) -> bool:
    """Whether no value is there twice, among those that were counted."""
    return bool(column.top) and column.top[0].count == 1


def _share_different(column: ColumnProfile) -> float:
    """Different values, as a share of all that were counted."""
    if column.num_different is None or not column.counted:  # of an older profile
        return 1.0 if _is_different(column) else 0.0
    return column.num_different / column.counted


def _is_whole(column: ColumnProfile) -> bool:
    if column.dtype.startswith(("int", "uint")):
        return True
    values = [*column.grid, *(top.value for top in column.top)]
    return column.dtype.startswith("float") and bool(values) and all(_whole(value) for value in values)


def _whole(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value == math.floor(value)


def _is_date(column: ColumnProfile) -> bool:
    texts = [top.value for top in column.top]
    return bool(texts) and all(isinstance(text, str) and microseconds(text) is not None for text in texts)


def _share(column: ColumnProfile, pattern: str) -> float:
    """Of the most frequent texts, how many have this form."""
    return sum(re.fullmatch(pattern, str(top.value)) is not None for top in column.top) / max(1, len(column.top))
