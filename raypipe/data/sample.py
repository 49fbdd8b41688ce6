"""The first rows of a source and what they hold, read as `prepare` reads them but in this process, without Ray's tasks.

For who wants to know what data is before there is a pipeline file.  n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.formats import FORMATS
from raypipe.data.formats.base import ANYTHING
from raypipe.data.formats.datasource import BLOCK_BYTES, FilesDatasource, read_group
from raypipe.data.masking import UNMASKED
from raypipe.data.profile import parts as profiles
from raypipe.data.profile.profile import finish
from raypipe.data.table import columns
from raypipe.data.table.marks import BAD, left_out
from raypipe.data.table.one_type import MixedTypes, read_as_mixed
from raypipe.data.table.row_hash import Values, row_hash
from raypipe.errors import DataError
from raypipe.records import ColumnProfile
from raypipe.spec.sources import SourceSpec

MAX_PARTS = 8
"""Files, or ranges of a large one, that are looked into, evenly spread over all."""


@dataclass(frozen=True)
class Sample:
    """Some rows of a source.

    Attributes:
        num_rows: of the sample; num_bad: rows beside them that cannot be read.
        about_rows: of the whole source, about.
        columns: what each column holds, in the order of the files.
        left_out: columns that cannot be read -> what is wrong with them.
        first: the first row that has a value in every column, else the first row.
    """

    num_rows: int
    num_bad: int
    about_rows: int
    columns: tuple[ColumnProfile, ...]
    left_out: dict[str, str]
    first: dict[str, Any]

    @property
    def is_all(self) -> bool:
        """Whether these are all rows."""
        return self.num_rows + self.num_bad >= self.about_rows


def read_sample(source: SourceSpec, root: str) -> Sample:
    """The rows of the first 64 MiB, or of as much of each of some files.

    Args:
        root: what relative paths start from.
    Raises:
        DataError: nothing is there, or it cannot be read.
    """
    given: Any = source
    source, _ = FORMATS[given.format].recognised([given], root, UNMASKED, ANYTHING, None)
    while True:
        try:
            return _read(source, root)
        except MixedTypes as error:
            as_mixed = read_as_mixed(source, error.column)
            if as_mixed is None:
                raise
            source = as_mixed


def _read(source: Any, root: str) -> Sample:
    form = FORMATS[source.format]
    parts, read_part = form.plan(source, root, UNMASKED, is_judged=True)
    tables = [
        next(read_group([part], read_part, source.columns, source.where, UNMASKED, is_judged=True))
        for part in spread(parts, MAX_PARTS)
    ]
    num_read = sum(table.num_rows for table in tables)
    if not num_read:
        raise DataError(f"{source.places_text} holds no rows", "name files that hold data")
    about = num_read
    if len(tables) < len(parts) or any(table.nbytes >= BLOCK_BYTES for table in tables):
        files = FilesDatasource(parts, read_part, source, UNMASKED, is_judged=True)
        about = max(num_read, form.estimated_rows(files, source) or 0)
    unreadable = {name: what for table in tables for name, what in left_out(table.schema).items()}
    whole = pa.concat_tables([_good(table) for table in tables if table.num_rows], promote_options="permissive")
    values = _all_values(whole)
    others = [name for name in whole.column_names if name not in values]
    unreadable |= dict.fromkeys(others, "holds lists of uneven length, or no numbers")
    if not values or not whole.num_rows:
        raise DataError(f"{source.places_text} holds no row that can be read", _why(tables))
    plain = {name: column for name, column in values.items() if not isinstance(column, np.ndarray) or column.ndim == 1}
    ids = row_hash(plain) if plain else np.arange(whole.num_rows, dtype=np.uint64)
    described = finish(profiles.part(values, ids))
    return Sample(whole.num_rows, num_read - whole.num_rows, about, described, unreadable, _first(values))


def first_row(source: Any, root: str) -> dict[str, Any]:
    """The first row that can be read, JSON-able.

    Raises:
        DataError: none of the first can be.
    """
    parts, read_part = FORMATS[source.format].plan(source, root, UNMASKED, is_judged=True)
    table = next(read_group(parts[:1], read_part, source.columns, source.where, UNMASKED, is_judged=True))
    rows = _good(table).slice(0, 1)
    if not rows.num_rows:
        raise DataError(f"none of the first {table.num_rows} rows can be read", _why([table]))
    return _first(_all_values(rows))


def _why(tables: Sequence[pa.Table]) -> str:
    reasons = [text for table in tables if BAD in table.column_names for text in table[BAD].drop_null().to_pylist()]
    return str(reasons[0]) if reasons else ""


def _good(table: pa.Table) -> pa.Table:
    """The rows that could be read."""
    if BAD not in table.column_names:
        return table
    return table.filter(table[BAD].is_null()).drop_columns([BAD])


def _all_values(table: pa.Table) -> dict[str, Values]:
    """Of every column that can be computed with."""
    columns = zip(table.column_names, table.columns, strict=True)  # by name each would be looked for among all
    return {name: made for name, column in columns if (made := _values(column)) is not None}


def _values(column: pa.ChunkedArray) -> Values | None:
    """A column as it is computed with, missing numbers NaN; None where it is none of numbers, truth or text."""
    kind = columns.kind(column.type)
    if kind.dtype == "null":
        return np.full(len(column), np.nan)
    if kind.form:
        usual = columns.shapes(column).most_common(1)
        if kind.dtype not in columns.NUMBERS or not usual or 0 in usual[0][0]:
            return None
        return columns.tensors(column, kind.dtype, usual[0][0])[0]
    if kind.dtype == "string":
        return columns.strings(column)[0]
    return columns.scalars(column, "float64" if column.null_count else kind.dtype)[0]


def _first(values: dict[str, Values]) -> dict[str, Any]:
    present = np.logical_and.reduce([columns.present(column) for column in values.values()])
    row = int(np.argmax(present))
    return {name: _plain(column[row]) for name, column in values.items()}


def _plain(value: Any) -> Any:
    """One value as JSON has it; a missing one is None."""
    value = value.as_py() if isinstance(value, pa.Scalar) else value.tolist()
    return None if isinstance(value, float) and value != value else value


def spread(files: Sequence[Any], most: int) -> list[Any]:
    """So many of some files, evenly spread."""
    return [files[len(files) * i // most] for i in range(most)] if len(files) > most else list(files)
