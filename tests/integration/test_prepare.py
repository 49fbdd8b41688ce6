"""From files to a dataset version, on a real Ray cluster."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import encode_target, load_rows
from raypipe.data.shuffle import row_ranges
from raypipe.data.shuffle.target import finish, part
from raypipe.data.stage import prepare
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.records import DataProfile, DatasetVersion, TargetStatistics
from raypipe.runtime.progress import read_events
from raypipe.spec.data import DataSpec
from raypipe.storage import layout, open_store
from raypipe.storage.documents import read_document
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, spec, store_files, write_csv

pytestmark = pytest.mark.ray


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
    assert len(seen[0]) == 3 + 8 * 3 and all(files == seen[0] for files in seen[1:])


def test_prepare_of_rows_that_take_much_room_writes_shards_of_few_of_them(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(row_ranges, "RANGE_BYTES", 4096)  # with the real 96 MiB the rows would take minutes
    write_csv(tmp_path / "a.csv", ADULTS)
    seen = []
    for parallelism in (1, 3):
        store = open_store(str(tmp_path / f"store-{parallelism}"))
        dataset = prepare(spec(tmp_path, rows_per_shard=1000, read_parallelism=parallelism), run_context(store))
        assert len(dataset.splits["train"].shards) == 4  # 600 rows of 26 bytes
        seen.append(store_files(store))
    assert seen[0] == seen[1]


def test_prepare_of_rows_that_have_to_be_cut_twice_writes_the_bytes_of_those_cut_once(
    ray_cluster, tmp_path, monkeypatch
):
    write_csv(tmp_path / "a.csv", ADULTS)
    expectations = [{"kind": "unique", "columns": ["key"]}]
    seen, moved = [], []
    for fanout in (64, 2):
        monkeypatch.setattr(row_ranges, "RANGE_BYTES", 1024)
        monkeypatch.setattr(row_ranges, "FANOUT", fanout)
        store = open_store(str(tmp_path / f"store-{fanout}"))
        ctx = run_context(store)
        prepare(spec(tmp_path, expectations=expectations, read_parallelism=3), ctx)
        ctx.progress.save(store)
        seen.append(store_files(store))
        moved += [event["moved_bytes"] for event in read_events(store, ctx.run_id) if "moved_bytes" in event]
    assert seen[0] == seen[1] and len(seen[0]) > 20
    assert moved[1] > 1.2 * moved[0], "or nothing was cut twice"


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
    record = layout.dataset_record(first.name, first.version)
    whole = ctx.store.read(record)
    ctx.store.write(record, whole.replace(b'"train"', b'"tra1n"', 1))
    assert prepare(spec(tmp_path / "in"), ctx) == first  # a damaged record is none: all is written again
    assert ctx.store.exists(shard) and ctx.store.read(record) == whole


def test_prepare_fits_on_train_rows_only(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    dataset = prepare(spec(tmp_path / "in"), ctx)
    train = load_rows(ctx.store, dataset, "train").columns["age"]
    assert dataset.transforms[0]["columns"]["age"]["fill"] == pytest.approx(np.nanmean(train), rel=1e-12)
    assert dataset.feature_shape == (2 + 4,) and [c.name for c in dataset.signature.inputs] == ["age", "city", "pay"]


def test_record_keeps_what_was_recognised_and_how_rows_were_read(ray_cluster, ctx, tmp_path):
    rows = "".join(f"{i};{i},5 €;{'ja' if i % 3 else 'nein'};{'u' if i % 2 else 'v'}\n" for i in range(200))
    (tmp_path / "a.csv").write_text("Unnamed: 0;price;ok;y\n" + rows)
    fields = {"source": {"format": "csv", "path": "a.csv"}, "target": "y", "root": str(tmp_path)}
    dataset = prepare(DataSpec.model_validate(fields), ctx)
    assert [note.partition(":")[0] for note in dataset.notes[:3]] == ["recognised", "column 'price'", "column 'ok'"]
    assert any("Unnamed: 0" in note for note in dataset.notes[3:])
    record = ctx.store, layout.dataset_record(dataset.name, dataset.version)
    assert read_document(*record, DatasetVersion).notes == dataset.notes
    assert {column.name: column.dtype for column in dataset.signature.inputs} == {"price": "float64", "ok": "bool"}


def test_prepare_with_a_test_source_keeps_its_rows_for_test(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "train.csv", ADULTS[:400])
    write_csv(tmp_path / "in" / "test.csv", ADULTS[400:])
    test_source = {"format": "csv", "path": "test.csv"}
    dataset = prepare(spec(tmp_path / "in", path="train.csv", test_source=test_source), ctx)
    assert dataset.splits["test"].num_rows == 200
    assert dataset.splits["train"].num_rows + dataset.splits["val"].num_rows == 400


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


def test_prepare_keeps_a_profile_and_measures_drift_against_it(ray_cluster, ctx, tmp_path):
    drift = {"kind": "drift", "columns": ["pay"], "threshold": 0.25}
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    first = prepare(spec(tmp_path / "in", expectations=[drift]), ctx)
    assert first.profile_key
    profile = read_document(ctx.store, first.profile_key, DataProfile)
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
        assert isinstance(made.target_statistics, TargetStatistics)
        fitted.append((made.transforms, made.target_statistics.model_dump(exclude_none=True)))
    (transforms, statistics), (others, other_statistics) = fitted
    assert transforms == others
    # More rows make more ranges, so train lies in other shards, whose sums are added up to the last bit but one.
    expected = finish([part(np.random.default_rng(len("train")).normal(size=3000))])
    assert statistics == pytest.approx(expected.model_dump(exclude_none=True), rel=1e-14)
    assert other_statistics == pytest.approx(statistics, rel=1e-14)
