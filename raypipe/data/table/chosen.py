"""Which columns of a file with a schema are read, and what of it they become: one way for Parquet and Arrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raypipe.data.table import nested
from raypipe.data.table.marks import ABSENT_KEY, with_left_out
from raypipe.data.table.names import needed, unusable_columns, usable
from raypipe.spec.sources import SourceSpec


@dataclass(frozen=True)
class Chosen:
    """Columns of a file.

    Attributes:
        names: to read, as nested.flat_schema has them.
        asked: that the source asks for, keys of maps among them; None is all that can be read.
        left_out: columns that cannot be read -> what is wrong with them.
    """

    names: Sequence[str]
    asked: Sequence[str] | None
    left_out: Mapping[str, str]

    def table_of(self, read: pa.Table, file: str) -> pa.Table:
        """The chosen columns of what was read, which may hold others beside them in a struct.

        Raises:
            DataError: a row of a map has a key twice.
        """
        flat = nested.flattened(read.replace_schema_metadata())
        names = frozenset(self.names)
        flat = flat.select([i for i, name in enumerate(flat.column_names) if name in names])
        if not nested.maps_of(flat.schema):
            return with_left_out(flat, self.left_out)
        table = nested.with_keys(flat, self.asked, file)
        keys = [name for name in self.asked or () if name not in names]
        absent = [name for name in keys if table[name].null_count == table.num_rows]
        metadata = {ABSENT_KEY: json.dumps(absent)} if absent else None
        return with_left_out(table.replace_schema_metadata(metadata), self.left_out)


def chosen_columns(schema: pa.Schema, source: SourceSpec, file: str) -> Chosen:
    """The columns that a source needs of a file with this flat schema.

    Raises:
        MissingColumn, ColumnRefused: one that is asked for is not there, or cannot be read.
    """
    maps = nested.maps_of(schema)
    unusable = {name: what for name, what in unusable_columns(schema).items() if name not in maps}
    asked = needed(source)
    keys = [name for name in asked or () if any(name.startswith(f"{each}.") for each in maps)]
    whole = None if asked is None else nested.read_for(asked, maps)
    where = source.model_copy(update={"where": [each for each in source.where if each.column not in keys]})
    names = usable(whole, schema.names, unusable, where, file)
    return Chosen(names, asked, unusable if asked is None else {})
