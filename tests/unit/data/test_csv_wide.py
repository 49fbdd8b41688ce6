"""CSV with more columns than rows: its numbers are read in fewer tries, to the same values and types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.formats import csv_parser
from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.csv_parser import Parser
from raypipe.data.formats.lines import line_ends
from raypipe.spec.sources import CsvSource
from tests.conftest import examples

KINDS = [
    st.integers(-(2**70), 2**70).map(str) | st.just(""),
    st.integers(-9, 9).map(str) | st.just("NA"),
    st.floats().map(repr) | st.just(""),
    st.integers(-9, 9).map(lambda number: f"{number}.0"),
    st.sampled_from(["", "NA", "  ", "-"]),
    st.sampled_from(["nan", "inf", "-inf", "1e400", "-0.0", "1e5", ".5", "5."]),
    st.sampled_from(["007", "+1", "0x1F", " 5", "5 ", "1_000", "1,5", "2020-01-02", "12:30", "true", "x"]),
    st.sampled_from(["0", "1", "1.5", "2.5", "-3", ""]),
]
"""How the cells of a column are written."""


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    kinds = draw(st.lists(st.sampled_from(KINDS[:6] + KINDS[7:]), min_size=2, max_size=8))
    kinds += draw(st.lists(st.sampled_from(KINDS), max_size=2))
    names = [f"x{place}" for place in range(len(kinds))]
    rows = [[draw(kind).replace(",", ";") for kind in kinds] for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        rows.append(["1"] * (len(kinds) + draw(st.sampled_from([-1, 1]))))
    return names, rows


@settings(max_examples=examples(200))
@given(tables(), st.sampled_from([{}, {"x0": "float64"}, {"x1": "string"}, {"x0": "int64"}]))
def test_wide_table_is_read_as_one_that_is_not(table: tuple[list[str], list[list[str]]], dtypes: dict[str, str]):
    names, rows = table
    data = "".join(",".join(row) + "\n" for row in rows).encode()
    source = CsvSource.model_validate({"format": "csv", "path": "x.csv", "dtypes": dtypes})

    def read(many_columns: int) -> tuple[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_parser, "MANY_COLUMNS", many_columns)
            found = Parser(names, "x.csv", source).parse(Chunk(data, line_ends(data)[0]))
        return str(found.schema), repr(found.to_pylist())

    assert read(0) == read(10**9)


def test_wide_table_of_numbers_is_not_inferred_column_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"x{place}" for place in range(600)]
    numbers = np.random.default_rng(0).normal(size=(3, 600)).round(3)
    data = "".join(",".join([*map(str, row[:-1]), "7"]) + "\n" for row in numbers.tolist()).encode()
    read_columns: list[int] = []
    read_csv = csv_parser.pacsv.read_csv

    def counted(file, read, parse, convert):
        untyped = set(convert.include_columns) - convert.column_types.keys()
        read_columns.append(len(untyped))
        return read_csv(file, read, parse, convert)

    monkeypatch.setattr(csv_parser.pacsv, "read_csv", counted)
    source = CsvSource.model_validate({"format": "csv", "path": "x.csv"})
    found = Parser(names, "x.csv", source).parse(Chunk(data, line_ends(data)[0]))
    assert sum(read_columns) == 1, "the column of sevens alone"
    assert str(found.schema.field("x599").type) == "int64" and str(found.schema.field("x0").type) == "double"
    np.testing.assert_array_equal(found["x5"].to_numpy(), numbers[:, 5])
