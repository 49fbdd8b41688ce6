"""Rows that only a look at all rows shows to be wrong, and what is told of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.data.extensions import ArrowTensorArray

from raypipe.data.shards import load_rows
from raypipe.data.table.content import content_sums, total
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from tests.unit.data.helpers import prepared

ROWS = pa.table({"id": np.arange(300), "x": np.arange(300) / 7, "y": np.arange(300) % 2})


def spec(**fields):
    source = {"format": "csv", "path": "f.csv"}
    return DataSpec.model_validate({"source": source, "target": "y", "rows_per_shard": 50, **fields})


def ids(made, folder, split):
    return load_rows(open_store(str(folder)), made.dataset, split).columns["id"].tolist()


def bad(made):
    return [row for summary in made.ranges for row in summary.bad.kept]


def test_store_shards_tells_of_the_images_it_sets_aside_by_their_shape(tmp_path):
    images = ArrowTensorArray.from_numpy(np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8))
    table = pa.table({"image": images, "text": ["a" * 1000, "b"] * 10, "y": [0, 1] * 10})
    fields = {"split": {"val_frac": 0.0, "test_frac": 0.0, "leaks": "drop"}}
    made = prepared(
        tmp_path,
        spec(**fields, test_source={"format": "csv", "path": "t"}),
        [(table, None), (table.slice(18), "test")],
    )
    shown = {row["row"]["text"]: row["row"] for row in bad(made)}
    assert shown["b"] == {"image": "64 values of uint8, shape [8, 8]", "text": "b", "y": 1}
    assert set(shown) == {"a" * 256 + "...", "b"}


@pytest.mark.parametrize("num_ranges", [1, 5])
def test_store_shards_finds_every_planted_copy_and_names_it(tmp_path, num_ranges):
    copies = ROWS.slice(10, 7)
    blocks = [(ROWS, None), (copies, "test")]
    fields = {
        "split": {"val_frac": 0.0, "test_frac": 0.0, "leaks": "warn"},
        "test_source": {"format": "csv", "path": "t"},
    }
    made = prepared(tmp_path, spec(**fields), blocks, num_ranges, num_tasks=3)
    found = made.twins.leaks
    assert found.pairs == {"train and test": 7} and len(found.named) == 7
    rows = load_rows(open_store(str(tmp_path)), made.dataset, "test")
    assert sorted(found.named) == sorted(rows.row_id.tolist()) and not bad(made)


def test_store_shards_with_leaks_drop_keeps_the_copy_of_the_earlier_split(tmp_path):
    fields = {
        "split": {"val_frac": 0.0, "test_frac": 0.0, "leaks": "drop"},
        "test_source": {"format": "csv", "path": "t"},
    }
    made = prepared(
        tmp_path,
        spec(**fields),
        [(ROWS, None), (ROWS.slice(290), "test"), (pa.table({"id": [900], "x": [0.5], "y": [1]}), "test")],
        4,
    )
    assert ids(made, tmp_path, "test") == [900] and len(ids(made, tmp_path, "train")) == 300
    assert {row["row"]["id"] for row in bad(made)} == set(range(290, 300))
    assert all(
        row["reason"] == "the same row is in a split before test" and len(row["row_id"]) == 16 for row in bad(made)
    )


def test_store_shards_with_a_shared_group_drops_it_from_the_later_split(tmp_path):
    rows = ROWS.append_column("who", pa.array([f"p{i % 30}" for i in range(300)]))
    fields = {
        "split": {"kind": "time", "column": "id", "val_frac": 0.0, "test_frac": 0.5, "group": ["who"], "leaks": "drop"}
    }
    blocks = [(rows.slice(0, 100), None), (rows.slice(100), None)]
    made = prepared(tmp_path, spec(features=["id", "x"], **fields), blocks, 3)
    assert made.groups.pairs == {"train and test": 30}
    assert ids(made, tmp_path, "test") == [] and sorted(ids(made, tmp_path, "train")) == list(range(150))


@pytest.mark.parametrize("cuts", [(), (100,), (1, 2, 250)])
def test_store_shards_sets_repeated_keys_aside_once_whatever_the_blocks(tmp_path, cuts):
    keyed = ROWS.append_column("key", pa.array([i // 2 if i < 40 else i for i in range(300)]))
    edges = [0, *cuts, 300]
    blocks = [(keyed.slice(a, b - a), None) for a, b in pairwise(edges)]
    expectation = {"kind": "unique", "columns": ["key"], "on_fail": "quarantine"}
    made = prepared(tmp_path, spec(features=["id", "x", "key"], expectations=[expectation]), blocks, 4)
    kept = [i for split in ("train", "val", "test") for i in ids(made, tmp_path, split)]
    assert len(kept) == 280 and len({i // 2 for i in kept if i < 40}) == 20
    aside = {row["row"]["id"] for row in bad(made)}
    assert len(aside) == 20 and aside.isdisjoint(kept)
    assert {row["reason"] for row in bad(made)} == {"repeated"}


def test_store_shards_of_full_copies_sets_all_but_one_aside(tmp_path):
    rows = pa.concat_tables([ROWS, ROWS.slice(0, 5), ROWS.slice(0, 5)])
    expectation = {"kind": "unique", "columns": ["id"], "on_fail": "quarantine"}
    made = prepared(tmp_path, spec(expectations=[expectation]), [(rows, None)], 2)
    kept = sorted(i for split in ("train", "val", "test") for i in ids(made, tmp_path, split))
    assert kept == list(range(300)) and len(bad(made)) == 10


def test_store_shards_of_full_copies_that_two_expectations_find_sets_them_aside_once(tmp_path):
    rows = pa.concat_tables([ROWS, ROWS.slice(0, 5)]).append_column("mail", pa.array([*range(300), *range(5)]))
    unique = [{"kind": "unique", "columns": [name], "on_fail": "quarantine"} for name in ("id", "mail")]
    made = prepared(tmp_path, spec(expectations=unique), [(rows.slice(0, 150), None), (rows.slice(150), None)], 2)
    kept = sorted(i for split in ("train", "val", "test") for i in ids(made, tmp_path, split))
    assert kept == list(range(300)) and len(bad(made)) == 5


A_THOUSAND_TIMES = pa.concat_tables([ROWS, *[ROWS.slice(7, 1)] * 1000])


@pytest.fixture(scope="module")
def in_one_block(tmp_path_factory):
    return prepared(
        tmp_path_factory.mktemp("whole"),
        spec(split={"val_frac": 0.0, "test_frac": 0.0}),
        [(A_THOUSAND_TIMES, None)],
    ).dataset


@pytest.mark.parametrize("num_ranges", [1, 5])
@pytest.mark.parametrize("cut", [100, 777])
def test_store_shards_of_a_row_that_is_there_a_thousand_times_cuts_them_into_shards_of_the_wanted_size(
    tmp_path, num_ranges, cut, in_one_block
):
    parts = [(A_THOUSAND_TIMES.slice(cut), None), (A_THOUSAND_TIMES.slice(0, cut), None)]
    made = prepared(tmp_path, spec(split={"val_frac": 0.0, "test_frac": 0.0}), parts, num_ranges)
    shards = made.dataset.splits["train"].shards
    assert made.dataset.splits == in_one_block.splits and len({shard.key for shard in shards}) == len(shards)
    assert max(shard.num_rows for shard in shards) < 100
    found = ids(made, tmp_path, "train")
    assert sorted(found) == sorted([*range(300), *[7] * 1000])


@pytest.mark.parametrize("leak", ["warn", "drop"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_store_shards_of_a_row_in_two_splits_that_must_be_unique_keeps_that_of_the_earlier_one(tmp_path, leak, order):
    expectation = {"kind": "unique", "columns": ["id"], "on_fail": "quarantine"}
    fields = {
        "split": {"val_frac": 0.0, "test_frac": 0.0, "leaks": leak},
        "test_source": {"format": "csv", "path": "t"},
        "expectations": [expectation],
    }
    blocks = [(ROWS, None), (ROWS.slice(10, 7), "test")]
    made = prepared(tmp_path, spec(**fields), [blocks[i] for i in order], 4)
    assert sorted(ids(made, tmp_path, "train")) == list(range(300)) and ids(made, tmp_path, "test") == []
    assert len(bad(made)) == 7


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.randoms())
def test_content_sums_know_the_rows_and_not_their_order_or_blocks(rows, random):
    whole = content_sums(np.array(rows, np.uint64))
    random.shuffle(rows)
    cut = random.randint(0, len(rows))
    parts = [content_sums(np.array(part, np.uint64)) for part in (rows[:cut], rows[cut:])]
    assert (total(parts) == whole).all()
    assert (content_sums(np.array([*rows, 5], np.uint64)) != whole).any()
