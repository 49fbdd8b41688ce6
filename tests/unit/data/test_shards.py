"""Blocks to shards and back, without Ray: the functions are plain, Ray only sends them around."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.shards import encode_target, features, load_rows, read_shard, share
from raypipe.data.table.names import ROW_ID
from raypipe.errors import DataError, DigestMismatch, ObjectMissing
from raypipe.records import Column, Signature, Split
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from tests.unit.data import helpers

NUM_ROWS = 200
RANDOM = np.random.default_rng(1)
TABLE = pa.table(
    {
        "a": np.where(np.arange(NUM_ROWS) % 9 == 0, np.nan, RANDOM.integers(0, 5, NUM_ROWS).astype(float)),
        "v": list(RANDOM.normal(size=(NUM_ROWS, 3))),
        "city": [None if i % 7 == 0 else f"c{i % 3}" for i in range(NUM_ROWS)],
        "n": [300 * i % 7001 for i in range(NUM_ROWS)],
        "y": ["no" if i % 2 else "yes" for i in range(NUM_ROWS)],
    }
)
SPEC = DataSpec.model_validate(
    {
        "source": {"format": "csv", "path": "f.csv"},
        "target": "y",
        "transforms": [
            {"kind": "impute", "columns": ["a"]},
            {"kind": "impute", "columns": ["city"], "strategy": "constant", "value": "?"},
            {"kind": "one_hot", "columns": ["city"]},
        ],
        "rows_per_shard": 40,
    }
)


def prepared(folder, table, cuts, num_ranges=1, num_tasks=1):
    edges = [0, *cuts, table.num_rows]
    parts = [(table.slice(a, b - a), None) for a, b in pairwise(edges)]
    return helpers.prepared(folder, SPEC, parts, num_ranges, num_tasks).dataset


def test_shards_of_encoded_text_are_the_bytes_of_plain_text(tmp_path):
    at = TABLE.column_names.index("city")
    encoded = TABLE.set_column(at, "city", TABLE["city"].dictionary_encode())
    assert prepared(tmp_path / "a", TABLE, (100,)).splits == prepared(tmp_path / "b", encoded, (30,)).splits


@pytest.fixture(scope="module")
def splits_of_two_blocks(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("whole"), TABLE, (100,)).splits


@pytest.mark.parametrize("cuts", [(), (1,), (50, 51, 180), tuple(range(10, 200, 10))])
def test_shards_of_any_cut_into_blocks_are_the_same_bytes(tmp_path, cuts, splits_of_two_blocks):
    assert prepared(tmp_path, TABLE, cuts).splits == splits_of_two_blocks
    for num_ranges, num_tasks in ((7, 1), (3, 5), (16, 2)):
        assert prepared(tmp_path, TABLE, cuts, num_ranges, num_tasks).splits == splits_of_two_blocks


def test_shards_of_any_row_order_are_the_same_bytes(tmp_path):
    shuffled = TABLE.take(pa.array(RANDOM.permutation(NUM_ROWS)))
    assert prepared(tmp_path / "a", TABLE, ()).splits == prepared(tmp_path / "b", shuffled, (33,)).splits


def test_shards_hold_every_row_once_in_order_of_row_id(tmp_path):
    dataset = prepared(tmp_path, TABLE, (77,))
    store = open_store(str(tmp_path))
    rows = [load_rows(store, dataset, name) for name in dataset.splits]
    assert sum(map(len, rows)) == NUM_ROWS
    assert all((np.diff(split.row_id.astype(float)) >= 0).all() for split in rows)
    assert len(np.unique(np.concatenate([split.row_id for split in rows]))) == NUM_ROWS
    whole = {tuple(v) for v in np.array(TABLE["v"].to_pylist())}
    assert {tuple(v) for split in rows for v in split.columns["v"]} == whole


def test_rows_are_numbers_with_nan_and_text_with_none(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    rows = load_rows(open_store(str(tmp_path)), dataset, "train")
    assert rows.columns["a"].dtype == np.float64 and np.isnan(rows.columns["a"]).any()
    assert rows.columns["n"].dtype == np.int64 and set(rows.columns["n"]) <= set(TABLE["n"].to_pylist())
    assert rows.columns["v"].shape == (len(rows), 3)
    assert rows.columns["city"].dtype == object and None in rows.columns["city"]
    assert set(rows.target) == {"yes", "no"}


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (35, 45), (40, 80), (0, None), (100, 101), (5, 5)])
def test_load_rows_of_a_range_equals_the_same_range_of_all(tmp_path, start, stop):
    dataset = prepared(tmp_path, TABLE, ())
    store = open_store(str(tmp_path))
    some, all_rows = load_rows(store, dataset, "train", start=start, stop=stop), load_rows(store, dataset, "train")
    assert (some.row_id == all_rows.row_id[start:stop]).all() and len(some) == len(all_rows.row_id[start:stop])
    for name, values in all_rows.columns.items():
        np.testing.assert_array_equal(some.columns[name], values[start:stop])


def test_load_rows_reads_only_the_shards_it_needs(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    store = open_store(str(tmp_path))
    first = dataset.splits["train"].shards[0]
    store.delete(first.key)
    left = dataset.splits["train"].num_rows - first.num_rows
    assert len(load_rows(store, dataset, "train", start=first.num_rows)) == left
    with pytest.raises(ObjectMissing):
        load_rows(store, dataset, "train", start=first.num_rows - 1)


def test_load_rows_of_a_damaged_shard_is_refused(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    store = open_store(str(tmp_path))
    key = dataset.splits["test"].shards[0].key
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))
    with pytest.raises(DigestMismatch, match="test/00000"):
        load_rows(store, dataset, "test")


def test_load_rows_outside_the_split_is_refused(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    with pytest.raises(ValueError, match="not within"):
        load_rows(open_store(str(tmp_path)), dataset, "val", stop=10_000)


def test_load_rows_of_an_empty_split_has_columns_without_rows(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    empty = dataset.model_copy(update={"splits": {"val": Split(num_rows=0, shards=())}})
    rows = load_rows(open_store(str(tmp_path)), empty, "val")
    assert len(rows) == 0 and rows.columns["v"].shape == (0, 3) and rows.columns["city"].dtype == object


def test_load_rows_of_an_empty_split_has_floats_where_a_value_may_be_missing(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    inputs = (Column(name="a", dtype="bool", nullable=True), Column(name="b", dtype="bool"))
    signature = dataset.signature.model_copy(update={"inputs": inputs})
    empty = dataset.model_copy(update={"signature": signature, "splits": {"val": Split(num_rows=0, shards=())}})
    rows = load_rows(open_store(str(tmp_path)), empty, "val")
    assert (rows.columns["a"].dtype, rows.columns["b"].dtype) == (np.float64, bool)


def test_shard_is_plain_arrow_without_pickle(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    data = open_store(str(tmp_path)).read(dataset.splits["train"].shards[0].key)
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    assert table.column_names == [ROW_ID, "a", "v", "city", "n", "y"] and not table.schema.metadata
    assert [str(field.type).partition("[")[0] for field in table.schema] == [
        "uint64",
        "double",
        "extension<arrow.fixed_shape_tensor",
        "dictionary<values=string, indices=int8, ordered=0>",
        "int16",
        "dictionary<values=string, indices=int8, ordered=0>",
    ]
    assert table.schema.field("n").metadata == {b"wide": b"int64"}


def signature(classes=None):
    task = "regression" if classes is None else "classification"
    return Signature(inputs=(), task=task, target="y", classes=classes)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (np.array(["b", "a"], object), ("a", "b")),
        (np.array([20, -3]), (-3, 20)),
        (np.array([True, False]), (False, True)),
        (np.array([2, 1], np.uint8), (1, 2)),
        (np.array([2.5, 1.0]), (1.0, 2.5)),
        (pa.array(["b", "a"]), ("a", "b")),
        (pa.array(["b", "a"]).dictionary_encode(), ("a", "b")),
        (pa.array(["c", "b", "a"]).dictionary_encode()[1:], ("a", "b")),
    ],
)
def test_encode_target_gives_the_index_of_each_label(target, classes):
    encoded = encode_target(target, signature(classes))
    assert encoded.dtype == np.int64 and encoded.tolist() == [1, 0]


@pytest.mark.parametrize("made", [lambda labels: np.array(labels, object), pa.array])
def test_encode_target_of_a_label_outside_the_classes_is_refused(made):
    with pytest.raises(DataError, match=r"'y' holds 'c'; the classes are \['a', 'b'\]"):
        encode_target(made(["a", "c"]), signature(("a", "b")))


def test_encode_target_without_rows_is_empty():
    assert encode_target(np.empty(0, object), signature(("a", "b"))).dtype == np.int64


def test_features_are_those_of_the_signature_with_text_in_arrow(tmp_path):
    dataset = prepared(tmp_path, TABLE, ())
    store = open_store(str(tmp_path))
    (shard, *_) = dataset.splits["train"].shards

    found = features(read_shard(store, shard), dataset.signature)

    expected = load_rows(store, dataset, "train", stop=shard.num_rows).columns
    assert list(found) == list(expected) == [column.name for column in dataset.signature.inputs]
    assert isinstance(found["city"], pa.Array) and found["city"].to_pylist() == expected["city"].tolist()
    for name in ("a", "v"):
        assert np.array_equal(found[name], expected[name], equal_nan=True)


def test_encode_target_of_regression_keeps_its_digits():
    assert encode_target(np.array([0.5, 123456789.25]), signature()).tolist() == [0.5, 123456789.25]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [0, 1, 6, 100])
def test_shares_are_contiguous_complete_and_even(num_rows, world_size):
    shares = [share(num_rows, rank, world_size) for rank in range(world_size)]
    assert shares[0][0] == 0 and shares[-1][1] == num_rows
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    assert max(b - a for a, b in shares) - min(b - a for a, b in shares) <= 1
