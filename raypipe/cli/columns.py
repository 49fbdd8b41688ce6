"""What a dataset holds, column by column, as `raypipe data` ends with it."""

from __future__ import annotations

from raypipe.cli.output import show, show_table
from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import ColumnProfile, DataProfile, DatasetVersion, StageRecord
from raypipe.storage import Store
from raypipe.storage.documents import read_document

MAX_COLUMNS = 50
MAX_TOP = 3
MAX_VALUE_CHARS = 24


def show_columns(store: Store, dataset: StageRecord) -> None:
    """A row a column: type, missing values, what values there are, and what is odd about them.

    Nothing where the profile is not there or damaged: who needs it says so.
    """
    assert isinstance(dataset, DatasetVersion)
    if dataset.profile_key is None:
        return
    try:
        profile = read_document(store, dataset.profile_key, DataProfile)
    except (DocumentError, ObjectMissing):
        return
    show("")
    columns, target = profile.columns[:MAX_COLUMNS], dataset.signature.target
    show_table(("column", "type", "missing", "values", "note"), [_row(column, target) for column in columns])
    if left_out := len(profile.columns) - len(columns):
        show(f"and {left_out} more columns, in {dataset.profile_key}")


def _row(column: ColumnProfile, target: str) -> tuple[str, ...]:
    kind = column.dtype + (f" {list(column.shape)}" if column.shape else "")
    missing = f"{column.nulls / column.count:.1%}" if column.nulls and column.count else ""
    return column.name, kind, missing, _values(column), _note(column, target)


def _values(column: ColumnProfile) -> str:
    """The range of numbers; of text and of few different values, the most frequent."""
    is_number = column.min is not None and column.max is not None
    if is_number and (column.shape or column.distinct is None or column.distinct > len(column.top[:MAX_TOP])):
        mean = "" if column.mean is None else f", mean {_short(column.mean)}"
        return f"{_short(column.min)} to {_short(column.max)}{mean}"
    top = ", ".join(f"{_short(each.value)} ({each.count})" for each in column.top[:MAX_TOP])
    more = "" if column.distinct is None or column.distinct <= MAX_TOP else f", ... {column.distinct} different"
    return top + more


def _note(column: ColumnProfile, target: str) -> str:
    notes = ["the target"] if column.name == target else []
    there = column.count - column.nulls
    if column.count and not there:
        notes.append("nothing but missing values")
    elif column.distinct == 1:
        notes.append("one value only")
    elif column.dtype == "string" and column.distinct is not None and 1 < there == column.distinct:
        notes.append("every value is different")
    if column.infinite:
        notes.append(f"{column.infinite} infinite")
    return "; ".join(notes)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
