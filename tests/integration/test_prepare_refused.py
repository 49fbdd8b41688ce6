"""What cannot be prepared is refused by its name, and leaves nothing behind."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raypipe.data.shards import load_rows
from raypipe.data.stage import prepare
from raypipe.data.tasks import collect
from raypipe.errors import ClusterError, DataError, ObjectMissing, StoreAccessError
from raypipe.spec.data import DataSpec
from raypipe.storage import layout, open_store
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, PLAIN, spec, store_files, write_csv, write_parquet

pytestmark = pytest.mark.ray


def wrong_label(rows):
    rows[-1]["label"] = 99


def one_label(rows):
    for row in rows:
        row["label"] = 1


def prices(rows):
    for row in rows:
        row["label"] = 1000 + 7 * row["key"]


def word_among_numbers(rows):
    rows[3]["pay"] = "much"


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (
            wrong_label,
            {"split": {"key": ["label"], "val_frac": 0.3, "test_frac": 0.3}},
            "but in none of train|is empty",
        ),
        (one_label, {}, r"has one class, \[1\]; there is nothing"),
        (
            word_among_numbers,
            {},
            "(?s)standardize needs numbers, but column 'pay' holds text; 599 of its 600 values are numbers, the others "
            "are 'much' in 1 row.s., first row 4\n.*null_values: .*\"much\"",
        ),
        (prices, {}, "label [0-9]+ of target 'label' .*\n.*set data.task: regression"),
        (None, {"target": "lable"}, "'lable' is not there, did you mean 'label'"),
        (None, {"path": "b.csv"}, "'b.csv' matches no file"),
        (
            None,
            {"split": {}, "expectations": [{"kind": "unique", "columns": ["citty"]}]},
            r"data.expectations\[0\] \(unique\): column 'citty' is not there, did you mean 'city'",
        ),
        (None, {"split": {"key": ["key"], "val_frac": 1e-9}}, "the val split is empty"),
        (
            None,
            {"features": ["age"], "transforms": [], "expectations": [{"kind": "drift", "columns": ["pay"]}]},
            "column 'pay' is no feature and not the target",
        ),
        (
            None,
            {"expectations": [{"kind": "drift", "baseline": "adlts@0123abcd"}]},
            "the baseline 'adlts@0123abcd' is not in the store",
        ),
        (None, {"task": "regression", "target": "city", "transforms": []}, "regression needs numbers"),
    ],
)
def test_prepare_of_data_that_breaks_its_promise_is_a_data_error(ray_cluster, ctx, tmp_path, change, fields, message):
    rows = [dict(row) for row in ADULTS]
    if change is not None:
        change(rows)
    write_csv(tmp_path / "in" / "a.csv", rows)
    with pytest.raises(DataError, match=message) as caught:
        prepare(spec(tmp_path / "in", **fields), ctx)
    assert isinstance(caught.value, DataError) and "Traceback" not in str(caught.value)
    assert not store_files(ctx.store)


def test_prepare_with_a_label_that_only_the_test_source_has_is_refused(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "train.csv", ADULTS[:300])
    write_csv(tmp_path / "in" / "test.csv", [{**row, "label": 99 if row["key"] > 597 else 0} for row in ADULTS[300:]])
    with pytest.raises(DataError, match=r"label 99 of target 'label' is in 2 row\(s\) of test but in none of train"):
        prepare(spec(tmp_path / "in", path="train.csv", test_source={"format": "csv", "path": "test.csv"}), ctx)


def test_prepare_with_a_category_that_train_has_not_is_refused(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "train.csv", ADULTS[:300])
    write_csv(tmp_path / "in" / "test.csv", [{**row, "city": "Paris"} for row in ADULTS[300:]])
    with pytest.raises(DataError, match="'city' holds 'Paris', a category that train has not"):
        prepare(spec(tmp_path / "in", path="train.csv", test_source={"format": "csv", "path": "test.csv"}), ctx)
    assert not ctx.store.exists("datasets/pipeline/record.json")


def test_prepare_of_no_rows_is_refused(ray_cluster, ctx, tmp_path):
    (tmp_path / "a.csv").write_text("key,age,city,pay,label\n")
    with pytest.raises(DataError, match="holds no rows"):
        prepare(spec(tmp_path), ctx)


def test_prepare_of_a_damaged_file_names_the_file_and_prints_no_trace(ray_cluster, ctx, tmp_path, capfd):
    write_csv(tmp_path / "a.csv", ADULTS)
    (tmp_path / "b.csv").write_text("key,age,city,pay,label\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv: the row has 2 values, the header 5"):
        prepare(spec(tmp_path), ctx)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_prepare_with_an_expectation_that_fails_writes_nothing_and_names_the_rows(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    expectations = [
        {"kind": "range", "columns": ["age"], "min": 22},
        {"kind": "dtype", "columns": ["pay"], "dtype": "integer"},
    ]
    with pytest.raises(DataError, match=r"(?s)2 of data\.expectations do not hold.*row 2: 21") as caught:
        prepare(spec(tmp_path / "in", expectations=expectations), ctx)
    assert "float64" in str(caught.value) and not store_files(ctx.store)


def test_prepare_that_fails_leaves_a_version_alone_that_another_run_has_made_meanwhile(
    ray_cluster, ctx, tmp_path, monkeypatch
):
    drift = {"expectations": [{"kind": "drift", "columns": ["pay"], "threshold": 0.25}]}
    write_parquet(tmp_path / "f.parquet", ADULTS)
    made = prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **drift), ctx)
    write_parquet(tmp_path / "g.parquet", [{**row, "key": row["key"] + 1000} for row in ADULTS])
    prepare(spec(tmp_path, "g.parquet", "parquet", **PLAIN), ctx)
    before = store_files(ctx.store)
    record, real, asked = layout.dataset_record(made.name, made.version), ctx.store.read, []

    def read(key):
        if key == record and not asked:
            asked.append(key)
            raise ObjectMissing(f"{key} is not there when this run begins")
        return real(key)

    monkeypatch.setattr(ctx.store, "read", read)  # two runs that overlap, without a race
    with pytest.raises(DataError, match="pay"):
        prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **drift), ctx)
    assert store_files(ctx.store) == before
    assert len(load_rows(ctx.store, made, "train")) == made.splits["train"].num_rows


def test_prepare_into_a_store_that_fills_up_says_so_and_leaves_nothing_there(ray_cluster, small_disk, tmp_path):
    random = np.random.default_rng(0)
    rows = {f"x{i}": random.normal(size=50_000) for i in range(20)}  # 8 MB, for 4 MB
    pq.write_table(pa.table({**rows, "label": np.arange(50_000) % 2}), tmp_path / "f.parquet")
    store = open_store(str(small_disk / "store"))
    fields = {"source": {"format": "parquet", "path": "f.parquet"}, "target": "label", "root": str(tmp_path)}
    with pytest.raises(StoreAccessError, match="no space left on the disk") as caught:
        prepare(DataSpec.model_validate({**fields, "rows_per_shard": 5000}), run_context(store))
    assert "free some space" in str(caught.value) and not store_files(store)
    store.write("others", bytes(2 * 2**20))  # there is room again


def test_tasks_that_lose_their_worker_every_time_end_in_an_error_of_the_cluster(ray_cluster):
    @ray.remote(max_retries=0)
    def lost():
        os._exit(1)

    with pytest.raises(ClusterError, match="checking rows: ") as caught:
        collect([lost.remote()], "checking rows")
    assert caught.value.transient and "Traceback" not in str(caught.value)
