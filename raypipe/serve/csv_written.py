"""How CSV in a request is written: as machines do, or as the CSV files were that the model learned from.

The first line decides, once for a whole body, so that no cell is read by another rule than its neighbour.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.declared import PLAIN as PLAIN_NUMBERS
from raypipe.data.table.declared import TEXT_DTYPES, Written, as_type, plain_numbers, written_as
from raypipe.data.table.times import instants
from raypipe.data.table.written_dates import as_iso
from raypipe.records import Column, Reading, Signature

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


class Dialect(NamedTuple):
    """What divides cells, and what stands around them."""

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None


PLAIN = Dialect()


@dataclass(frozen=True)
class HowWritten:
    """How the cells of a body are written.

    Attributes:
        numbers: column -> how its numbers are written, where it is not as machines do.
        dates: column -> the format of its dates.
        words: column -> one of TEXT_DTYPES, where texts stand for its values.
    """

    dialect: Dialect = PLAIN
    numbers: Mapping[str, Written] = field(default_factory=dict)
    dates: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def plain(self, column: Column, cells: Sequence[str]) -> tuple[Sequence[str], list[int]]:
        """The cells as machines write them, and the rows that are not written as those of training were.

        Of those a machine might read something else than was meant.
        """
        name = column.name
        if column.dtype == "string":
            return (_dates(cells, self.dates[name]) if name in self.dates else cells), []
        if name in self.words:
            return _replaced(cells, _of_words(cells, self.words[name])), []
        if name not in self.numbers:
            return cells, []
        numbers = _of_numbers(cells, self.numbers[name])
        return _replaced(cells, numbers), [i for i, text in enumerate(numbers) if text is None and cells[i].strip()]


MACHINE = HowWritten()


def cells(text: str, dialect: Dialect) -> Iterator[list[str]]:
    """The cells of each line; raises csv.Error where it is none."""
    quoting: dict[str, Any] = {"quotechar": dialect.quote} if dialect.quote else {"quoting": csv.QUOTE_NONE}
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, strict=True, delimiter=dialect.delimiter, escapechar=dialect.escape, **quoting)


def how_of(text: str, signature: Signature) -> HowWritten:
    """How a body is written, by its first line and by how the model's files were."""
    reading = signature.reading
    if reading is None or reading.format != "csv":
        return MACHINE
    settings = reading.settings
    delimiter = settings.get("delimiter") or ","
    if delimiter == ",":  # then a point stands before fractions, or nobody knows what it is
        point = settings.get("decimal_point")
        has_comma = "," in (point.values() if isinstance(point, dict) else (point,))
        return MACHINE if has_comma else _as_learned(reading, PLAIN, signature)
    dialect = Dialect(delimiter, settings.get("quote", '"'), settings.get("escape"))
    return _as_learned(reading, dialect, signature) if _is_divided(text, dialect, signature) else MACHINE


def _is_divided(text: str, dialect: Dialect, signature: Signature) -> bool:
    """Whether the first line holds several cells, as many as the model has inputs, or names of inputs."""
    try:
        first = next((line for line in cells(text, dialect) if line), [])
    except csv.Error:
        return False
    names = {column.name for column in signature.inputs}
    return len(first) > 1 and (len(first) == len(names) or not names.isdisjoint(first))


def _as_learned(reading: Reading, dialect: Dialect, signature: Signature) -> HowWritten:
    settings = reading.settings
    signs, dtypes = settings.get("signs", {}), settings.get("dtypes", {})
    point, thousands = settings.get("decimal_point"), settings.get("thousands")
    numbers = {column.name: written_as(column.name, point, thousands, signs) for column in signature.inputs}
    dates = settings.get("date_format")
    return HowWritten(
        dialect,
        {name: how for name, how in numbers.items() if how != PLAIN_NUMBERS},
        dates if isinstance(dates, dict) else {},
        {name: dtype for name, dtype in dtypes.items() if dtype in TEXT_DTYPES},
    )


def _replaced(cells: Sequence[str], plain: Sequence[str | None]) -> list[str]:
    return [cell if text is None else text for cell, text in zip(cells, plain, strict=True)]


def _dates(cells: Sequence[str], written: str) -> list[str]:
    """Dates of a format as ISO 8601; what is that already stays, as clients send it who ask in JSON, too."""
    texts = pa.array(cells, pa.string())
    is_iso = ~instants(texts)[1]
    iso = as_iso(texts, written)[0].to_pylist()
    return _replaced(cells, [None if known else text for known, text in zip(is_iso.tolist(), iso, strict=True)])


def _of_words(cells: Sequence[str], dtype: str) -> list[str | None]:
    values = as_type(pa.array(cells, pa.string()), dtype)[0].to_pylist()
    return [None if value is None else str(value).lower() for value in values]


def _of_numbers(cells: Sequence[str], how: Written) -> list[str | None]:
    """Numbers as machines write them; the sign of the column may stand with them."""
    texts = pc.utf8_trim_whitespace(pa.array(cells, pa.string()))
    return pc.coalesce(plain_numbers(texts, how._replace(sign=None)), plain_numbers(texts, how)).to_pylist()
