from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raypipe.data import profile, validate
from raypipe.data.columns import Kind
from raypipe.data.duplicates import find_duplicates, key_parts
from raypipe.data.expectations import (
    BlockTallies,
    bad_reasons,
    check_columns,
    columns_of,
    tallies,
    violations,
)
from raypipe.data.hashing import row_ids
from raypipe.data.judging import judge, notes, refuse_broken, warnings
from raypipe.errors import DataError
from raypipe.records import DataProfile
from raypipe.spec.data import DataSpec
from raypipe.spec.expectations import Expectation

NAN = float("nan")
EXPECTATIONS = TypeAdapter(list[Expectation])

KINDS = {
    "age": Kind("int64"),
    "pay": Kind("float64"),
    "name": Kind("string"),
    "on": Kind("bool"),
    "image": Kind("uint8", "[2, 2]"),
}


def parsed(*fields):
    return EXPECTATIONS.validate_python(list(fields))


def as_values(columns):
    return {n: pa.array(v, pa.string()) if isinstance(v, list) else np.asarray(v) for n, v in columns.items()}


def broken(columns, **fields):
    """Positions of the rows that break one expectation on the only column."""
    (name,) = columns
    (found,) = violations(as_values(columns), parsed({"columns": [name], **fields}))
    return np.flatnonzero(found.rows).tolist()


def results(columns, *fields, cuts=(), num_parts=3, sources=()):
    """What the driver judges of rows cut into blocks."""
    expectations = parsed(*fields)
    values = as_values(columns)
    num_rows = len(next(iter(values.values())))
    row_id = row_ids(values)
    blocks, keys = [], []
    for i, (start, end) in enumerate(pairwise([0, *cuts, num_rows])):
        some = {name: v[start:end] for name, v in values.items()}
        found = violations(some, expectations)
        source = sources[i] if sources else "source"
        blocks.append(BlockTallies(end - start, tallies(found, some), source))
        position = np.arange(end - start)
        keys.append(
            {
                index: key_parts(some, e.columns, row_id[start:end], position, num_parts)
                for index, e in enumerate(expectations)
                if e.kind == "unique"
            }
        )
    duplicates = {
        index: [find_duplicates([key[index][part] for key in keys])[0] for part in range(num_parts)]
        for index in keys[0]
    }
    return judge(expectations, blocks, KINDS, num_rows, duplicates=duplicates)


# --- the words of the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "matches", "columns": ["a"], "regex": "(a"}, "regex '\\(a' is not a regular expression"),
        ({"kind": "matches", "columns": ["a"], "regex": "a{99999999999}"}, "is not a regular expression"),
        ({"kind": "range", "columns": ["a"], "min": 2, "max": 1}, "min=2 is above max=1"),
        ({"kind": "range", "columns": ["a"]}, "give min, max or both"),
        ({"kind": "length", "columns": ["a"], "max": -1}, "greater than or equal to 0"),
        ({"kind": "in_set", "columns": ["a"], "values": []}, "at least 1 item"),
        ({"kind": "row_count", "min": 1, "on_fail": "quarantine"}, "on_fail"),
        ({"kind": "drift", "baseline": "Wrong Name"}, "must be 1 to 63 of"),
        ({"kind": "drift", "baseline": "a@b@c"}, "must be 1 to 63 of"),
        ({"kind": "rang", "columns": ["a"], "min": 1}, "rang"),
    ],
)
def test_expectation_that_cannot_hold_meaning_is_refused_in_the_file(fields, says):
    with pytest.raises(ValidationError, match=says):
        parsed(fields)


def test_escapes_of_re2_that_python_does_not_know_are_accepted_and_work():
    assert broken({"a": ["Äpfel", "apfel", "Ä1"]}, kind="matches", regex=r"\p{Lu}\pL+\z") == [1, 2]


def test_data_spec_takes_expectations_on_columns_that_are_no_features():
    spec = DataSpec.model_validate(
        {
            "source": {"format": "csv", "path": "f.csv"},
            "target": "y",
            "features": ["a"],
            "expectations": [
                {"kind": "unique", "columns": ["id", "day"]},
                {"kind": "row_count", "min": 1},
                {"kind": "drift"},
                {"kind": "not_null", "columns": ["day"], "on_fail": "quarantine"},
            ],
        }
    )
    assert columns_of(spec.expectations) == ("id", "day")


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "fields", "rows"),
    [
        ({"a": [None, "x", ""]}, {"kind": "not_null"}, [0]),
        ({"a": [1.0, NAN]}, {"kind": "not_null"}, [1]),
        ({"a": np.array([0, 1])}, {"kind": "not_null"}, []),
        ({"a": [-1.0, 0, 5, 5.1, NAN]}, {"kind": "range", "min": 0, "max": 5}, [0, 3]),
        ({"a": [-1.0, 0, 5, 5.1, NAN]}, {"kind": "range", "min": 0, "max": 5, "inclusive": False}, [0, 1, 2, 3]),
        ({"a": [float("inf"), -float("inf"), 1.0]}, {"kind": "range", "max": 9}, [0]),
        ({"a": np.array([0, 255], np.uint8)}, {"kind": "range", "min": -1, "max": 300}, []),
        ({"a": np.array([2**63 - 1, 2**63 - 2])}, {"kind": "range", "max": 2**63 - 2}, [0]),
        ({"a": np.array([[[0, 1], [2, 3]], [[0, 1], [2, 9]]])}, {"kind": "range", "max": 8}, [1]),
        ({"a": ["u", "v", None]}, {"kind": "in_set", "values": ["u"]}, [1]),
        ({"a": [1.0, 2.0, NAN]}, {"kind": "in_set", "values": [1, 3]}, [1]),
        ({"a": np.array([True, False])}, {"kind": "in_set", "values": [True]}, [1]),
        ({"a": ["ab", "xab", "abx", "AB", None, "ab\n"]}, {"kind": "matches", "regex": "ab"}, [1, 2, 3, 5]),
        ({"a": ["a", "b", "ab"]}, {"kind": "matches", "regex": "a|b"}, [2]),
        ({"a": ["a", "äö", "abc", None, ""]}, {"kind": "length", "min": 1, "max": 2}, [2, 4]),
        ({"a": np.zeros((2, 3))}, {"kind": "length", "max": 3}, []),
        ({"a": np.zeros((2, 3))}, {"kind": "length", "min": 4}, [0, 1]),
    ],
)
def test_rows_that_break_an_expectation_are_found_and_missing_values_pass(columns, fields, rows):
    columns = {n: np.array(v) if isinstance(v[0], float) else v for n, v in columns.items()}
    assert broken(columns, **fields) == rows


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"kind": "in_set", "values": ["ab", "c"]}, "'abc'"),
        ({"kind": "matches", "regex": "a.*"}, "'c'"),
        ({"kind": "length", "max": 2}, "'abc'"),
        ({"kind": "not_null"}, "nothing"),
    ],
)
def test_encoded_text_is_looked_at_as_plain_text_is(fields, first):
    texts = pa.array(["ab", None, "abc", "c", "ab"])
    expectations = parsed({"columns": ["name"], **fields})
    plain, encoded = (
        tallies(violations(values, expectations), values)
        for values in ({"name": texts}, {"name": texts.dictionary_encode()})
    )
    assert encoded == plain and plain[0].first[0][1] == first


def test_rows_that_are_bad_already_break_nothing_more():
    values = as_values({"age": np.array([-1, -2, 3])})
    (found,) = violations(
        values, parsed({"kind": "range", "columns": ["age"], "min": 0}), np.array([False, True, True])
    )
    assert found.rows.tolist() == [False, True, False] and found.num_checked == 2


def test_only_quarantine_makes_bad_rows_and_the_reason_names_column_and_rule():
    values = as_values({"age": np.array([-1, 3]), "name": ["", "x"]})
    expectations = parsed(
        {"kind": "range", "columns": ["age"], "min": 0},
        {"kind": "length", "columns": ["name"], "min": 1, "on_fail": "quarantine"},
    )
    ((rows, reason),) = bad_reasons(violations(values, expectations), expectations)
    assert rows.tolist() == [True, False] and reason == "'name' does not have a length at least 1"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "not_null", "columns": ["aeg"]}, "column 'aeg' is not there, did you mean 'age'"),
        ({"kind": "range", "columns": ["name"], "min": 0}, "range needs numbers, but column 'name' holds string"),
        ({"kind": "matches", "columns": ["age"], "regex": "1"}, "matches needs text, but column 'age' holds int64"),
        ({"kind": "length", "columns": ["pay"], "max": 1}, "length needs text or arrays"),
        ({"kind": "in_set", "columns": ["age"], "values": [1, "2"]}, "values like '2'"),
        ({"kind": "in_set", "columns": ["on"], "values": [1]}, "values like 1"),
        ({"kind": "in_set", "columns": ["image"], "values": [1]}, "needs single values"),
        ({"kind": "drift", "columns": ["name"], "metric": "ks"}, "needs numbers for metric: ks"),
        ({"kind": "range", "columns": ["image"], "max": 1}, "no feature"),
        ({"kind": "matches", "columns": ["name"], "regex": "(?=a)b"}, "not one of RE2.*\n?.*look-ahead"),
        ({"kind": "matches", "columns": ["name"], "regex": r"(a)\1"}, "not one of RE2"),
    ],
)
def test_expectation_that_does_not_fit_its_column_is_refused_before_rows_are_read(fields, says):
    with pytest.raises(DataError, match=says):
        check_columns(parsed(fields), KINDS, required=["age"])


# --- all blocks together ---------------------------------------------------------------------------------------------


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
    assert lines[3] == "  the number of rows is at most 7; there are 8 good rows"
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


def test_unique_keeps_the_smallest_row_id_and_names_the_row_that_is_repeated():
    columns = {"age": np.array([7, 8, 7, 9, 7]), "name": ["a", "b", "c", "d", "a"]}
    (found,) = results(columns, {"kind": "unique", "columns": ["age"]}, cuts=[1, 4])
    ids = row_ids(as_values(columns))
    kept = min((0, 2, 4), key=lambda i: (ids[i], i)) + 1
    assert found.num_broken == 2 and found.num_checked == 5
    assert [(row.row_number, row.found) for row in found.first] == [
        (n, f"repeats row {kept}") for n in (1, 3, 5) if n != kept
    ]


def test_rows_that_miss_a_value_of_a_unique_key_agree_with_none():
    columns = {"pay": np.array([NAN, NAN, 1.0]), "name": ["a", "a", None]}
    assert results(columns, {"kind": "unique", "columns": ["pay", "name"]})[0].passed


def test_unique_of_whole_numbers_that_floats_do_not_tell_apart_is_refused():
    values = {"id": np.array([2.0**53, 2.0**53 + 2])}
    with pytest.raises(DataError, match="more than 53 bits"):
        key_parts(values, ["id"], row_ids(values), np.arange(2), 1)


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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
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


# --- drift -----------------------------------------------------------------------------------------------------------


def profiled(version, **columns):
    values = as_values(columns)
    whole = profile.part(values, row_ids(values))
    return DataProfile(name="d", version=version, num_rows=whole.num_rows, columns=profile.finish(whole))


def drifted(now, before, **fields):
    expectations = parsed({"kind": "drift", **fields})
    (found,) = judge(expectations, [], KINDS, 0, profile=now, baselines={0: before})
    return found


def test_drift_lists_the_columns_that_moved_most_and_their_new_values():
    before = profiled("v1", age=np.arange(100), name=["a"] * 50 + ["b"] * 50, on=np.array([True, False] * 50))
    now = profiled("v2", age=np.arange(100) + 200, name=["a"] * 50 + ["c"] * 50, on=np.array([True, False] * 50))
    found = drifted(now, before)
    assert not found.passed and found.columns == ("age", "name", "on")
    assert found.detail == "against d@v1: 'name' 8.52 (new ['c'], lost ['b']), 'age' 8.28"
    with pytest.raises(DataError, match=r"drift \(psi\) is at most 0\.25; against d@v1"):
        refuse_broken([found])


def test_drift_looks_at_the_named_columns_by_the_named_metric():
    before, now = profiled("v1", age=np.arange(100), pay=np.arange(100)), profiled("v2", age=np.arange(100) + 30)
    assert drifted(now, before, columns=["age"], metric="ks", threshold=0.31).passed
    assert not drifted(now, before, columns=["age"], metric="ks", threshold=0.29).passed
    assert not drifted(now, before, metric="share_change", threshold=0.1).passed


def test_drift_without_an_earlier_version_holds_and_says_why():
    found = drifted(profiled("v1", age=np.arange(9)), None)
    assert found.passed and found.detail == "there is no earlier version to compare with"


def test_drift_of_a_column_that_the_baseline_has_not_is_refused():
    with pytest.raises(DataError, match="drift of 'pay' against d@v1 cannot be measured"):
        drifted(profiled("v2", pay=np.arange(9)), profiled("v1", age=np.arange(9)), columns=["pay"])


# --- FAULTS D1 -------------------------------------------------------------------------------------------------------

NUM_ROWS, NUM_POISONED = 20_000, 200


def poisoned():
    """20,000 rows of which 200, 25 of each of 8 kinds, are wrong."""
    rng = np.random.default_rng(1)
    columns = {
        "age": rng.integers(0, 100, NUM_ROWS).astype(float).tolist(),
        "pay": rng.normal(1000, 100, NUM_ROWS).tolist(),
        "code": [f"{v:05d}" for v in rng.integers(0, 99_999, NUM_ROWS)],
        "city": rng.choice(["Ulm", "Bonn", "Köln"], NUM_ROWS).tolist(),
        "note": ["as ever"] * NUM_ROWS,
        "v": rng.normal(size=(NUM_ROWS, 3)).tolist(),
        "y": rng.choice(["yes", "no"], NUM_ROWS).tolist(),
    }
    poison = [
        ("code", "12 pieces"),  # the wrong type, in a column of numbers kept as text
        ("pay", NAN),
        ("pay", float("inf")),
        ("city", None),
        ("age", 1000.0),
        ("note", "x" * 5000),
        ("y", "perhaps"),
        ("v", [1.0, 2.0]),
    ]
    where = rng.permutation(NUM_ROWS)[:NUM_POISONED]
    for i, position in enumerate(where):
        name, value = poison[i % len(poison)]
        columns[name][position] = value
    return columns, set(where.tolist())


def test_column_that_is_no_feature_is_checked_where_an_expectation_names_it():
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "y",
            "features": ["a"],
            "split": {"key": ["id"]},
            "expectations": [{"kind": "not_null", "columns": ["day"]}],
        }
    )
    block = pa.table({"a": [1, 2], "id": [1, 2], "day": ["Mon", None], "other": [1, 1], "y": [0, 1]})
    schema = validate.schema_of(spec, [validate.profile(block)])
    values, _ = validate.examine(block, schema)
    (found,) = violations(values, spec.expectations)
    assert list(values) == ["a", "y", "id", "day"] and found.rows.tolist() == [False, True]
    empty = block.set_column(2, "day", pa.nulls(2))
    with pytest.raises(DataError, match="'day' has no value in any row"):
        validate.schema_of(spec, [validate.profile(empty)])


def test_poisoned_rows_are_found_all_of_them_and_no_other():
    columns, wrong = poisoned()
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "y",
            "bad_rows": {"max_frac": 0.01},
            "expectations": [
                {"kind": "matches", "columns": ["code"], "regex": r"\d+", "on_fail": "quarantine"},
                {"kind": "range", "columns": ["age"], "min": 0, "max": 150, "on_fail": "quarantine"},
                {"kind": "length", "columns": ["note"], "max": 100, "on_fail": "quarantine"},
                {"kind": "in_set", "columns": ["y"], "values": ["yes", "no"], "on_fail": "quarantine"},
            ],
        }
    )
    block = pa.table(columns)
    schema = validate.schema_of(spec, [validate.profile(block)])
    values, reasons = validate.examine(block, schema)
    found = violations(values, spec.expectations, validate.good_rows(block.num_rows, reasons))
    kept, bad = validate.keep_good(block, values, reasons + bad_reasons(found, spec.expectations), schema)

    assert {row["position"] for row in bad.kept} == wrong and bad.num_rows == NUM_POISONED
    good = [i for i in range(NUM_ROWS) if i not in wrong]
    assert pa.array(kept["code"]).to_pylist() == [columns["code"][i] for i in good]
    by_reason = {}
    for row in bad.kept:
        by_reason.setdefault(row["reason"], []).append(row["position"])
    assert sorted(len(positions) for positions in by_reason.values()) == [25] * 8
    validate.refuse_too_many(bad, NUM_ROWS, 0.01)
    numbered = validate.BadRows(bad.num_rows, [{"row_number": row["position"] + 1, **row} for row in bad.kept])
    with pytest.raises(DataError, match="200 of 20000 rows break the schema or an expectation"):
        validate.refuse_too_many(numbered, NUM_ROWS, 0.0099)


def test_too_many_rows_set_aside_by_a_wrong_regex_tell_that_it_is_wrong():
    columns = {"name": ["A", "B"]}
    fields = {"kind": "matches", "columns": ["name"], "regex": "[a-z]", "on_fail": "quarantine"}
    bad = validate.BadRows(2, [{"row_number": 1, "reason": "...", "row": {"name": "A"}}])
    with pytest.raises(DataError, match=r"2 of 2 rows break it.*no row matches"):
        validate.refuse_too_many(bad, 2, 0.1, notes(results(columns, fields)))
