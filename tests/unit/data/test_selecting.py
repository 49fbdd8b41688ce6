"""Rows chosen at the source: the same in every format, and what Parquet's statistics leave out held none of them."""

from __future__ import annotations

import math
import operator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.data.formats.datasource import read_group
from raypipe.data.formats.selecting import select_rows
from raypipe.data.table.marks import BAD, with_bad
from raypipe.errors import DataError
from raypipe.spec.sources import Condition
from tests.unit.data.helpers import reader, sized_file

NAN = float("nan")
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda a, b: a in b,
    "not_in": lambda a, b: a not in b,
}


def meets(value, op, wanted):
    """A second opinion, one value at a time."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    if op in ("is_null", "not_null"):
        return missing == (op == "is_null")
    return not missing and OPERATORS[op](value, wanted)


COLUMNS = {
    "i": (pa.int64(), st.integers(-3, 3)),
    "u": (pa.uint8(), st.integers(0, 3)),
    "f": (pa.float64(), st.sampled_from([-1.5, 0.0, 1.0, 2.0, NAN])),
    "g": (pa.float32(), st.sampled_from([-1.5, 0.0, 1.0, 2.0, NAN])),
    "s": (pa.string(), st.sampled_from(["", "a", "b", "ä"])),
    "t": (pa.bool_(), st.booleans()),
}
WANTED = {
    "i": st.integers(-4, 300) | st.sampled_from([0.5, 1.0]),
    "u": st.integers(-4, 300) | st.sampled_from([0.5, 1.0]),
    "f": st.integers(-2, 2) | st.sampled_from([0.5, -1.5]),
    "g": st.integers(-2, 2) | st.sampled_from([0.5, -1.5]),
    "s": st.sampled_from(["", "a", "c"]),
    "t": st.booleans(),
}


@st.composite
def conditions(draw):
    column = draw(st.sampled_from(list(COLUMNS)))
    allowed = [op for op in OPERATORS if column != "t" or op in ("==", "!=", "in", "not_in")]
    op = draw(st.sampled_from([*allowed, "is_null", "not_null"]))
    value = None
    if op in ("in", "not_in"):
        value = draw(st.lists(WANTED[column], min_size=1, max_size=3))
    elif op in OPERATORS:
        value = draw(WANTED[column])
    return Condition.model_validate({"column": column, "op": op, "value": value})


@st.composite
def tables(draw):
    num_rows = draw(st.integers(1, 12))
    values = {
        name: pa.array(draw(st.lists(st.none() | each, min_size=num_rows, max_size=num_rows)), kind)
        for name, (kind, each) in COLUMNS.items()
    }
    return pa.table({**values, "row": list(range(num_rows))})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selecting")


@given(tables(), st.lists(conditions(), max_size=3), st.integers(1, 12))
def test_rows_selected_are_those_that_meet_all_conditions_in_memory_and_from_parquet(folder, table, where, group_rows):
    rows = table.to_pylist()
    wanted = [row["row"] for row in rows if all(meets(row[c.column], c.op, c.value) for c in where)]
    assert select_rows(table, where, "f", BAD)["row"].to_pylist() == wanted
    path = folder / "f.parquet"
    pq.write_table(table, path, row_group_size=group_rows)
    read = reader("parquet", columns=["row"], where=[c.model_dump() for c in where])
    found = list(read_group([sized_file(path)], read, ["row"], where))
    assert [row for part in found for row in part["row"].to_pylist()] == wanted
    assert all(part.column_names == ["row"] for part in found)


def test_parquet_row_groups_that_cannot_match_are_not_read(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": list(range(100)), "b": ["x"] * 100}), tmp_path / "f.parquet", row_group_size=10)
    seen = []
    iter_batches = pq.ParquetFile.iter_batches  # still reads; which row groups is seen nowhere else
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, **k: seen.extend(k["row_groups"]) or iter_batches(self, **k)
    )
    where = [{"column": "a", "op": ">=", "value": 35}, {"column": "a", "op": "<", "value": 52}]
    list(reader("parquet", columns=["b"], where=where)(sized_file(tmp_path / "f.parquet")))
    assert seen == [3, 4, 5]


def test_rows_that_could_not_be_read_are_kept_for_nobody_knows_what_they_hold():
    table = with_bad(pa.table({"a": [1, None, 3]}), {1: "no row"})
    where = [Condition(column="a", op=">", value=2)]
    assert select_rows(table, where, "f", BAD).to_pylist() == [{"a": None, BAD: "no row"}, {"a": 3, BAD: None}]


@pytest.mark.parametrize(
    ("values", "op", "value", "found"),
    [
        ([1, 2], "==", "1", "int64"),
        (["a"], "<", 1, "string"),
        ([True], "==", 1, "bool"),
        ([True], "<", "a", "bool"),
        ([[1, 2]], "==", 1, "list of int64"),
    ],
)
def test_condition_that_does_not_fit_its_column_is_refused_with_both(values, op, value, found):
    with pytest.raises(DataError, match=rf"f: data\.source\.where asks for 'a' .* but the column holds {found}"):
        select_rows(pa.table({"a": values}), [Condition(column="a", op=op, value=value)], "f", BAD)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": "=="}, "takes one number or text"),
        ({"op": "<", "value": True}, "takes a number or text"),
        ({"op": "in", "value": []}, "takes a list that is not empty"),
        ({"op": "in", "value": 3}, "takes a list"),
        ({"op": "in", "value": [1, "x"]}, "mixes numbers, text or true/false"),
        ({"op": "is_null", "value": 3}, "takes no value"),
        ({"op": "like", "value": 3}, "Input should be '=='"),
    ],
)
def test_condition_that_makes_no_sense_is_refused_in_the_file(fields, message):
    with pytest.raises(ValidationError, match=message):
        Condition.model_validate({"column": "a", **fields})


def test_large_integers_are_compared_exactly():
    table = pa.table(
        {"a": pa.array([2**53, 2**53 + 1, None], pa.int64()), "b": pa.array([2**64 - 1, 1, 0], pa.uint64())}
    )
    (found,) = select_rows(table, [Condition(column="a", op="==", value=2**53 + 1)], "f", BAD).to_pylist()
    assert found["b"] == 1
    assert select_rows(table, [Condition(column="b", op=">", value=-1)], "f", BAD).num_rows == 3
    assert select_rows(table, [Condition(column="b", op="!=", value=-1)], "f", BAD).num_rows == 3


def test_column_that_only_chooses_rows_must_be_there(tmp_path):
    (tmp_path / "f.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="column 'bb' is not there"):
        list(reader("csv", columns=["a"], where=[{"column": "bb", "op": "is_null"}])(sized_file(tmp_path / "f.csv")))
