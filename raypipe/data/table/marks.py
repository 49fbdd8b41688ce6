"""What a block says of its rows and columns beside their values: in its schema metadata, and in a column of marks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from raypipe.errors import DataError

NOT_UTF8 = "is no UTF-8 text"
UNREAD = "it could not be read"
"""How the reasons of formats read, or a part of them that they share."""

FILE_KEY = b"raypipe.file"
"""Schema metadata: the first file of a block, named in messages."""


ABSENT_KEY = b"raypipe.absent"
"""Schema metadata, JSON: columns asked for by name that no row of a block has; they hold nulls where they are kept."""


LEFT_OUT_KEY = b"raypipe.left_out"
"""Schema metadata, JSON: columns that nobody asked for by name and that cannot be read -> what is wrong with them."""


ZEROS_KEY = b"raypipe.leading_zeros"
"""Schema metadata, JSON: column that is read as numbers -> a value of it that was written with leading zeros."""


NOTES_KEY = b"raypipe.notes"
"""Schema metadata, JSON: see Notes."""

Notes = dict[str, tuple[int, str]]
"""What is worth telling of how rows were read -> how many, and the name of the first; the name may be empty."""


BAD = "__bad"
"""Column of text that formats add for rows they could not read: why, or null; other columns hold there what could be
read of the row, which may be a guess, or null or 0."""


def absent(schema: pa.Schema) -> frozenset[str]:
    """The columns that were asked for by name and that no row of a block has."""
    return frozenset(json.loads((schema.metadata or {}).get(ABSENT_KEY, b"[]")))


def left_out(schema: pa.Schema) -> dict[str, str]:
    """The columns of a file that are not in the table because they cannot be read -> what is wrong with them."""
    return json.loads((schema.metadata or {}).get(LEFT_OUT_KEY, b"{}"))


def with_left_out(table: pa.Table, unusable: Mapping[str, str]) -> pa.Table:
    """The table, which tells that these columns are left out."""
    all_left_out = left_out(table.schema) | dict(unusable)
    metadata = table.schema.metadata or {}
    return (
        table.replace_schema_metadata({**metadata, LEFT_OUT_KEY: json.dumps(all_left_out)}) if all_left_out else table
    )


def leading_zeros(schema: pa.Schema) -> dict[str, str]:
    """Columns of whole numbers that were written with leading zeros, each with such a value."""
    return json.loads((schema.metadata or {}).get(ZEROS_KEY, b"{}"))


def with_bad(table: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """The table with the rows that could not be read marked; unchanged when there are none, and it has columns.

    Args:
        reasons: row -> why it could not be read.
    """
    if not reasons and table.num_columns:
        return table
    marks = np.full(table.num_rows, None, object)
    for row, reason in reasons.items():
        marks[row] = reason
    return table.append_column(BAD, pa.array(marks, pa.string()))


def with_zeros(table: pa.Table, zeros: Mapping[str, str]) -> pa.Table:
    """The table with what `leading_zeros` tells."""
    if not zeros:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), ZEROS_KEY: json.dumps(zeros)})


def refuse_bad(table: pa.Table) -> pa.Table:
    """The table without its marks.

    Raises:
        DataError: a row could not be read; says which and why.
    """
    if BAD not in table.column_names:
        return table
    reasons = table[BAD].drop_null()
    if len(reasons):
        raise DataError(f"{len(reasons)} row(s) cannot be read: {reasons[0]}", "mend or remove them")
    return table.drop_columns([BAD])


def noted(notes: Notes, found: Iterable[str], name: str, num_rows: int = 1) -> None:
    """Count what was found in some more rows, of which `name` is the first."""
    for note in found:
        before, first = notes.get(note, (0, name))
        notes[note] = (before + num_rows, first)


def summed(some: Iterable[Mapping[str, tuple[int, str]]]) -> Notes:
    """The notes of several blocks, in their order."""
    total: Notes = {}
    for notes in some:
        for note, (num_rows, name) in notes.items():
            noted(total, [note], name, num_rows)
    return total


def notes_of(schema: pa.Schema) -> Notes:
    """What is worth telling of how a block's rows were read."""
    notes = json.loads((schema.metadata or {}).get(NOTES_KEY, b"{}"))
    return {note: (num_rows, name) for note, (num_rows, name) in notes.items()}


def with_notes(table: pa.Table, notes: Notes) -> pa.Table:
    """The table with what `notes_of` tells."""
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != NOTES_KEY}
    return table.replace_schema_metadata({**metadata, NOTES_KEY: json.dumps(notes)} if notes else metadata)


def note_lines(notes: Notes) -> list[str]:
    """For people: `3 pictures have a palette (the first: cat/1.png)`."""
    return [f"{num} {note}{f' (the first: {name})' if name else ''}" for note, (num, name) in notes.items()]
