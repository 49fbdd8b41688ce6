"""One type a column for all tables of a source, and what is done where tables disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from raypipe.data.table import columns
from raypipe.data.table.columns import ColumnKind
from raypipe.errors import DataError
from raypipe.spec.sources import CsvSource, JsonlSource, SourceSpec

S = TypeVar("S", bound=SourceSpec)


class MixedTypes(DataError):
    """A column that is a number in one place and text in another.

    Args:
        column: its name; reading it as text (`dtypes`) brings the places together, where the format has that field.
    """

    def __init__(self, message: str, hint: str = "", column: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, column)
        self.column = column


def common_kinds(kinds_of_tables: Sequence[dict[str, ColumnKind]], owners: Sequence[str]) -> dict[str, ColumnKind]:
    """One kind a column over all tables, in order of appearance.

    Args:
        kinds_of_tables: column -> kind, one a table.
        owners: the file of each table.
    Raises:
        MixedTypes: two tables disagree; names both files and types.
    """
    agreed = OneType()
    for kinds, owner in zip(kinds_of_tables, owners, strict=True):
        agreed.add(kinds, owner)
    return agreed.kinds


class OneType:
    """One kind a column over all tables seen, and the file that first said so."""

    def __init__(self) -> None:
        self.kinds: dict[str, ColumnKind] = {}
        self._first: dict[str, tuple[str, ColumnKind]] = {}
        self._text: dict[str, pa.DataType] = {}

    def add(self, kinds: Mapping[str, ColumnKind], owner: str) -> None:
        """Take what a table holds. Raises MixedTypes."""
        for name, kind in kinds.items():
            both = columns.common([self.kinds.get(name, ColumnKind("null")), kind])
            if both is None:
                other, other_kind = self._first[name]
                raise MixedTypes(
                    f"column '{name}' holds {other_kind} in {other} but {kind} in {owner}; "
                    "a column has one type in all files",
                    f"make '{name}' the same in all files, leave it out with data.source.columns, or, for CSV and "
                    "JSON lines, say what it is with data.source.dtypes",
                    name,
                )
            self.kinds[name] = both
            if kind.dtype != "null":
                self._first.setdefault(name, (owner, kind))

    def add_types(self, schema: pa.Schema) -> None:
        """How the first table with text keeps it, plain or ENCODED, all later ones do."""
        for field in schema:
            if columns.kind(field.type) == ColumnKind("string"):
                self._text.setdefault(field.name, field.type)

    def tensors(self) -> list[str]:
        """Columns that every table must have: Arrow has no null tensor."""
        return [name for name, kind in self.kinds.items() if _is_tensor(kind)]

    def apply(self, table: pa.Table) -> pa.Table:
        """The table with all columns, each of the kind agreed on; it has all `tensors`."""
        arrays = {}
        there = columns.by_name(table)
        for name, kind in self.kinds.items():
            if _is_tensor(kind):
                arrays[name] = there[name]
                continue
            wanted = self._text.get(name, columns.arrow_type(kind))
            column = there[name] if name in there else pa.nulls(table.num_rows)
            if column.type != wanted:
                column = column.cast(columns.arrow_type(kind), safe=False)
                column = column.dictionary_encode() if wanted == columns.ENCODED else column
            arrays[name] = column
        return pa.table(arrays) if arrays else table


def _is_tensor(kind: ColumnKind) -> bool:
    return kind.form.startswith("[")


def as_text(source: S, column: str) -> S | None:
    """The source with one more column declared as text; None where it is declared, or cannot be."""
    if not isinstance(source, CsvSource) or column in source.dtypes:
        return None
    return source.model_copy(update={"dtypes": {**source.dtypes, column: "string"}})


class MixedSource(CsvSource):
    """A CSV source read again, some columns as text because they hold numbers in one place and text in another."""

    mixed: tuple[str, ...] = ()
    """Nobody declared these, so the files need not have them."""


class AskedJsonl(JsonlSource):
    """A JSON lines source of which it is known what is asked for."""

    asked: tuple[str, ...]
    """Fields that something names."""
    others_matter: bool
    """Whether a value of an odd type in any other field makes a bad row; else such a field is left out."""


def read_as_mixed(source: SourceSpec, column: str) -> MixedSource | None:
    """The source with a column that MixedTypes names read as text; None where that is no remedy."""
    as_text_too = as_text(source, column)
    if as_text_too is None:
        return None
    mixed = (*source.mixed, column) if isinstance(source, MixedSource) else (column,)
    return MixedSource.model_validate({**dict(as_text_too), "mixed": mixed})
