"""One comparison: a predicate chooses the same rows as `where`, as an expectation, and from Parquet's statistics."""

from __future__ import annotations

import datetime
import math
import operator
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raypipe.data.checks.examine import exact_values, examine
from raypipe.data.checks.expectations import violations
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats.datasource import read_group
from raypipe.data.formats.selecting import select_rows
from raypipe.data.table import columns
from raypipe.data.table.comparing import is_one_of, is_ordered
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.moments import microseconds
from raypipe.spec.sources import Condition
from tests.conftest import examples
from tests.unit.data.helpers import reader, sized_file

ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMBERS = st.integers(-5, 5) | st.sampled_from(
    [0.1, -0.5, 0.3, 1e300, 2.0**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**400, 16777217]
)
ZONE = ZoneInfo("Europe/Berlin")
DAYS = st.dates(datetime.date(1969, 12, 30), datetime.date(1970, 1, 2))
CLOCKS = st.datetimes(datetime.datetime(2024, 3, 30, 23), datetime.datetime(2024, 3, 31, 4)).map(
    lambda moment: moment.replace(minute=moment.minute // 30 * 30, second=0, microsecond=0)
)
TEXTS = st.sampled_from(["", "a", "b", "ä", "2024-03-31", "2024-03-31T00", "2024-03-31 02:00:00+02:00", "2024-03"])


def of_integers(name):
    limits = np.iinfo(name)
    near = [limits.min, limits.min + 1, limits.max - 1, limits.max]
    large = [2**53 - 1, 2**53, 2**53 + 1] if limits.max > 2**53 else []
    return st.sampled_from(near + large) | st.integers(max(-5, limits.min), 5)


FLOATS = st.sampled_from([0.1, 0.3, -0.5, -0.0, 1.0, 2.0**53, 16777216.0, math.nan])
COLUMNS = {
    **{name: (pa.type_for_alias(name), of_integers(name), NUMBERS) for name in INTEGERS},
    "float32": (pa.float32(), FLOATS, NUMBERS),
    "float64": (pa.float64(), FLOATS, NUMBERS),
    "decimal": (pa.decimal128(6, 2), st.sampled_from([Decimal("0.10"), Decimal("0.3"), Decimal("-5")]), NUMBERS),
    "bool": (pa.bool_(), st.booleans(), st.booleans()),
    "string": (pa.string(), TEXTS, TEXTS),
    "encoded": (pa.dictionary(pa.int32(), pa.string()), TEXTS, TEXTS),
    "date32": (pa.date32(), DAYS, DAYS.map(str) | TEXTS),
    "date64": (pa.date64(), DAYS, DAYS.map(str) | TEXTS),
    "local": (pa.timestamp("ms"), CLOCKS, CLOCKS.map(datetime.datetime.isoformat) | TEXTS),
    "utc": (pa.timestamp("us", "UTC"), CLOCKS, CLOCKS.map(datetime.datetime.isoformat) | TEXTS),
    "zoned": (
        pa.timestamp("ns", "Europe/Berlin"),
        CLOCKS.map(lambda clock: clock.replace(tzinfo=datetime.timezone.utc)),
        CLOCKS.map(lambda clock: clock.replace(tzinfo=ZONE).isoformat()) | TEXTS,
    ),
}


@st.composite
def cases(draw):
    name = draw(st.sampled_from(list(COLUMNS)))
    column_type, values, wanted = COLUMNS[name]
    num_rows = draw(st.integers(1, 10))
    column = pa.array(draw(st.lists(st.none() | values, min_size=num_rows, max_size=num_rows)), column_type)
    ops = ["==", "!=", "in", "not_in"] + ([] if name == "bool" else list(ORDERS))
    op = draw(st.sampled_from(ops))
    value = draw(st.lists(wanted, min_size=1, max_size=3)) if op in ("in", "not_in") else draw(wanted)
    return column, Condition.model_validate({"column": "a", "op": op, "value": value}), draw(st.integers(1, 5))


def expectation_of(condition):
    """The same predicate as an expectation, and whether the rows that keep it are meant; None where there is none."""
    values = condition.value if isinstance(condition.value, list) else [condition.value]
    if condition.op in ("==", "in"):
        return {"kind": "in_set", "values": values}, True
    if condition.op in ("!=", "not_in"):
        return {"kind": "in_set", "values": values}, False
    if isinstance(values[0], str):
        return None
    bound = "max" if condition.op.startswith("<") else "min"
    return {"kind": "range", bound: values[0], "inclusive": condition.op.endswith("=")}, True


def rows_that_keep(block, fields, transforms=()):
    """Of the rows with a value, those that keep an expectation: number of the row."""
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "row",
            "task": "regression",
            "features": ["a", "x"] if transforms else ["x"],
            "transforms": list(transforms),
            "expectations": [{"columns": ["a"], **fields}],
        }
    )
    schema = schema_of(spec, [types_of(block)])
    values, _ = examine(block, schema)
    exact = exact_values(block, schema, values)
    (found,) = violations(exact, schema.expected, spec.expectations)
    kept = columns.present(exact["a"]) & ~found.rows
    assert found.num_checked == columns.present(exact["a"]).sum()
    return np.flatnonzero(kept).tolist()


@pytest.mark.thorough
@settings(max_examples=examples(200))
@given(cases())
def test_where_parquet_and_expectation_choose_the_same_rows_for_every_type(tmp_path_factory, case):
    column, condition, group_rows = case
    table = pa.table({"a": column, "row": list(range(len(column))), "x": [0.0] * len(column)})
    path = tmp_path_factory.mktemp("f") / "f.parquet"
    pq.write_table(table, path, row_group_size=group_rows)
    where = [condition.model_dump()]
    (block,) = read_group([sized_file(path)], reader("parquet"), None)
    in_memory = select_rows(block, [condition], "f", BAD)["row"].to_pylist()
    pruned = read_group([sized_file(path)], reader("parquet", where=where), None, [condition])
    assert [row for part in pruned for row in part["row"].to_pylist()] == in_memory
    same = expectation_of(condition)
    assume(same is not None and column.drop_null().unique().to_pylist() not in ([], [math.nan]))
    assert same is not None  # assume has seen to it, which type checkers do not know
    fields, is_kept = same
    imputed = ({"kind": "impute", "columns": ["a"], "strategy": "most_frequent"},)
    for transforms in ((), imputed):
        kept = rows_that_keep(block, fields, transforms)
        there = np.flatnonzero(columns.present(columns.exact(block["a"], columns.kind(block["a"].type).dtype))).tolist()
        assert in_memory == (kept if is_kept else [row for row in there if row not in kept])


@pytest.mark.parametrize("name", INTEGERS)
@settings(max_examples=examples(25))
@given(data=st.data())
def test_whole_numbers_of_every_width_are_compared_as_python_compares_them(name, data):
    numbers = data.draw(st.lists(of_integers(name), min_size=1, max_size=6))
    bound = data.draw(NUMBERS)
    for values in (np.array(numbers, name), pa.array([*numbers, None], pa.type_for_alias(name))):
        for op, compare in ORDERS.items():
            found = is_ordered(values, name, op, bound)[: len(numbers)]
            assert found.tolist() == [compare(number, bound) for number in numbers]
        found = is_one_of(values, name, [bound])[: len(numbers)]
        assert found.tolist() == [number == bound for number in numbers]


@given(st.lists(CLOCKS, min_size=1, max_size=5), CLOCKS, st.integers(-12, 12), st.booleans())
def test_times_are_compared_as_times_however_they_are_written(clocks, bound, hours, encoded):
    zone = datetime.timezone(datetime.timedelta(hours=hours))
    texts = pa.array([clock.replace(tzinfo=datetime.timezone.utc).astimezone(zone).isoformat(" ") for clock in clocks])
    texts = texts.dictionary_encode() if encoded else texts
    for op, compare in ORDERS.items():
        found = is_ordered(texts, "string", op, bound.isoformat(timespec="minutes"))
        assert found.tolist() == [compare(clock, bound) for clock in clocks]
    assert is_one_of(texts, "string", [bound.isoformat()]).tolist() == [clock == bound for clock in clocks]


def test_text_that_names_no_moment_neither_equals_one_nor_lies_before_or_after():
    texts = pa.array(["n/a", "2024-01-31T12", "zzz", None])
    for op in ORDERS:
        assert is_ordered(texts, "string", op, "2024-01-31T12:00").tolist() == [False, "=" in op, False, False]
    assert is_one_of(texts, "string", ["2024-01-31 13:00+01:00", "zzz"]).tolist() == [False, True, True, False]


def test_number_is_compared_as_float32_holds_it_as_where_and_as_expectation():
    table = pa.table({"a": pa.array([0.1, 0.2], pa.float32()), "row": [0, 1], "x": [0.0, 0.0]})
    assert select_rows(table, [Condition(column="a", op="==", value=0.1)], "f", BAD)["row"].to_pylist() == [0]
    assert rows_that_keep(table, {"kind": "in_set", "values": [0.1]}) == [0]
    assert rows_that_keep(table, {"kind": "range", "max": 0.1}) == [0]
    impute = ({"kind": "impute", "columns": ["a"], "strategy": "mean"},)
    assert rows_that_keep(table, {"kind": "in_set", "values": [0.1]}, impute) == [0]


@pytest.mark.parametrize("column_type", [pa.int64(), pa.uint64()])
def test_64_bit_numbers_of_a_column_with_gaps_keep_their_bits_in_expectations(column_type):
    large = 2**63 - 1
    table = pa.table({"a": pa.array([large, large - 1, None], column_type), "row": [0, 1, 2], "x": [0.0] * 3})
    for transforms in ((), ({"kind": "impute", "columns": ["a"], "strategy": "mean"},)):
        assert rows_that_keep(table, {"kind": "in_set", "values": [large]}, transforms) == [0]
        assert rows_that_keep(table, {"kind": "range", "max": large - 1}, transforms) == [1]


def test_gap_in_a_column_of_true_and_false_that_is_no_feature_is_missing():
    table = pa.table({"a": [True, None, False], "row": [0, 1, 2], "x": [0.0] * 3})
    assert rows_that_keep(table, {"kind": "in_set", "values": [False]}) == [2]


def test_days_that_yaml_reads_are_compared_as_times():
    day = datetime.date(2024, 1, 31)
    condition = Condition.model_validate({"column": "a", "op": "in", "value": [day]})
    assert condition.value == ["2024-01-31"] and microseconds("2024-01-31") is not None
    table = pa.table({"a": pa.array([day, None], pa.date32()).cast(pa.string())})
    assert select_rows(table, [condition], "f", BAD).num_rows == 1


def test_arrays_are_compared_with_no_value():
    with pytest.raises(DataError, match="holds list of int64"):
        select_rows(pa.table({"a": [[1]]}), [Condition(column="a", op="==", value=1)], "f", BAD)


def test_whole_numbers_keep_their_bits_where_one_file_has_them_without_a_sign():
    signed, unsigned = 2**53 + 1, 2**63 + 1
    tables = [
        pa.table({"a": pa.array([number, number - 1], column_type), "row": [0, 1], "x": [0.0, 0.0]})
        for number, column_type in ((signed, pa.int64()), (unsigned, pa.uint64()))
    ]
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "row",
            "task": "regression",
            "features": ["x"],
            "expectations": [{"kind": "in_set", "columns": ["a"], "values": [signed, unsigned]}],
        }
    )
    schema = schema_of(spec, [types_of(table) for table in tables])
    for table in tables:
        exact = exact_values(table, schema, examine(table, schema)[0])
        (broken,) = violations(exact, schema.expected, spec.expectations)
        assert broken.rows.tolist() == [False, True]
