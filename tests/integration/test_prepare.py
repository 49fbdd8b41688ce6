"""From files to a dataset version, on a real Ray cluster and a real S3 server."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raypipe.data.cutting import collect
from raypipe.data.formats import FORMATS
from raypipe.data.shards import encode_target, load_rows
from raypipe.data.stage import prepare, source_fingerprint
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import ClusterError, DataError, RaypipeError, StoreAccessError, StoreError
from raypipe.records import DataProfile, DatasetVersion
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from raypipe.testing.contracts import FormatContract
from raypipe.testing.fakes import run_context

pytestmark = pytest.mark.ray

ADULTS = [
    {"key": i, "age": None if i % 10 == 0 else 20 + i % 50, "city": f"c{i % 4}", "pay": i % 7 / 2, "label": i % 3}
    for i in range(600)
]
TABULAR = {
    "target": "label",
    "split": {"key": ["key"]},
    "transforms": [
        {"kind": "impute", "columns": ["age"]},
        {"kind": "standardize", "columns": ["age", "pay"]},
        {"kind": "one_hot", "columns": ["city"]},
    ],
    "rows_per_shard": 100,
}


def spec(root, path="*.csv", file_format="csv", **fields):
    source = {"format": file_format, "path": path}
    return DataSpec.model_validate({"root": str(root), "source": source, **TABULAR, **fields})


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *cells]) + "\n")


def store_files(store):
    return {info.key: store.read(info.key) for info in store.list("datasets")}


@pytest.fixture
def ctx(tmp_path):
    return run_context(open_store(str(tmp_path / "store")))


@pytest.mark.parametrize("name", FORMATS)
def test_format_gives_the_rows_back_at_any_parallelism(ray_cluster, name, tmp_path):
    contract = FormatContract(name)
    for parallelism in (1, 3, None):
        folder = tmp_path / str(parallelism)
        folder.mkdir()
        contract.check_rows(folder, parallelism)
    (tmp_path / "columns").mkdir()
    contract.check_columns(tmp_path / "columns")
    (tmp_path / "where").mkdir()
    contract.check_where(tmp_path / "where")


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_large_file_divided_between_tasks_gives_the_bytes_it_gives_whole(ray_cluster, name, tmp_path, monkeypatch):
    path = tmp_path / f"f.{name}"
    if name == "csv":
        write_csv(path, ADULTS)
    elif name == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ADULTS))
    else:
        pq.write_table(pa.Table.from_pylist(ADULTS), path, row_group_size=40)
    source = {"format": name, "path": path.name, **({"newlines_in_values": False} if name == "csv" else {})}
    seen = []
    for size, parallelism in [(2**30, None), (2000, 1), (2000, 2), (2000, 7), (700, 7)]:
        monkeypatch.setattr("raypipe.data.lines.CHUNK_BYTES", size)
        monkeypatch.setattr("raypipe.data.formats.parquet.BLOCK_BYTES", size)
        store = open_store(str(tmp_path / f"store-{size}-{parallelism}"))
        prepare(spec(tmp_path, source=source, read_parallelism=parallelism), run_context(store))
        seen.append(store_files(store))
    assert all(files == seen[0] for files in seen[1:])


def test_poisoned_rows_are_set_aside_with_their_number_and_the_others_are_kept(ray_cluster, tmp_path, ctx):
    rows = [f"{r['key']},{20 + r['key'] % 50},{r['city']},{r['pay']},{r['label']}" for r in ADULTS]
    wrong = {3: "3,abc,c1,1,0", 77: "77,20,c1", 300: "300,20,c1,1,0,9,9", 599: "599,20,c1,high,0"}
    for number, row in wrong.items():
        rows[number] = row
    (tmp_path / "f.csv").write_text("\n".join(["key,age,city,pay,label", *rows]) + "\n")
    source = {"format": "csv", "path": "f.csv", "dtypes": {"age": "float64", "pay": "float64"}}
    record = prepare(spec(tmp_path, source=source, bad_rows={"max_frac": 0.01}), ctx)
    told = [json.loads(line) for line in ctx.store.read(record.bad_rows_key).decode().splitlines()]
    assert [row["row_number"] for row in told] == [number + 1 for number in wrong]
    assert told[0]["reason"] == "f.csv: 'age' is 'abc', which is no float64"
    assert sum(split.num_rows for split in record.splits.values()) == 596
    with pytest.raises(DataError, match="4 of 600 rows") as caught:
        prepare(spec(tmp_path, source=source), ctx)
    assert "row 78: f.csv: the row has 3 values, the header 5" in str(caught.value)


NUM_MANY = 20_000
POISON = {  # what is changed in a row, and the reason that is told; JSON has neither NaN nor infinities
    "not of its type": ({"age": "abc"}, "'age' is"),
    "NaN": ({"pay": float("nan")}, "'pay' is missing|NaN is no number"),
    "infinite": ({"pay": float("-inf")}, "'pay' is infinite|Infinity is no number"),
    "null": ({"city": None}, "'city' is missing"),
    "without a label": ({"y": None}, "'y' is missing"),
    "out of range": ({"age": 2**40}, "'age' is not between 0 and"),
    "too long": ({"city": "x" * 5000}, "'city'"),
    "a wrong label": ({"y": 7}, "'y' is"),
}


def write_poisoned(path, poisoned):
    """Rows of which those of `poisoned` are wrong in all ways in turn; Parquet has no values of another type."""
    kinds = [change for change, _ in POISON.values()]
    if path.suffix == ".parquet":
        kinds[0] = {"age": None}
    rows = [{"age": i, "pay": i / 4, "city": f"c{i % 7}", "y": i % 2} for i in range(NUM_MANY)]
    for number, i in enumerate(poisoned):
        rows[i] |= kinds[number % len(kinds)]
    if path.suffix == ".csv":
        write_csv(path, rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3000)


def test_one_poisoned_row_in_a_hundred_is_set_aside_alike_in_every_format_and_more_stop_the_run(ray_cluster, tmp_path):
    poisoned = sorted(np.random.default_rng(7).choice(NUM_MANY, NUM_MANY // 100, replace=False).tolist())
    good = np.delete(np.arange(NUM_MANY), poisoned)
    dtypes = {"age": "int64", "pay": "float64", "city": "string", "y": "int64"}
    expectations = [
        {"kind": "range", "columns": ["age"], "min": 0, "max": NUM_MANY, "on_fail": "quarantine"},
        {"kind": "length", "columns": ["city"], "max": 100, "on_fail": "quarantine"},
        {"kind": "in_set", "columns": ["y"], "values": [0, 1], "on_fail": "quarantine"},
    ]
    fields = {"target": "y", "expectations": expectations, "transforms": [{"kind": "one_hot", "columns": ["city"]}]}
    contents, splits = set(), []
    for name in ("csv", "jsonl", "parquet"):
        write_poisoned(tmp_path / f"f.{name}", poisoned)
        source = {"format": name, "path": f"f.{name}", **({} if name == "parquet" else {"dtypes": dtypes})}
        made = {"root": str(tmp_path), "source": source, "read_parallelism": 3, "rows_per_shard": 3000, **fields}
        ctx = run_context(open_store(str(tmp_path / f"store-{name}")))
        with pytest.raises(DataError, match=r"200 of 20000 rows .* allows 199"):
            prepare(DataSpec.model_validate({**made, "bad_rows": {"max_frac": 199.5 / NUM_MANY}}), ctx)
        assert not store_files(ctx.store)

        record = prepare(DataSpec.model_validate({**made, "bad_rows": {"max_frac": 0.01}}), ctx)
        aside = [json.loads(line) for line in ctx.store.read(str(record.bad_rows_key)).decode().splitlines()]
        assert [row["row_number"] - 1 for row in aside] == poisoned and record.num_bad_rows == len(poisoned)
        for number, row in enumerate(aside):
            _, reason = list(POISON.values())[number % len(POISON)]
            assert re.search(reason, row["reason"]), row
        rows = [load_rows(ctx.store, record, split) for split in record.splits]
        age = np.concatenate([part.columns["age"] for part in rows])
        order = np.argsort(age)
        assert (age[order] == good).all()
        assert (np.concatenate([part.columns["pay"] for part in rows])[order] == good / 4).all()
        assert (np.concatenate([part.columns["city"] for part in rows])[order] == [f"c{i % 7}" for i in good]).all()
        assert (np.concatenate([part.target for part in rows])[order] == good % 2).all()
        contents.add(record.content_fingerprint)
        splits.append([shard.sha256 for split in record.splits.values() for shard in split.shards])
    assert len(contents) == 1 and splits[0] == splits[1] == splits[2]


def test_prepare_at_any_read_parallelism_and_file_order_writes_the_same_bytes(ray_cluster, tmp_path):
    for number in range(5):
        write_csv(tmp_path / "in" / f"{number}.csv", ADULTS[number * 120 : number * 120 + 120])
    for number in range(5):
        write_csv(tmp_path / "turned" / f"{number}.csv", ADULTS[480 - number * 120 : 600 - number * 120][::-1])
    seen = []
    for folder, parallelism in [("in", 1), ("in", 2), ("in", 7), ("turned", None)]:
        store = open_store(str(tmp_path / f"store-{folder}-{parallelism}"))
        prepare(spec(tmp_path / folder, read_parallelism=parallelism), run_context(store))
        seen.append(store_files(store))
    assert len(seen[0]) == 3 + 6 * 3 and all(files == seen[0] for files in seen[1:])


def test_prepare_of_digits_splits_and_scales_real_images(ray_cluster, ctx):
    fields = {
        "source": {"format": "sklearn", "dataset": "digits"},
        "target": "label",
        "transforms": [{"kind": "scale", "columns": ["image"], "factor": 1 / 16}],
    }
    dataset = prepare(DataSpec.model_validate(fields), ctx)
    assert {name: split.num_rows for name, split in dataset.splits.items()} == {"train": 1262, "val": 169, "test": 366}
    assert dataset.feature_shape == (8, 8) and dataset.signature.classes == tuple(range(10))
    rows = load_rows(ctx.store, dataset, "val")
    features = FittedTransforms.from_state(dataset.transforms).apply(rows.columns, dataset.signature.inputs)
    assert features.shape == (169, 8, 8) and features.dtype == np.float32 and features.max() == 1.0
    assert encode_target(rows.target, dataset.signature).dtype == np.int64


def test_prepare_a_second_time_reuses_the_version(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    first = prepare(spec(tmp_path / "in"), ctx)
    shard = first.splits["val"].shards[0].key
    ctx.store.delete(shard)  # would come back if it were written again
    assert prepare(spec(tmp_path / "in", read_parallelism=3), ctx) == first
    assert not ctx.store.exists(shard)
    assert DatasetVersion.model_validate_json(first.to_json()) == first


def test_prepare_fits_on_train_rows_only(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    dataset = prepare(spec(tmp_path / "in"), ctx)
    train = load_rows(ctx.store, dataset, "train").columns["age"]
    assert dataset.transforms[0]["columns"]["age"]["fill"] == pytest.approx(np.nanmean(train), rel=1e-12)
    assert dataset.feature_shape == (2 + 4,) and [c.name for c in dataset.signature.inputs] == ["age", "city", "pay"]


def test_prepare_with_a_test_source_keeps_its_rows_for_test(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "train.csv", ADULTS[:400])
    write_csv(tmp_path / "in" / "test.csv", ADULTS[400:])
    test_source = {"format": "csv", "path": "test.csv"}
    dataset = prepare(spec(tmp_path / "in", path="train.csv", test_source=test_source), ctx)
    assert dataset.splits["test"].num_rows == 200
    assert dataset.splits["train"].num_rows + dataset.splits["val"].num_rows == 400


def test_prepare_keeps_bad_rows_aside_with_reason_and_number(ray_cluster, ctx, tmp_path):
    rows = [dict(row) for row in ADULTS]
    rows[7]["pay"] = float("nan")
    rows[9]["label"] = rows[9]["city"] = None
    write_csv(tmp_path / "in" / "a.csv", rows)
    with pytest.raises(DataError, match=r"2 of 600 rows break the schema.*allows 0\n  row 8: 'pay' is missing"):
        prepare(spec(tmp_path / "in"), ctx)
    dataset = prepare(spec(tmp_path / "in", bad_rows={"max_frac": 0.01}, read_parallelism=4), ctx)
    assert dataset.num_bad_rows == 2 and sum(s.num_rows for s in dataset.splits.values()) == 598
    kept = [json.loads(line) for line in ctx.store.read(dataset.bad_rows_key).splitlines()]
    assert [row["row_number"] for row in kept] == [8, 10]
    assert kept[1]["reason"] == "'city' is missing; 'label' is missing" and kept[1]["row"]["key"] == 9


def wrong_label(rows):
    rows[-1]["label"] = 99


def one_label(rows):
    for row in rows:
        row["label"] = 1


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
        (word_among_numbers, {}, "standardize needs numbers, but column 'pay' holds text"),
        (None, {"target": "lable"}, "'lable' is not there, did you mean 'label'"),
        (None, {"path": "b.csv"}, "'b.csv' matches no file"),
        (None, {"split": {"key": ["key"], "val_frac": 1e-9}}, "the val split is empty"),
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


@pytest.mark.s3
def test_prepare_from_s3_into_s3_equals_the_same_from_disk_to_disk(ray_cluster, s3, bucket, ctx, tmp_path):
    table = pa.Table.from_pylist(ADULTS)
    pq.write_table(table, tmp_path / "a.parquet")
    with contextlib.closing(s3.client()) as client:
        client.upload_file(str(tmp_path / "a.parquet"), bucket, "in/a.parquet")
    remote = run_context(open_store(f"s3://{bucket}/kept"))
    here = prepare(spec(tmp_path, "a.parquet", "parquet"), ctx)
    there = prepare(spec(f"s3://{bucket}/in", "a.parquet", "parquet"), remote)
    assert there == here and store_files(remote.store) == store_files(ctx.store)
    globbed = prepare(spec("unused", f"s3://{bucket}/in/*.parquet", "parquet"), remote)
    assert globbed.content_fingerprint == here.content_fingerprint and globbed.version != here.version
    rows = load_rows(remote.store, there, "test", start=3, stop=20)
    assert (rows.row_id == load_rows(ctx.store, here, "test").row_id[3:20]).all()


@pytest.mark.s3
def test_source_on_s3_that_is_not_there_is_refused_by_name(s3, bucket):
    for path in (f"s3://{bucket}/nothing.csv", f"s3://{bucket}-no/nothing.csv"):
        with pytest.raises(RaypipeError, match=r"nothing\.csv"):
            source_fingerprint(spec("unused", path))
    assert not Path("unused").exists()


@pytest.mark.s3
def test_source_on_s3_with_wrong_credentials_is_refused_with_what_to_check(s3, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreAccessError, match="access denied") as caught:
        source_fingerprint(spec("unused", f"s3://{bucket}/a.csv"))
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


@pytest.mark.s3
def test_source_on_s3_that_does_not_answer_may_be_tried_again(s3_address, free_port, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    with pytest.raises(StoreError, match="S3 did not answer") as caught:
        source_fingerprint(spec("unused", "s3://bucket/a.csv"))
    assert caught.value.transient


CANARIES = [f"canary{i}@example.org" for i in range(600)]


def test_prepare_of_masked_columns_leaves_no_value_anywhere(ray_cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MAIL_KEY", "k" * 32)
    rows = [{**row, "mail": CANARIES[i], "phone": CANARIES[-1 - i]} for i, row in enumerate(ADULTS)]
    rows[5]["pay"] = float("inf")
    rows[6]["mail"] = CANARIES[7]
    write_csv(tmp_path / "in" / "a.csv", rows)
    masking = [
        {"columns": ["mail"], "method": "tokenize", "key_env": "MAIL_KEY"},
        {"columns": ["phone"], "method": "drop"},
    ]
    unique = {"kind": "unique", "columns": ["mail"], "on_fail": "quarantine"}
    fields = {"masking": masking, "expectations": [unique], "bad_rows": {"max_frac": 0.1}}
    store = open_store(str(tmp_path / "store"))
    dataset = prepare(spec(tmp_path / "in", **fields), run_context(store))
    assert dataset.num_bad_rows == 2 and [c.name for c in dataset.signature.inputs] == ["age", "city", "pay"]
    fields |= {"bad_rows": {"max_frac": 0.0}, "expectations": [{**unique, "on_fail": "fail"}]}
    with pytest.raises(DataError) as caught:
        prepare(spec(tmp_path / "in", **fields), run_context(store))
    written = b"".join(store_files(store).values()).decode(errors="replace")
    said = "".join(capfd.readouterr()) + str(caught.value)
    assert "canary" not in written + said and "kkkk" not in written + said


def test_prepare_with_an_expectation_that_fails_writes_nothing_and_names_the_rows(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    expectations = [{"kind": "range", "columns": ["age"], "min": 22}, {"kind": "row_count", "min": 1000}]
    with pytest.raises(DataError, match=r"(?s)2 of data\.expectations do not hold.*row 2: 21") as caught:
        prepare(spec(tmp_path / "in", expectations=expectations), ctx)
    assert "600" in str(caught.value) and not store_files(ctx.store)


def test_prepare_keeps_a_profile_and_measures_drift_against_it(ray_cluster, ctx, tmp_path):
    drift = {"kind": "drift", "columns": ["pay"], "threshold": 0.25}
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    first = prepare(spec(tmp_path / "in", expectations=[drift]), ctx)
    profile = DataProfile.model_validate_json(ctx.store.read(first.profile_key))
    pay, age = profile.column("pay"), profile.column("age")
    assert pay and age and profile.num_rows == 600 and (pay.min, pay.max, pay.nulls) == (0.0, 3.0, 0)
    assert age.nulls == 60 and profile.expectations[0].passed
    write_csv(tmp_path / "in" / "a.csv", [{**row, "pay": row["pay"] + 2} for row in ADULTS])
    with pytest.raises(DataError, match="pay"):
        prepare(spec(tmp_path / "in", expectations=[drift]), ctx)
    assert len(store_files(ctx.store)) == len(first.splits["train"].shards) * 3 + 3


@pytest.mark.parametrize("split", ["stratified", "grouped", "time", "column", "directories"])
def test_prepare_of_every_kind_of_split_is_the_same_at_any_parallelism(ray_cluster, tmp_path, split):
    words = ["train", "train", "train", "val", "test"]
    rows = [
        {**row, "day": f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}", "part": words[i % 5]} for i, row in enumerate(ADULTS)
    ]
    fields = {
        "stratified": {"kind": "stratified"},
        "grouped": {"kind": "grouped", "group": ["key"]},
        "time": {"kind": "time", "column": "day", "leaks": "warn"},
        "column": {"kind": "column", "column": "part", "leaks": "warn"},
        "directories": {"kind": "directories"},
    }[split]
    for number in range(4):
        chosen = [row for i, row in enumerate(rows) if i % 4 == number]
        if split == "directories":
            for word in set(words):
                write_csv(tmp_path / "in" / word / f"{number}.csv", [row for row in chosen if row["part"] == word])
        else:
            write_csv(tmp_path / "in" / f"{number}.csv", chosen)
    features = ["age", "city", "pay"]
    seen = []
    for parallelism in (1, 3):
        store = open_store(str(tmp_path / f"store-{parallelism}"))
        path = "." if split == "directories" else "*.csv"
        dataset = prepare(
            spec(tmp_path / "in", path=path, split=fields, features=features, read_parallelism=parallelism),
            run_context(store),
        )
        seen.append(store_files(store))
        sizes = {name: found.num_rows for name, found in dataset.splits.items()}
        assert sum(sizes.values()) == 600 and min(sizes.values()) > 40
    assert seen[0] == seen[1]


def test_prepare_of_a_column_of_numbers_here_and_text_there_reads_it_as_text(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [{**row, "city": row["key"] % 3} for row in ADULTS[:300]])
    write_csv(tmp_path / "in" / "b.csv", ADULTS[300:])
    dataset = prepare(spec(tmp_path / "in", read_parallelism=2), ctx)
    city = next(column for column in dataset.signature.inputs if column.name == "city")
    assert city.dtype == "string"
    assert set(load_rows(ctx.store, dataset, "train").columns["city"]) == {"0", "1", "2", "c0", "c1", "c2", "c3"}


def test_prepare_of_a_column_that_goes_on_with_fractions_reads_them_all(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [{**row, "pay": row["key"] % 3} for row in ADULTS[:300]])
    write_csv(tmp_path / "in" / "b.csv", ADULTS[300:])
    dataset = prepare(spec(tmp_path / "in", read_parallelism=2), ctx)
    pay = next(column for column in dataset.signature.inputs if column.name == "pay")
    assert pay.dtype == "float64" and sum(split.num_rows for split in dataset.splits.values()) == 600


PLAIN = {"split": {}, "transforms": [], "features": ["age", "pay"]}


def write_parquet(path, rows, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{**row, "age": float(row["key"]), "pay": row["key"] / 8} for row in rows])
    for name, values in columns.items():
        table = table.append_column(name, pa.array([values[i % len(values)] for i in range(len(rows))]))
    pq.write_table(table, path, row_group_size=100)


@pytest.mark.parametrize("values", [["no", "yes"], [False, True]])
def test_prepare_of_a_target_of_text_or_truth_with_a_file_without_rows_gives_its_classes(
    ray_cluster, ctx, tmp_path, values
):
    write_parquet(tmp_path / "b.parquet", ADULTS, y=values)
    empty = pq.read_table(tmp_path / "b.parquet").slice(0, 0)
    for name in ("a", "c"):
        pq.write_table(empty, tmp_path / f"{name}.parquet")
    in_set = {"kind": "in_set", "columns": ["city"], "values": ["c0", "c1", "c2"], "on_fail": "quarantine"}
    fields = {**PLAIN, "target": "y", "split": {"key": ["key"]}, "expectations": [in_set], "bad_rows": {"max_frac": 1}}
    for parallelism in (1, 3):
        store = open_store(str(tmp_path / f"store-{parallelism}"))
        made = prepare(
            spec(tmp_path, "*.parquet", "parquet", read_parallelism=parallelism, **fields), run_context(store)
        )
        assert made.signature.classes == tuple(values) and made.num_bad_rows == 150
        rows = load_rows(store, made, "train")
        assert set(rows.target) == set(values) and set(rows.columns) == {"age", "pay"}


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (ADULTS[:1], {"task": "regression"}, "the val split is empty|the train split is empty|the test split is empty"),
        (ADULTS[:1], {}, r"has one class, \[0\]"),
        ([{**row, "label": None} for row in ADULTS[1:]] + ADULTS[:1], {}, "599 of 600 rows break the schema"),
        (ADULTS, {"expectations": [{"kind": "range", "columns": ["pay"], "min": 1e6, "on_fail": "quarantine"}],
                  "bad_rows": {"max_frac": 1.0}}, "the train split is empty: of 0 good rows"),
        (ADULTS, {"expectations": [{"kind": "unique", "columns": ["city"], "on_fail": "quarantine"}],
                  "bad_rows": {"max_frac": 0.5}}, "(?s)596 of 600 rows .*row id [0-9a-f]{16}: another row has"),
    ],
)  # fmt: skip
def test_prepare_of_too_few_good_rows_says_what_is_wrong_with_the_others(
    ray_cluster, ctx, tmp_path, rows, fields, message
):
    write_parquet(tmp_path / "f.parquet", rows)
    with pytest.raises(DataError, match=message):
        prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **fields), ctx)
    assert not store_files(ctx.store)


def test_prepare_that_fails_leaves_a_version_alone_that_another_run_has_made_meanwhile(
    ray_cluster, ctx, tmp_path, monkeypatch
):
    drift = {"expectations": [{"kind": "drift", "columns": ["pay"], "threshold": 0.25}]}
    write_parquet(tmp_path / "f.parquet", ADULTS)
    made = prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **drift), ctx)
    write_parquet(tmp_path / "g.parquet", [{**row, "key": row["key"] + 1000} for row in ADULTS])
    prepare(spec(tmp_path, "g.parquet", "parquet", **PLAIN), ctx)
    before = store_files(ctx.store)
    real, asked = ctx.store.exists, []

    def exists(key):
        asked.append(key)
        return len(asked) > 1 and real(key)  # not there when this run begins

    monkeypatch.setattr(ctx.store, "exists", exists)
    with pytest.raises(DataError, match="pay"):
        prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **drift), ctx)
    assert store_files(ctx.store) == before
    assert len(load_rows(ctx.store, made, "train")) == made.splits["train"].num_rows


def test_prepare_beside_a_large_test_source_fits_on_all_rows_of_train(ray_cluster, tmp_path):
    fitted = []
    for size in (100, 2_400_000):
        for name, num_rows in (("train", 3000), ("test", size)):
            x = np.random.default_rng(len(name)).normal(size=num_rows)
            pq.write_table(pa.table({"x": x, "y": x}), tmp_path / f"{name}.parquet")
        fields = {"target": "y", "task": "regression", "transforms": [{"kind": "robust", "columns": ["x"]}]}
        sources = {"test_source": {"format": "parquet", "path": "test.parquet"}, "rows_per_shard": 200_000}
        fields |= {**sources, "split": {"val_frac": 0.0, "leaks": "warn"}}
        made = prepare(
            spec(tmp_path, "train.parquet", "parquet", **fields), run_context(open_store(str(tmp_path / str(size))))
        )
        assert made.splits["train"].num_rows == 3000
        fitted.append(made.transforms)
    assert fitted[0] == fitted[1]


def test_tasks_that_lose_their_worker_every_time_end_in_an_error_of_the_cluster(ray_cluster):
    @ray.remote(max_retries=0)
    def lost():
        os._exit(1)

    with pytest.raises(ClusterError, match="checking rows: ") as caught:
        collect([lost.remote()], "checking rows")
    assert caught.value.transient and "Traceback" not in str(caught.value)
