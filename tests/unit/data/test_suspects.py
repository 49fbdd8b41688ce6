"""Columns that are no features, or probably none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_iris

from raypipe.data.checks.dates import refuse_unclear_dates
from raypipe.data.checks.schema import refuse_lost_zeros, schema_of
from raypipe.data.checks.schema import types_of as block_types
from raypipe.data.checks.suspects import left_out, suspects
from raypipe.data.profile import parts as profiles
from raypipe.data.profile.profile import finish
from raypipe.data.table.marks import FILE_KEY, with_zeros
from raypipe.data.table.one_type import MixedTypes
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from raypipe.records import DataProfile
from raypipe.spec.data import DataSpec
from tests.unit.data.helpers import reader, source_file

RANDOM = np.random.default_rng(0)
NUM_ROWS = 3000


def spec(**fields):
    return DataSpec.model_validate({"source": {"format": "csv", "path": "f.csv"}, "target": "y", **fields})


def schema(columns, **fields):
    return schema_of(spec(**fields), [block_types(pa.table(columns).replace_schema_metadata({FILE_KEY: "f"}))])


def lines(columns, **fields):
    """What is said of rows in two parts, as if two shards held them."""
    values = {name: pa.array(v) if isinstance(v[0], str) else np.asarray(v) for name, v in columns.items()}
    ids = row_hash(values)
    half = len(ids) // 2
    parts = [
        profiles.part({n: v[cut] for n, v in values.items()}, ids[cut]) for cut in (slice(half), slice(half, None))
    ]
    whole = profiles.merge(parts)
    described = DataProfile(name="d", version="v", num_rows=whole.num_rows, columns=finish(whole))
    warned = suspects(described, whole, spec(**fields), tuple(name for name in columns if name != "y"))
    return [each.text for each in warned]


@pytest.mark.parametrize(
    "header", [",a,y", '"","a","y"', "Unnamed: 0,a,y", "__index_level_0__,a,y", "Unnamed: 0.1,a,y"]
)
def test_index_that_was_written_with_the_rows_is_no_feature_and_does_not_tell_copies_apart(tmp_path, header):
    (tmp_path / "f.csv").write_text(f"{header}\n0,5,no\n1,6,yes\n2,5,no\n")
    table = pa.concat_tables(reader("csv")(source_file(tmp_path / "f.csv")))
    told = schema_of(spec(), [block_types(table)])
    assert told.features == ("a",) and not told.others
    assert len(table.column_names) == 3


def test_index_of_pandas_in_parquet_is_no_feature():
    assert schema({"a": [1.5], "y": [0], "__index_level_0__": [7], "__index_level_1__": ["x"]}).features == ("a",)


@pytest.mark.parametrize(
    "fields",
    [
        {"features": ["Unnamed: 0"]},
        {"source": {"format": "csv", "path": "f.csv", "columns": ["Unnamed: 0", "a", "y"]}},
        {"transforms": [{"kind": "standardize", "columns": ["Unnamed: 0"]}]},
    ],
)
def test_index_that_the_file_names_stays_a_feature(fields):
    assert "Unnamed: 0" in schema({"Unnamed: 0": [3], "a": [1.5], "y": [0]}, **fields).features


def test_index_that_splits_the_rows_is_read_and_is_no_feature():
    told = schema({"Unnamed: 0": [3], "a": [1.5], "y": [0]}, split={"key": ["Unnamed: 0"]})
    assert told.features == ("a",) and "Unnamed: 0" in told.columns


def test_columns_left_out_are_told_with_what_uses_them():
    named, unnamed = left_out(["__index_level_0__", ""])
    assert "'__index_level_0__'" in named and "data.features" in named
    assert "without a name" in unnamed and "give it one" in unnamed


@pytest.mark.parametrize("ids", [np.arange(NUM_ROWS), np.arange(10**6, 10**6 + NUM_ROWS), np.arange(NUM_ROWS) * 1.0])
def test_column_that_counts_the_rows_is_told(ids):
    (line,) = lines({"id": ids, "a": RANDOM.normal(size=NUM_ROWS), "y": RANDOM.integers(0, 2, NUM_ROWS)})
    assert "'id' counts the rows" in line and "data.features" in line


def test_column_that_counts_the_rows_with_some_of_them_gone_is_told():
    ids = np.delete(np.arange(NUM_ROWS), np.arange(0, NUM_ROWS, 20))
    assert "'id' counts" in lines({"id": ids, "y": RANDOM.integers(0, 2, len(ids))})[0]


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.integers(0, NUM_ROWS, NUM_ROWS),
        RANDOM.permutation(NUM_ROWS * 2)[:NUM_ROWS],
        np.arange(NUM_ROWS) % 1000,
        np.arange(NUM_ROWS) / 4,
        RANDOM.normal(size=NUM_ROWS),
    ],
)
def test_numbers_that_do_not_count_are_not_told(values):
    assert lines({"a": values, "y": RANDOM.integers(0, 2, NUM_ROWS)}) == []


def one_hot(*columns):
    return {"transforms": [{"kind": "one_hot", "columns": list(columns)}]}


def test_text_that_hardly_repeats_is_told_where_it_becomes_categories():
    names = [f"Smith, {i}" for i in range(NUM_ROWS - 50)] + ["Jones"] * 50
    labels = RANDOM.integers(0, 2, NUM_ROWS)
    (line,) = lines({"name": names, "y": labels}, **one_hot("name"))
    assert "'name' holds text that hardly ever repeats" in line and f"{NUM_ROWS - 49} different" in line
    assert "data.features" in line and "tokens" in line
    tokens = {"kind": "tokens", "columns": ["name"], "tokenizer": "byte", "max_length": 8}
    assert lines({"name": names, "y": labels}, transforms=[tokens]) == []


def test_text_that_repeats_is_not_told():
    cities = [f"c{i}" for i in RANDOM.integers(0, 500, NUM_ROWS)]
    assert lines({"city": cities, "y": RANDOM.integers(0, 2, NUM_ROWS)}, **one_hot("city")) == []


LABELS = RANDOM.integers(0, 3, NUM_ROWS)


@pytest.mark.parametrize(
    "leak",
    [
        LABELS * 10,
        [("no", "yes", "maybe")[i] for i in LABELS],
        LABELS + RANDOM.random(NUM_ROWS) * 0.9,
        np.where(RANDOM.random(NUM_ROWS) < 0.002, 0, LABELS),
        [f"{'abc'[i]}{RANDOM.integers(0, 1000)}" for i in LABELS],
        np.where(RANDOM.random(NUM_ROWS) < 0.3, np.nan, LABELS),
    ],
    ids=["code", "word", "number", "nearly", "prefix", "gaps"],
)
def test_feature_that_tells_the_class_by_itself_is_told(leak):
    features = {"leak": leak, "a": RANDOM.normal(size=NUM_ROWS), "b": RANDOM.integers(0, 5, NUM_ROWS)}
    (line,) = lines({**features, "y": LABELS}, **(one_hot("leak") if isinstance(leak[0], str) else {}))
    assert "'leak' alone tells the target 'y'" in line and "data.features" in line


def test_row_numbers_of_rows_in_order_of_their_class_are_told_twice():
    told = lines({"id": np.arange(NUM_ROWS), "y": np.sort(LABELS)})
    assert len(told) == 2 and "counts the rows" in told[0] and "alone tells" in told[1]


def test_features_that_help_are_not_told():
    features, target = load_iris(return_X_y=True)
    assert lines({**{f"f{i}": features[:, i] for i in range(4)}, "y": target}) == []
    often = np.where(RANDOM.random(NUM_ROWS) < 0.1, RANDOM.integers(0, 3, NUM_ROWS), LABELS)
    assert lines({"a": often, "y": LABELS}) == []


def test_rare_class_makes_no_feature_tell_it():
    rare = (np.arange(NUM_ROWS) % 300 == 0).astype(int)
    random = RANDOM.normal(size=NUM_ROWS)
    assert lines({"a": random, "b": RANDOM.integers(0, 3, NUM_ROWS), "y": rare}) == []
    assert "'a' alone tells" in lines({"a": rare * 2, "y": rare})[0]


@pytest.mark.parametrize("function", [lambda y: y * 9 / 5 + 32, np.exp, lambda y: -(y**3), np.round])
def test_target_in_another_unit_is_told_in_regression(function):
    target = RANDOM.normal(20, 8, NUM_ROWS)
    columns = {"same": function(target / 4), "helps": target + RANDOM.normal(0, 2, NUM_ROWS), "y": target}
    told = lines(columns, task="regression")
    assert ["'same'" in line for line in told] == ([True] if function is not np.round else [])


def test_few_different_rows_with_many_copies_tell_nothing_unless_the_class_follows():
    labels = RANDOM.integers(0, 2, NUM_ROWS)
    (line,) = lines({"a": RANDOM.integers(0, 2, NUM_ROWS), "leak": 1 - labels, "y": labels})
    assert "'leak' alone tells" in line


def refuse(columns, **fields):
    values = {name: np.asarray(v) for name, v in columns.items()}
    refuse_unclear_dates(profiles.part(values, row_hash(values)), spec(**fields))


HOURS = [
    2020010100 + 1000000 * year + 10000 * month + hour for year in range(4) for month in range(12) for hour in (3, 9)
]


@pytest.mark.parametrize("values", [HOURS, [number % 10**8 * 100 + 30 for number in HOURS]])
def test_dates_of_ten_digits_are_not_taken_for_seconds(values):
    dates = {"transforms": [{"kind": "date_parts", "columns": ["t"]}]}
    with pytest.raises(DataError, match=r"'t' holds .*as seconds since 1970 it is"):
        refuse({"t": values, "y": [0, 1] * 48}, **dates)
    for fields in ({"unit": "seconds"}, {"unit": "yyyymmddhh"}):
        refuse({"t": values, "y": [0, 1] * 48}, transforms=[{**dates["transforms"][0], **fields}])


def test_seconds_are_not_taken_for_dates_of_ten_digits():
    seconds = RANDOM.integers(19 * 10**8, 21 * 10**8, 96)
    refuse({"t": seconds, "y": [0, 1] * 48}, transforms=[{"kind": "date_parts", "columns": ["t"]}])


def test_numbers_that_a_transform_changes_before_they_are_dates_are_not_judged():
    scale = {"kind": "scale", "columns": ["t"], "factor": 0.5}
    refuse({"t": HOURS, "y": [0, 1] * 48}, transforms=[scale, {"kind": "date_parts", "columns": ["t"]}])


def test_numbers_some_of_which_have_leading_zeros_are_read_again_as_text():
    blocks = [
        pa.table({"zip": [2139], "y": [1], "note": [7]}).replace_schema_metadata({FILE_KEY: "f"}),
        with_zeros(pa.table({"zip": [501], "y": [2], "note": [7]}), {"note": "007", "zip": "00501"}),
    ]
    profiles = [block_types(block) for block in blocks]
    with pytest.raises(MixedTypes, match="column 'zip' holds numbers in some places and '00501' in") as caught:
        refuse_lost_zeros(schema_of(spec(features=["zip"]), profiles), profiles)
    assert caught.value.column == "zip"
