"""What the driver judges of all blocks together, however the rows are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.checks.rule import BlockTallies, ColumnTally
from raypipe.data.checks.verdicts import judge, notes, refuse_broken, warnings
from raypipe.errors import DataError
from tests.conftest import examples
from tests.unit.data.expectations import NAN, parsed, results


def test_broken_expectations_are_listed_with_counts_first_rows_and_values():
    columns = {"age": np.array([1, -2, 3, -4, -5, -6, -7, -8]), "name": ["x", "y" * 1000, *"abcdef"]}
    found = results(
        columns,
        {"kind": "range", "columns": ["age"], "min": 0},
        {"kind": "length", "columns": ["name"], "max": 9},
        {"kind": "row_count", "max": 7},
        {"kind": "dtype", "columns": ["age"], "dtype": "float"},
        {"kind": "not_null", "columns": ["name"]},
        cuts=[1, 3],
    )
    with pytest.raises(DataError) as error:
        refuse_broken(found)
    lines = error.value.message.splitlines()
    assert lines[0] == "4 of data.expectations do not hold"
    assert lines[1] == (
        "  'age' is at least 0; 6 of 8 rows break it; row 2: -2, row 4: -4, row 5: -5, row 6: -6, row 7: -7"
    )
    assert lines[2] == f"  'name' has a length at most 9; 1 of 8 rows break it; row 2: {'y' * 60!r}..."
    assert lines[3] == "  the number of rows is at most 7; there are 8 rows"
    assert lines[4] == "  'age' is of type float; the files hold int64"


def test_expectations_that_warn_or_quarantine_do_not_stop_the_run():
    fields = {"kind": "range", "columns": ["age"], "min": 0}
    columns = {"age": np.array([1, -2])}
    found = results(columns, {**fields, "on_fail": "warn"}, {**fields, "on_fail": "quarantine"})
    refuse_broken(found)
    assert warnings(found) == ["expectation: 'age' is at least 0; 1 of 2 rows break it; row 2: -2"]
    assert len(notes(found)) == 1


def test_regex_that_matches_no_row_gets_a_hint_that_it_is_wrong():
    fields = {"kind": "matches", "columns": ["name"], "regex": "[a-z]"}
    (never,) = results({"name": ["A", "B", None]}, fields)
    (sometimes,) = results({"name": ["A", "b", None]}, fields)
    assert "pattern itself is probably wrong" in never.detail and not sometimes.detail
    assert (never.num_broken, never.num_checked) == (2, 2)


def test_rows_of_the_test_source_are_numbered_by_themselves():
    (found,) = results(
        {"age": np.array([1, -1, -2, 3])},
        {"kind": "range", "columns": ["age"], "min": 0},
        cuts=[2],
        sources=["source", "test_source"],
    )
    assert [(row.source, row.row_number) for row in found.first] == [("source", 2), ("test_source", 1)]


rows = st.lists(
    st.tuples(st.integers(-3, 3), st.one_of(st.none(), st.floats(-2, 2)), st.one_of(st.none(), st.sampled_from("abc"))),
    min_size=1,
    max_size=40,
)

EVERY = (
    {"kind": "not_null", "columns": ["pay", "name"]},
    {"kind": "range", "columns": ["age", "pay"], "min": -1, "max": 1},
    {"kind": "in_set", "columns": ["name"], "values": ["a", "b"], "on_fail": "warn"},
    {"kind": "matches", "columns": ["name"], "regex": "[bc]", "on_fail": "quarantine"},
    {"kind": "unique", "columns": ["age", "name"]},
    {"kind": "row_count", "min": 10},
)


@settings(max_examples=examples(150))
@given(rows, st.data())
def test_any_cut_into_blocks_gives_the_same_results(rows, data):
    columns = {
        "age": np.array([age for age, _, _ in rows]),
        "pay": np.array([NAN if pay is None else pay for _, pay, _ in rows]),
        "name": [name for _, _, name in rows],
    }
    whole = results(columns, *EVERY, num_parts=1)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    assert results(columns, *EVERY, cuts=cuts, num_parts=data.draw(st.integers(1, 5))) == whole


@settings(max_examples=examples(150))
@given(rows)
def test_results_agree_with_a_loop_over_rows(rows):
    columns = {
        "age": np.array([age for age, _, _ in rows]),
        "pay": np.array([NAN if pay is None else pay for _, pay, _ in rows]),
        "name": [name for _, _, name in rows],
    }
    keys = [(age, name) for age, _, name in rows if name is not None]
    dumb = [
        sum(pay is None for _, pay, _ in rows),
        sum(name is None for _, _, name in rows),
        sum(not -1 <= age <= 1 for age, _, _ in rows),
        sum(pay is not None and not -1 <= pay <= 1 for _, pay, _ in rows),
        sum(name == "c" for _, _, name in rows),
        sum(name == "a" for _, _, name in rows),
        len(keys) - len(set(keys)),
    ]
    assert [result.num_broken for result in results(columns, *EVERY)[:-1]] == dumb


class Counted(tuple):
    """The tallies of a block, which count how often they are walked through."""

    looks = 0

    def __iter__(self):
        Counted.looks += 1
        return super().__iter__()


def test_tallies_of_a_block_are_walked_through_once_however_many_expectations_there_are():
    names = [f"c{i}" for i in range(40)]
    expectations = parsed({"kind": "not_null", "columns": names}, {"kind": "range", "columns": names, "min": 0})
    tallies = Counted(ColumnTally(index, name, 10, 1, ((3, "-1"),)) for index in (0, 1) for name in names)
    found = judge(expectations, [BlockTallies(10, tallies)] * 100, {}, {})
    assert Counted.looks == 100
    assert {(result.num_checked, result.num_broken) for result in found} == {(1000, 100)} and len(found) == 80
    assert [row.row_number for row in found[-1].first] == [4, 14, 24, 34, 44]
