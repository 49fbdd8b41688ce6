"""Text in columns of numbers: which texts, in which rows, and what the pipeline file can say of them.

One stray text makes a whole column text.  Blocks are only looked at once that has stopped the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import ray

from raypipe.data.table import columns
from raypipe.data.table.declared import TEXT_DTYPES, dtype_of
from raypipe.data.table.problems import NeedsNumbers, each, together
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import CsvSource, JsonlSource

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
DECIMAL_COMMA = r"^\s*[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+\s*$"

MAX_OTHERS = 1000
"""Different texts that are counted one by one."""

NUM_SHOWN = 5
"""Texts in a message."""

SHOWN_TEXT = 40

MIN_FRAC = 0.5
"""A column is one of numbers where at least this share of its values are."""

MIN_CATEGORIES = 20
MANY_FRAC = 0.9
"""Encoded text is called numbers where it has so many categories, and at least this share of them are."""


@dataclass
class TextTally:
    """The values of one column of text.

    Attributes:
        num_commas: numbers written with a decimal comma.
        others: text that is no number -> rows, and the first row (from 0).
    """

    num_values: int = 0
    num_numbers: int = 0
    num_commas: int = 0
    others: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_of_numbers(self) -> bool:
        """Whether most values are numbers, however they are written."""
        return self.num_numbers + self.num_commas >= max(1, MIN_FRAC * self.num_values)

    def add(self, later: TextTally, rows_before: int) -> None:
        """Take what later rows hold."""
        self.num_values += later.num_values
        self.num_numbers += later.num_numbers
        self.num_commas += later.num_commas
        for text, (count, first) in later.others.items():
            if text in self.others or len(self.others) < MAX_OTHERS:
                before, earliest = self.others.get(text, (0, rows_before + first))
                self.others[text] = (before + count, earliest)


def look(block: pa.Table, names: Sequence[str]) -> tuple[dict[str, TextTally], int]:
    """Tally those of the columns that hold text in this block, and count its rows."""
    held = columns.by_name(block)
    there = [name for name in names if name in held and columns.is_text(held[name].type)]
    return {name: _tally(held[name]) for name in there}, block.num_rows


def _tally(column: pa.ChunkedArray) -> TextTally:
    values = column.cast(pa.string()).combine_chunks()
    counted = pc.value_counts(values.drop_null())
    texts, counts = counted.field("values"), counted.field("counts").to_numpy(zero_copy_only=False)
    number = pc.match_substring_regex(texts, NUMBER).to_numpy(zero_copy_only=False)
    comma = pc.match_substring_regex(texts, DECIMAL_COMMA).to_numpy(zero_copy_only=False) & ~number
    odd = np.flatnonzero(~number)
    odd = odd[np.argsort(-counts[odd], kind="stable")][:MAX_OTHERS]
    wanted = texts.take(pa.array(odd))
    place = pc.index_in(values, value_set=wanted).fill_null(-1).to_numpy(zero_copy_only=False)
    places, first = np.unique(place, return_index=True)
    firsts = dict(zip(places.tolist(), first.tolist(), strict=True))
    others = {
        text: (int(counts[where]), firsts[i])
        for i, (text, where) in enumerate(zip(wanted.to_pylist(), odd.tolist(), strict=True))
    }
    return TextTally(len(values) - values.null_count, int(counts[number].sum()), int(counts[comma].sum()), others)


def explained(error: DataError, tallies: Mapping[str, TextTally], spec: DataSpec) -> DataError:
    """The error, where columns of numbers hold stray text with what that text is and what to do about it.

    Args:
        tallies: of the columns that NeedsNumbers errors name, over all rows.
    """
    problems: list[DataError] = []
    for problem in each(error):
        tally = tallies.get(problem.column) if isinstance(problem, NeedsNumbers) else None
        if tally is not None and tally.is_of_numbers:
            problem = _explained(problem, tally, spec)
        elif tally is not None and (dtype := _dtype_of(tally)) and isinstance(spec.source, CsvSource):
            problem = _declared(problem, tally, dtype)
        problems.append(problem)
    return together(problems)


def _dtype_of(tally: TextTally) -> str | None:
    """What all texts of a column without numbers can be, in a word of `dtypes`; None where that is nothing."""
    return None if tally.num_numbers else dtype_of(pa.array([*tally.others][:MAX_OTHERS], pa.string()))


def _declared(problem: DataError, tally: TextTally, dtype: str) -> NeedsNumbers:
    assert isinstance(problem, NeedsNumbers)
    shown = ", ".join(map(_quoted, [*tally.others][:NUM_SHOWN]))
    return NeedsNumbers(
        f"{problem.message}; its values are {TEXT_DTYPES[dtype]}: {shown}",
        f"set data.source.dtypes: {{{problem.column}: {dtype}}}; or {problem.hint}",
        problem.column,
    )


def wanted(error: DataError) -> list[str]:
    """The columns whose text should be looked at."""
    return list(dict.fromkeys(problem.column for problem in each(error) if isinstance(problem, NeedsNumbers)))


def _explained(problem: DataError, tally: TextTally, spec: DataSpec) -> DataError:
    assert isinstance(problem, NeedsNumbers)
    shown = sorted(tally.others.items(), key=lambda item: (-item[1][0], item[1][1]))[:NUM_SHOWN]
    listed = ", ".join(f"{_quoted(text)} in {count} row(s), first row {first + 1}" for text, (count, first) in shown)
    more = f", and {len(tally.others) - len(shown)} other texts" if len(tally.others) > len(shown) else ""
    is_comma = tally.num_commas > tally.num_numbers
    remedy = _remedy(problem.column, [text for text, _ in shown], is_comma, spec)
    what = "are numbers with a decimal comma" if is_comma else "are numbers"
    count = tally.num_commas if is_comma else tally.num_numbers
    message = f"{problem.message}; {count} of its {tally.num_values} values {what}, the others are {listed}{more}"
    if is_comma:
        message = f"{problem.message}; {count} of its {tally.num_values} values {what}: {listed}{more}"
    return NeedsNumbers(message, remedy, problem.column)


def _remedy(name: str, texts: Sequence[str], is_comma: bool, spec: DataSpec) -> str:
    source, is_target = spec.source, name in spec.targets
    if isinstance(source, CsvSource) and is_comma and source.decimal_point is None:
        return (
            "set data.source.decimal_point: ',' (and data.source.delimiter: ';' where that divides the values), or "
            "data.source.thousands: ',' where the comma stands between thousands"
        )
    as_bad = f"data.source.dtypes: {{{name}: float64}}, which makes every such row a bad row (data.bad_rows.max_frac)"
    if isinstance(source, CsvSource):
        nulls = json.dumps(list(dict.fromkeys([*source.null_values, *texts])), ensure_ascii=False)
        fill = "its rows are then bad rows" if is_target else f"and add an `impute` transform for '{name}'"
        return f"if they mean 'no value', set data.source.null_values: {nulls} {fill}; or set {as_bad}"
    if isinstance(source, JsonlSource):
        return f"write the numbers of '{name}' without quotes, and null where there is none; or set {as_bad}"
    return f"write '{name}' as a column of numbers, with null where there is none"


def encoded_numbers(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each column that fitted transforms encode as categories though it seems to hold numbers."""
    fitted = [
        (name, fitted_column.get("categories")) for state in states for name, fitted_column in state["columns"].items()
    ]
    lines = (_among_categories(name, categories) for name, categories in fitted if categories)
    return [line for line in lines if line is not None]


def _among_categories(name: str, categories: Sequence[Any]) -> str | None:
    """What to say of categories of text that are numbers almost all; None where they are not, or all are."""
    if len(categories) < MIN_CATEGORIES or not isinstance(categories[0], str):
        return None
    tally = _tally(pa.chunked_array([pa.array(categories, pa.string())]))
    num_numbers = tally.num_numbers + tally.num_commas
    if not tally.others or num_numbers < MANY_FRAC * len(categories):
        return None
    is_comma = tally.num_commas > tally.num_numbers
    odd = (
        " with a decimal comma" if is_comma else f", the others {', '.join(map(_quoted, [*tally.others][:NUM_SHOWN]))}"
    )
    return (
        f"{num_numbers} of the {len(categories)} categories of '{name}' are numbers{odd}: if it is a column of "
        "numbers, do not encode it, and name the texts that mean 'no value' in data.source.null_values, or its type in "
        "data.source.dtypes"
    )


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= SHOWN_TEXT else repr(text[:SHOWN_TEXT]) + "..."


look_task: Any = ray.remote(look)
