"""Files of every format, and columns of every type, become rows."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.formats import FORMATS
from raypipe.data.shards import load_rows
from raypipe.data.stage import prepare
from raypipe.runtime.progress import Progress
from raypipe.storage import open_store
from raypipe.testing.contracts import FormatContract
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, PLAIN, spec, store_files, write_csv, write_parquet

pytestmark = pytest.mark.ray


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
        # Parts as small as these rows, which would else fit into one.
        monkeypatch.setattr("raypipe.data.formats.lines.CHUNK_BYTES", size)
        monkeypatch.setattr("raypipe.data.formats.parquet.BLOCK_BYTES", size)
        store = open_store(str(tmp_path / f"store-{size}-{parallelism}"))
        prepare(spec(tmp_path, source=source, read_parallelism=parallelism), run_context(store))
        seen.append(store_files(store))
    assert all(files == seen[0] for files in seen[1:])


def test_nested_rows_give_the_same_shards_from_every_format_that_has_them(ray_cluster, tmp_path, monkeypatch):
    rows = [
        {
            "who": {"age": row["key"] / 8, "pay": row["pay"]},
            "tags": [row["city"], "all"][: i % 3],
            "label": row["label"],
        }
        for i, row in enumerate(ADULTS)
    ]
    odd = [{**row, "odd": [i, "x", {}][i % 3]} for i, row in enumerate(rows)]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    (tmp_path / "array.json").write_text(json.dumps(odd, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    monkeypatch.setattr("raypipe.data.formats.lines.CHUNK_BYTES", 20_000)
    bag = [{"kind": "bag_of_words", "columns": ["tags"]}]
    fields = {"features": ["who.age", "tags"], "transforms": bag, "read_parallelism": 3, "expectations": []}
    seen = []
    for name in ("lines.jsonl", "array.json", "rows.parquet"):
        store = open_store(str(tmp_path / f"store-{name}"))
        form = "parquet" if name.endswith("parquet") else "jsonl"
        made = prepare(spec(tmp_path, name, form, **{**PLAIN, **fields}), run_context(store))
        shards = [store.read(shard.key) for split in made.splits.values() for shard in split.shards]
        seen.append((made.content_fingerprint, made.transforms, shards))
    assert seen[0] == seen[1] == seen[2]
    (bag_state,) = seen[0][1]
    assert bag_state["columns"]["tags"]["vocabulary"] == ["all", "c0", "c1", "c2", "c3"]


def test_prepare_of_a_column_of_numbers_here_and_text_there_reads_it_as_text(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [{**row, "city": row["key"] % 3} for row in ADULTS[:300]])
    write_csv(tmp_path / "in" / "b.csv", ADULTS[300:])
    dataset = prepare(spec(tmp_path / "in", read_parallelism=2), ctx)
    city = next(column for column in dataset.signature.inputs if column.name == "city")
    assert city.dtype == "string"
    assert set(load_rows(ctx.store, dataset, "train").columns["city"]) == {"0", "1", "2", "c0", "c1", "c2", "c3"}


def test_prepare_of_such_a_column_that_another_source_lacks_reads_all_sources(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [{**row, "note": row["key"]} for row in ADULTS[:300]])
    write_csv(tmp_path / "in" / "b.csv", [{**row, "note": f"n{row['key']}"} for row in ADULTS[300:500]])
    write_csv(tmp_path / "v.csv", ADULTS[500:])
    fields = {**PLAIN, "features": ["pay"], "val_source": {"format": "csv", "path": "v.csv"}}
    dataset = prepare(spec(tmp_path, "in/*.csv", "csv", **fields), ctx)
    assert dataset.splits["val"].num_rows == 100


def test_prepare_of_a_column_that_goes_on_with_fractions_reads_them_all(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [{**row, "pay": row["key"] % 3} for row in ADULTS[:300]])
    write_csv(tmp_path / "in" / "b.csv", ADULTS[300:])
    dataset = prepare(spec(tmp_path / "in", read_parallelism=2), ctx)
    pay = next(column for column in dataset.signature.inputs if column.name == "pay")
    assert pay.dtype == "float64" and sum(split.num_rows for split in dataset.splits.values()) == 600


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


def test_prepare_of_rows_written_with_their_index_leaves_it_out_and_says_so(ray_cluster, tmp_path):
    rows = [{"": i, "id": i + 1, "pay": row["pay"], "label": f"0{row['label']}"} for i, row in enumerate(ADULTS)]
    write_csv(tmp_path / "in" / "a.csv", rows)
    stream = io.StringIO()
    context = replace(run_context(open_store(str(tmp_path / "store"))), progress=Progress("rindex", stream))
    dataset = prepare(spec(tmp_path / "in", split={}, transforms=[]), context)
    assert [column.name for column in dataset.signature.inputs] == ["id", "pay"]
    assert dataset.signature.reading is not None and dataset.signature.reading.settings["delimiter"] == ","
    assert "" in dataset.signature.null_words
    lines = stream.getvalue()
    assert "a column without a name holds the number or name of each row and no data: left out" in lines
    assert "column 'id' counts the rows (1 to 600, each once)" in lines and "'pay' " not in lines
    assert [column.dtype for column in dataset.signature.inputs] == ["int64", "float64"]
    assert dataset.signature.classes == ("00", "01", "02")
    kinds = [warning.kind for warning in dataset.warnings]
    assert kinds == ["row_number"]
    write_csv(tmp_path / "in" / "later" / "b.csv", [{**row, "pay": row["pay"] * 100} for row in rows])
    source = {"format": "csv", "path": str(tmp_path / "in" / "later" / "b.csv")}
    fields = {"split": {"leaks": "warn"}, "test_source": source, "transforms": []}
    for _ in range(2):  # the second time the version is in the store already
        stream.truncate(0)
        moved = prepare(spec(tmp_path / "in", **fields), context)
        (told,) = [warning for warning in moved.warnings if warning.kind == "split_drift"]
        assert told.columns == ("pay",) and told.text in stream.getvalue()
