"""Two rows are the same row when the model sees the same, whatever else the table holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from ray.data.extensions import ArrowTensorArray

from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.shards import load_rows
from raypipe.data.shuffle import scatter
from raypipe.data.splits.content import Content, content_of, merged
from raypipe.data.splits.verdict import judge, lopsided
from raypipe.data.table import row_hash as hashing
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from tests.unit.data.helpers import prepared

SPLITS = ("train", "val", "test")


def spec(source="csv", **fields):
    places = {"format": source, "path": "f"} | ({"sample_rate": 8000, "duration_s": 1.0} if source == "sound" else {})
    return DataSpec.model_validate({"source": places, "target": "y", "rows_per_shard": 5000, **fields})


def told(made, data):
    sizes = {name: made.dataset.splits[name].num_rows for name in SPLITS}
    return [
        *judge(made.twins, made.groups, made.content, data),
        *lopsided(sizes, made.content, made.state, data),
    ]


def where(made, folder, name):
    """Value of a feature -> the splits it is in."""
    found = {}
    for split in SPLITS:
        if made.dataset.splits[split].num_rows:
            for value in load_rows(open_store(str(folder)), made.dataset, split).columns[name].tolist():
                found.setdefault(repr(value), []).append(split)
    return found


def two_kinds(form):
    """40 rows, 20 copies of each of two, under names, numbers and times that all differ."""
    rng = np.random.default_rng(4)
    which = np.arange(40) % 2
    names = {"file": [f"{i}.x" for i in range(40)], "y": which}
    if form == "images":
        return {"image": ArrowTensorArray.from_numpy(rng.integers(0, 255, (2, 8, 8), np.uint8)[which]), **names}
    if form == "sound":
        return {"audio": ArrowTensorArray.from_numpy(rng.normal(size=(2, 100)).astype(np.float32)[which]), **names}
    x = rng.normal(size=(2, 3))[which]
    times = [f"2024-01-01T00:00:{i:02}" for i in range(40)]
    return {"id": np.arange(40), "time": times, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": which}


@pytest.mark.parametrize(("form", "features"), [("images", None), ("sound", None), ("csv", ["a", "b", "c"])])
def test_no_copy_crosses_splits_whatever_its_name_id_and_time(tmp_path, form, features):
    data = spec(form, features=features)
    made = prepared(tmp_path, data, [(pa.table(two_kinds(form)), None)], num_ranges=3)
    found = where(made, tmp_path, made.dataset.signature.inputs[0].name)
    assert len(found) == 2 and all(len(set(splits)) == 1 and len(splits) == 20 for splits in found.values())
    assert not made.twins.leaks and made.state == {"kind": "hash"}


@pytest.mark.parametrize(("form", "features"), [("images", None), ("sound", None), ("csv", ["a", "b", "c"])])
def test_copies_that_a_split_by_name_puts_into_several_splits_are_named(tmp_path, form, features):
    key = "id" if form == "csv" else "file"
    data = spec(form, features=features, split={"key": [key]})
    made = prepared(tmp_path, data, [(pa.table(two_kinds(form)), None)], num_ranges=3)
    assert made.twins.num_twins["test"] and len(made.twins.leaks.named) == 2
    with pytest.raises(DataError, match="test rows have a twin in train"):
        told(made, data)


def yes_no(num=1000):
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2, (2, num))
    return pa.table({"id": np.arange(num), "a": a, "b": b, "y": (a ^ (rng.random(num) < 0.2)).astype(int)})


def test_table_of_two_yes_no_features_beside_an_id_is_divided_and_told(tmp_path):
    data = spec(features=["a", "b"])
    made = prepared(tmp_path, data, [(yes_no(), None)], num_ranges=2)
    sizes = {name: made.dataset.splits[name].num_rows for name in SPLITS}
    assert abs(sizes["test"] - 200) < 50 and abs(sizes["val"] - 100) < 40
    lines = told(made, data)
    assert any("test rows have a twin in train, chance would give about" in line for line in lines)
    assert any("1000 rows are 8 different ones" in line and "data.split.key" in line for line in lines)


def test_rows_that_repeat_by_chance_are_divided_alike_whatever_the_blocks_ids_and_later_rows(tmp_path):
    data, table = spec(features=["a", "b"]), yes_no()
    whole = where(prepared(tmp_path / "a", data, [(table, None)]), tmp_path / "a", "a")
    order = np.random.default_rng(0).permutation(1000)
    other = table.take(pa.array(order)).set_column(0, "id", pa.array(order * 7))
    cut = [(other.slice(start, end - start), None) for start, end in pairwise([0, 10, 700, 1000])]
    assert where(prepared(tmp_path / "b", data, cut, num_ranges=4), tmp_path / "b", "a") == whole
    more = where(prepared(tmp_path / "c", data, [(pa.concat_tables([table, yes_no(50)]), None)]), tmp_path / "c", "a")
    for value, splits in whole.items():
        assert all(more[value].count(split) >= splits.count(split) for split in SPLITS)


def test_column_more_file_renamed_and_rows_reordered_change_the_split_of_no_row(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table({"x": rng.normal(size=10_000), "z": rng.integers(0, 9, 10_000), "y": rng.integers(0, 3, 10_000)})
    data = spec(features=["x", "z"])
    first = where(prepared(tmp_path / "a", data, [(table, None)]), tmp_path / "a", "x")
    order = rng.permutation(10_000)
    other = table.append_column("when", pa.array([f"t{i}" for i in range(10_000)])).append_column(
        "file", pa.array(["renamed"] * 10_000)
    )
    other = other.take(pa.array(order))
    made = prepared(tmp_path / "b", data, [(other.slice(0, 3333), None), (other.slice(3333), None)], num_ranges=4)
    assert len(first) == 10_000 and where(made, tmp_path / "b", "x") == first
    again = prepared(tmp_path / "c", data, [(table, None)]).dataset
    assert [s.sha256 for s in made.dataset.splits["train"].shards] == [s.sha256 for s in again.splits["train"].shards]


def test_rows_that_collide_are_neither_copies_nor_in_an_order_of_their_blocks(tmp_path, monkeypatch):
    """Row hashes of 6 bits: 300 rows that differ, and 10 true copies in the test file."""
    few_bits = lambda columns, lane=b"": hashing.row_hash(columns, lane) & np.uint64(0xFC << 56)  # noqa: E731
    monkeypatch.setattr(scatter, "row_hash", few_bits)
    n = np.arange(300)
    table = pa.table(
        {"x": n / 7, "t": [f"text {i}" for i in n], "v": n.reshape(-1, 1).repeat(2, 1).tolist(), "y": n % 2}
    )
    data = spec(split={"val_frac": 0.0, "test_frac": 0.0, "leaks": "drop"}, test_source={"format": "csv", "path": "t"})
    alone = table.slice(0, 1).set_column(0, "x", pa.array([0.5]))
    files = [(table.slice(0, 100), None), (table.slice(100), None), (table.slice(290), "test"), (alone, "test")]
    made = prepared(tmp_path / "a", data, files, num_ranges=2)
    again = prepared(tmp_path / "b", data, files[::-1], num_ranges=1)
    assert made.twins.leaks.pairs == {"train and test": 10} and made.twins.num_twins == {"test": 10}
    assert made.dataset.splits["train"].num_rows == 300 and made.dataset.splits["test"].num_rows == 1
    for name in ("train", "test"):
        assert [s.sha256 for s in made.dataset.splits[name].shards] == [
            s.sha256 for s in again.dataset.splits[name].shards
        ]


@pytest.mark.parametrize("is_feature", [True, False])
@pytest.mark.parametrize(("start", "dtype"), [(2**63 + 5, np.uint64), (2**53 + 5, np.int64), (-(2**60), np.int64)])
@pytest.mark.parametrize("gaps", [True, False])
def test_whole_numbers_of_64_bits_keep_them_in_ids_and_unique_keys(tmp_path, is_feature, start, dtype, gaps):
    ids: list[int | None] = [int(start) + i // 2 if i < 8 else int(start) + i for i in range(200)]
    ids[150:153] = [None] * 3 if gaps else ids[150:153]
    table = pa.table(
        {"id": pa.array(ids, pa.from_numpy_dtype(dtype)), "x": np.arange(200) / 7, "y": np.arange(200) % 2}
    )
    data = spec(
        features=["id", "x"] if is_feature else ["x"],
        split={"val_frac": 0.0, "test_frac": 0.0},
        expectations=[{"kind": "unique", "columns": ["id"], "on_fail": "quarantine"}],
        transforms=[{"kind": "impute", "columns": ["id"]}] if is_feature and gaps else [],
    )
    made = prepared(tmp_path, data, [(table.slice(0, 77), None), (table.slice(77), None)], num_ranges=2)
    aside = {round(row["row"]["x"] * 7) // 2 for summary in made.ranges for row in summary.bad.kept}
    assert aside == {0, 1, 2, 3} and made.dataset.splits["train"].num_rows == 196


def test_whole_numbers_that_differ_below_the_53rd_bit_beside_gaps_have_ids_of_their_own():
    data = spec(features=["id"], transforms=[{"kind": "impute", "columns": ["id"]}])
    block = pa.table({"id": pa.array([None, *range(2**60, 2**60 + 999)]), "y": np.zeros(1000, int)})
    schema = schema_of(data, [types_of(block)])
    values = hashing.with_whole_numbers(
        {"id": block["id"].cast(pa.float64(), safe=False).to_numpy()}, block, schema.whole
    )
    assert len(np.unique(hashing.row_hash(values))) == 1000


def test_content_of_a_version_is_that_of_the_columns_that_the_spec_reads(tmp_path):
    table = pa.table({"id": np.arange(50), "when": np.arange(50), "x": np.arange(50) / 7, "y": np.arange(50) % 2})

    def content(name, table, **fields):
        found = prepared(tmp_path / name, spec(features=["x"], **fields), [(table, None)]).blocks[0].content
        assert found is not None
        return found.tolist()

    def with_other(name):
        return table.set_column(table.column_names.index(name), name, pa.array(np.arange(50) * 3))

    by_key = {"split": {"key": ["id"]}}
    assert content("a", table) == content("b", with_other("id")) != content("c", with_other("x"))
    assert content("d", table, **by_key) == content("e", with_other("when"), **by_key)
    assert content("d", table, **by_key) != content("f", with_other("id"), **by_key)


def test_bad_row_shows_every_column_of_its_file(tmp_path):
    data = spec(features=["a"], bad_rows={"max_frac": 1})
    table = pa.table({"a": [1.0, None, 2.0, 3.0], "file": ["p", "q", "r", "s"], "y": [0, 1, 0, 1]})
    made = prepared(tmp_path, data, [(table, None)])
    assert made.blocks[0].bad.kept[0]["row"] == {"a": None, "file": "q", "y": 1}


# --- whether rows repeat by chance -----------------------------------------------------------------------------------


def content(values, **fields):
    values = {n: pa.array(v) if isinstance(v, list) else v for n, v in values.items()}
    return content_of(values, list(values), hashing.row_hash(values), spec(**fields))


HUNDRED = np.arange(100)


@pytest.mark.parametrize(
    ("values", "fields", "by_chance"),
    [
        ({"a": HUNDRED % 2, "b": HUNDRED % 3 == 0}, {}, True),
        ({"a": (HUNDRED % 4) / 4}, {}, True),
        ({"a": ((HUNDRED % 4) / 10).astype(np.float32)}, {}, True),
        ({"a": HUNDRED % 2, "b": np.float32(1) / (2 + HUNDRED % 3).astype(np.float32)}, {}, True),
        ({"b": 1 / (7 + HUNDRED % 3)}, {}, False),
        ({"image": (HUNDRED % 2).astype(np.uint8).repeat(16).reshape(100, 4, 4)}, {}, False),
        ({"t": ["yes", "no"] * 50}, {}, True),
        (
            {"t": ["yes", "no"] * 50},
            {"transforms": [{"kind": "tokens", "columns": ["t"], "tokenizer": "byte", "max_length": 4}]},
            False,
        ),
        ({"t": ["a text of many words that nobody writes twice", "n"] * 50}, {}, False),
        (
            {"t": ["a category with a rather long name, as they come"] * 100},
            {"transforms": [{"kind": "one_hot", "columns": ["t"]}]},
            True,
        ),
    ],
)
def test_content_repeats_by_chance_where_there_are_few_ways_to_differ(values, fields, by_chance):
    assert content(values, **fields).repeats_by_chance is by_chance


def test_block_without_rows_holds_no_different_ones():
    empty = content({"a": np.zeros(0), "v": np.zeros((0, 3)), "t": pa.array([], pa.string())})
    assert merged([empty, content({"a": HUNDRED % 4, "v": np.ones((100, 3)), "t": ["x"] * 100})]).num_different == 4


def test_sample_of_different_rows_is_the_same_for_any_blocks(monkeypatch):
    monkeypatch.setattr("raypipe.data.splits.content.SAMPLE_ROWS", 20)
    values = {"a": np.random.default_rng(0).integers(0, 60, 500)}
    whole = content(values)
    parts = [content({"a": values["a"][a:b]}) for a, b in pairwise([0, 3, 200, 500])]
    assert whole.num_different is None and len(whole.row_hash) == 20
    for other in (merged(parts), merged(reversed(parts))):
        assert other.num_rows == 500
        assert (other.row_hash == whole.row_hash).all() and (other.copies == whole.copies).all()
    assert merged([content({"a": values["a"] % 5})]).num_different == 5 and Content().num_different == 0
