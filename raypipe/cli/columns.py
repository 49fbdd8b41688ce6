"""What a dataset holds, column by column, and what of it is worth acting on: how `raypipe data` ends."""

from __future__ import annotations

from raypipe.cli.output import show, show_set_in, show_table
from raypipe.data.profile.meaning import meaning
from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import ColumnProfile, DataProfile, DatasetVersion, StageRecord
from raypipe.storage import Store
from raypipe.storage.documents import read_document

MAX_COLUMNS = 50
MAX_TOP = 3
MAX_VALUE_CHARS = 24


def show_columns(store: Store, dataset: StageRecord) -> None:
    """A row a column: what it was recognised as, missing values, what values there are; and a line a warning.

    No table where the profile is not there or damaged: who needs it says so.
    """
    assert isinstance(dataset, DatasetVersion)
    _show_table(store, dataset)
    if dataset.warnings:
        show("")
    for each in dataset.warnings:
        show_set_in("warning: ", each.text)


def _show_table(store: Store, dataset: DatasetVersion) -> None:
    if dataset.profile_key is None:
        return
    try:
        profile = read_document(store, dataset.profile_key, DataProfile)
    except (DocumentError, ObjectMissing):
        return
    show("")
    columns = profile.columns[:MAX_COLUMNS]
    warned = {name for each in dataset.warnings for name in each.columns}
    rows = [(*_row(column), meaning(column).text, _note(column, dataset, column.name in warned)) for column in columns]
    show_table(("column", "type", "missing", "values", "recognised as", "note"), rows)
    if left_out := len(profile.columns) - len(columns):
        show(f"and {left_out} more columns, in {dataset.profile_key}")


def _row(column: ColumnProfile) -> tuple[str, ...]:
    kind = column.dtype + (f" {list(column.shape)}" if column.shape else "")
    missing = f"{column.nulls / column.count:.1%}" if column.nulls and column.count else ""
    return column.name, kind, missing, _values(column)


def _values(column: ColumnProfile) -> str:
    """The range of numbers; of text and of few different values, the most frequent."""
    is_number = column.min is not None and column.max is not None
    if is_number and (column.shape or column.distinct is None or column.distinct > len(column.top[:MAX_TOP])):
        mean = "" if column.mean is None else f", mean {_short(column.mean)}"
        return f"{_short(column.min)} to {_short(column.max)}{mean}"
    top = ", ".join(f"{_short(each.value)} ({each.count})" for each in column.top[:MAX_TOP])
    more = "" if column.distinct is None or column.distinct <= MAX_TOP else f", ... {column.distinct} different"
    return top + more


def _note(column: ColumnProfile, dataset: DatasetVersion, is_warned: bool) -> str:
    targets = dataset.signature.targets
    notes = ["the target" if len(targets) == 1 else "a target"] if column.name in targets else []
    if dataset.weights is not None and column.name == dataset.weights.column:
        notes.append("how much a row counts")
    if column.infinite:
        notes.append(f"{column.infinite} infinite")
    return "; ".join([*notes, *(["see below"] if is_warned else [])])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
