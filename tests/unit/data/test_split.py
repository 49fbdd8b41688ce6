"""The golden values here are a promise: a data set prepared today and one prepared in years agree on every row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.splits.base import SPLITS, UNDECIDED, SplitKeys
from raypipe.data.splits.hashed import split_codes
from raypipe.data.splits.split import codes, split_keys
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from raypipe.spec.splits import HashSplit
from tests.conftest import examples
from tests.unit.data.helpers import check
from tests.unit.data.splits import divided, keyed, rows, spec


def test_split_codes_of_golden_keys_never_change():
    keys = row_hash({"id": np.arange(40)})
    plain = split_codes(keys, HashSplit(val_frac=0.2, test_frac=0.3))
    salted = split_codes(keys, HashSplit(val_frac=0.2, test_frac=0.3, salt="again"))
    assert "".join(map(str, plain)) == "0020220102220200122020120220120010020210"
    assert "".join(map(str, salted)) == "0000220211220000221200102102020210200222"


def test_codes_of_equal_rows_that_are_divided_one_by_one_never_change():
    values = {"a": np.arange(40) % 2, "y": np.arange(40) % 3 % 2}
    data, keys = spec({"val_frac": 0.2, "test_frac": 0.3}), SplitKeys(np.full(40, UNDECIDED, np.uint8))
    divided = codes(keys, row_hash(values), {"each_copy": True}, data)
    assert "".join(map(str, divided)) == "0020000001020000220002202000220022021202"
    together = codes(keys, row_hash(values), {}, data)
    assert all(len(set(together[(values["a"] == a) & (values["y"] == y)])) == 1 for a in (0, 1) for y in (0, 1))


def test_split_codes_over_many_rows_keep_the_fractions():
    codes = split_codes(row_hash({"id": np.arange(100_000)}), HashSplit(val_frac=0.1, test_frac=0.2))
    assert np.abs(np.bincount(codes) / 100_000 - [0.7, 0.1, 0.2]).max() < 0.005


def test_split_codes_of_more_rows_leave_the_first_rows_where_they_were():
    spec = HashSplit(val_frac=0.1, test_frac=0.2)
    few, many = row_hash({"id": np.arange(100)}), row_hash({"id": np.arange(1000)})
    assert (split_codes(few, spec) == split_codes(many, spec)[:100]).all()


def test_split_codes_when_val_grows_keep_the_test_rows():
    keys = row_hash({"id": np.arange(1000)})
    small = split_codes(keys, HashSplit(val_frac=0.1, test_frac=0.2)) == 2
    large = split_codes(keys, HashSplit(val_frac=0.4, test_frac=0.2)) == 2
    assert (small == large).all()


KINDS = [
    {"val_frac": 0.15, "test_frac": 0.25},
    {"kind": "hash", "key": ["g"]},
    {"kind": "stratified", "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "grouped", "group": ["g"], "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "time", "column": "t", "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "time", "column": "t", "val_from": 200, "test_from": 300},
    {"kind": "column", "column": "part", "train": [0, 3], "val": [1], "test": [2]},
]


@pytest.mark.parametrize("split", KINDS, ids=str)
@settings(max_examples=examples(15))
@given(st.lists(st.integers(0, 400), max_size=4), st.randoms(use_true_random=False))
def test_split_of_any_kind_is_the_same_for_any_blocks_and_order(split, cuts, random):
    values, data = rows(400), spec(split)
    whole, state = divided(values, data)
    order = np.array(random.sample(range(400), 400))
    shuffled, again = divided({name: v[order] for name, v in values.items()}, data, cuts)
    assert (shuffled == whole[order]).all()
    assert again == state


def test_hash_split_with_and_without_its_kind_is_the_one_by_hash_alone():
    values = rows(200)
    ids = row_hash(values)  # all columns are features, or the target
    for split in ({}, {"kind": "hash"}):
        assert (divided(values, spec(split))[0] == split_codes(ids, HashSplit())).all()
    by_key = divided(values, spec({"key": ["g"]}))[0]
    assert (by_key == split_codes(row_hash({"g": values["g"]}), HashSplit())).all()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({}, pa.array(["train", "val", "test", "train"])),
        ({}, pa.array(["train", "val", "test", "train"]).dictionary_encode()),
        ({"train": [0], "val": [1], "test": [2]}, np.array([0, 1, 2, 0])),
        ({"train": ["a", "b"], "val": ["dev"], "test": ["eval"]}, pa.array(["a", "dev", "eval", "b"])),
    ],
)
def test_column_split_goes_by_the_words(words, part):
    code, _ = divided({"part": part, "y": np.arange(4)}, spec({"kind": "column", "column": "part", **words}))
    assert code.tolist() == [0, 1, 2, 0]


def test_column_split_by_truth_tells_it_from_one():
    split = {"kind": "column", "column": "part", "train": [False], "val": [], "test": [True]}
    assert divided({"part": np.array([True, False]), "y": np.arange(2)}, spec(split))[0].tolist() == [2, 0]
    _, reasons = keyed({"part": np.array([1, 0]), "y": np.arange(2)}, spec(split))
    assert reasons


def test_column_split_of_rows_with_unknown_words_names_them_and_what_is_known():
    values = {"part": pa.array(["train", "Train", None]), "y": np.arange(3)}
    _, misfits = split_keys(values, row_hash(values), spec({"kind": "column", "column": "part", "val": []}))
    ((bad, reason),) = misfits
    assert bad.tolist() == [False, True, True]
    assert reason == "'part' is none of the values that data.split knows (train: 'train'; test: 'test')"


def test_codes_of_golden_rows_by_class_and_by_group_never_change():
    values = {"g": np.arange(40) // 2, "y": np.arange(40) % 2}
    by_class, _ = divided(values, spec({"kind": "stratified", "val_frac": 0.2, "test_frac": 0.3}))
    by_group, _ = divided(values, spec({"kind": "grouped", "group": ["g"], "val_frac": 0.2, "test_frac": 0.3}))
    assert "".join(map(str, by_class)) == "2100002010020102000012001122102221200200"
    assert "".join(map(str, by_group)) == "1100000000222200110000221100002200222211"


@pytest.mark.parametrize(
    ("split", "features"),
    [
        ({"kind": "time", "column": "t", "group": ["g"]}, ("x",)),
        ({"kind": "stratified", "by": "g"}, ("x", "g", "t")),
        ({"key": ["g", "t"]}, ("x",)),
    ],
)
def test_columns_that_the_split_reads_are_in_the_schema_and_must_hold_a_value(split, features):
    block = pa.table({"x": [1, 2], "g": ["a", None], "t": [3, 4], "y": [0, 1]})
    schema = schema_of(spec(split), [types_of(block)])
    values, bad = check(block, schema)
    assert schema.features == features
    assert {"g", "t"} & set(spec(split).split.reads) <= set(values)
    assert [row["reason"] for row in bad.kept] == ["'g' is missing"]


def test_column_of_the_split_that_is_not_there_is_refused_with_the_near_name():
    block = pa.table({"x": [1], "date": ["2024-01-01"], "y": [0]})
    with pytest.raises(DataError, match="column 'dato' is not there, did you mean 'date'"):
        schema_of(spec({"kind": "time", "column": "dato"}), [types_of(block)])


def test_splits_in_the_code_and_in_the_spec_have_the_same_names():
    assert spec({}).wanted_splits == SPLITS
