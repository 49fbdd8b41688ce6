"""Batch inference with real Ray Data: rows out are rows in, answers are the Predictor's, errors keep their type."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from raypipe.batch.reading import source_fields
from raypipe.batch.stage import predict_batch
from raypipe.errors import DataError, DigestMismatch
from raypipe.model.predictor import Predictor
from raypipe.records import BatchOutput, ModelVersion, Reading
from raypipe.registry.stage import register
from raypipe.runtime.context import RunContext
from raypipe.spec.batch import BatchSpec
from raypipe.spec.data import Task
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import open_store
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context
from tests.integration.conftest import S3Server

pytestmark = pytest.mark.ray


@pytest.fixture
def ctx(ray_cluster: SimpleNamespace, tmp_path: Path) -> RunContext:
    return run_context(open_store(str(tmp_path / "store")))


def registered(ctx: RunContext, task: Task = "classification") -> ModelVersion:
    dataset = tiny.dataset(ctx.store, num_test_rows=50, task=task)
    trained = tiny.trained(ctx.store, dataset)
    return register(RegistrySpec(), "tiny", trained, dataset, tiny.report(trained), ctx)


def rows(count: int, offset: int = 0) -> pa.Table:
    a = np.sin(np.arange(offset, offset + count))
    names = [f"row {i}" for i in range(offset, offset + count)]
    return pa.table({"id": names, "b": a[::-1] * 2, "a": a})


def answered(output: BatchOutput) -> pa.Table:
    store = open_store(output.output)
    return pa.concat_tables([pq.read_table(io.BytesIO(store.read(shard["key"]))) for shard in shards(output)])


def shards(output: BatchOutput) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_store(output.output).read(output.shards_key).splitlines()]


def spec(source: dict[str, Any], output: Path | str, **fields: Any) -> BatchSpec:
    return BatchSpec.model_validate({"source": source, "output": str(output), **fields})


def test_batch_over_files_gives_every_row_once_in_order_with_the_predictors_answers(ctx: RunContext, tmp_path: Path):
    model = registered(ctx)
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(rows(1000, 1000 * i), tmp_path / "in" / f"{i}.parquet")
    source = {"format": "parquet", "path": str(tmp_path / "in")}
    output = predict_batch(spec(source, tmp_path / "out", num_workers=2, worker_batch_size=300), model, ctx)
    table, expected = answered(output), pa.concat_tables([rows(1000, 1000 * i) for i in range(3)])
    assert output.num_rows == 3000
    assert table.select(["id", "b", "a"]).equals(expected)
    columns = {name: expected[name].to_numpy() for name in ("a", "b")}
    predictions = Predictor.load(ctx.store, model.artifact).predict(columns)
    assert table["prediction"].to_pylist() == [tiny.CLASSES[i] for i in predictions.labels()]
    assert np.abs(table["probability"].to_numpy() - predictions.values.max(axis=1)).max() < 1e-6
    success = json.loads((tmp_path / "out" / "_SUCCESS.json").read_text())
    assert (success["num_rows"], success["num_shards"]) == (3000, output.num_shards) == (3000, len(shards(output)))


def test_batch_over_text_that_one_file_keeps_as_a_dictionary_and_the_other_does_not(
    ctx: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("raypipe.data.formats.datasource.SMALL_BYTES", 2000)  # each file is read by a task of its own
    model = registered(ctx)
    for i in range(2):
        pq.write_table(rows(1000, 1000 * i), tmp_path / f"{i}.parquet", use_dictionary=i == 0)
    source = {"format": "parquet", "path": str(tmp_path / "*.parquet")}
    table = answered(predict_batch(spec(source, tmp_path / "out"), model, ctx))
    assert table.select(["id", "b", "a"]).equals(pa.concat_tables([rows(1000), rows(1000, 1000)]))


def test_batch_reads_a_file_as_the_rows_the_model_learned(ctx: RunContext, tmp_path: Path):
    dataset = tiny.dataset(ctx.store, num_test_rows=50)
    reading = Reading(format="csv", settings={"delimiter": ";", "dtypes": {"y": "string", "note": "string"}})
    learned = dataset.signature.model_copy(update={"reading": reading})
    dataset = dataset.model_copy(update={"signature": learned})
    trained = tiny.trained(ctx.store, dataset)
    model = register(RegistrySpec(), "tiny", trained, dataset, tiny.report(trained), ctx)
    (tmp_path / "rows.txt").write_text("id;b;a;note\nx;1.5;2;007\ny;0.5;-1;08\n")
    fields = source_fields({"format": "csv", "path": str(tmp_path / "rows.txt")}, model.signature.reading)
    table = answered(predict_batch(spec(fields, tmp_path / "out"), model, ctx))
    assert table["id"].to_pylist() == ["x", "y"] and table["note"].to_pylist() == ["007", "08"]
    expected = Predictor.load(ctx.store, model.artifact).predict({"a": np.array([2.0, -1]), "b": np.array([1.5, 0.5])})
    assert table["prediction"].to_pylist() == [tiny.CLASSES[i] for i in expected.labels()]


def test_batch_reads_each_file_once_also_where_nobody_tells_its_length(ctx: RunContext, tmp_path: Path):
    content, asked = "b,a\n" + "".join(f"{i},{i}.5\n" for i in range(2000)), []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.command)
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content.encode())

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        source = {"format": "csv", "path": f"http://127.0.0.1:{server.server_port}/f.csv"}
        output = predict_batch(
            spec(source, tmp_path / "out", num_workers=2, worker_batch_size=100), registered(ctx), ctx
        )
        server.shutdown()
        thread.join()
    assert asked == ["HEAD", "GET"]
    assert answered(output)["b"].to_pylist() == list(range(2000)) and output.num_shards == 2


def test_batch_of_a_regression_again_replaces_what_it_wrote(ctx: RunContext, tmp_path: Path):
    model = registered(ctx, "regression")
    pyarrow.csv.write_csv(rows(100), tmp_path / "in.csv")
    wanted = spec({"format": "csv", "path": str(tmp_path / "in.csv")}, tmp_path / "out")
    first = predict_batch(wanted, model, ctx)
    before = answered(first)
    (tmp_path / "out" / "part-00009.parquet").write_bytes(b"left by an attempt with more files")
    assert predict_batch(wanted, model, ctx) == first
    assert answered(first).equals(before)
    assert not (tmp_path / "out" / "part-00009.parquet").exists()
    assert before.column_names == ["id", "b", "a", "prediction"]
    expected = before["a"].to_numpy() + 0.5 * before["b"].to_numpy()
    assert np.abs(before["prediction"].to_numpy() - expected).max() < 1e-6


def test_batch_over_rows_that_do_not_fit_is_an_error_and_leaves_no_success_mark(ctx: RunContext, tmp_path: Path):
    model = registered(ctx)
    pq.write_table(rows(10).drop(["b"]), tmp_path / "in.parquet")
    wanted = spec({"format": "parquet", "path": str(tmp_path / "in.parquet")}, tmp_path / "out")
    with pytest.raises(DataError, match="no column 'b', which the model reads") as caught:
        predict_batch(wanted, model, ctx)
    assert type(caught.value) is DataError
    assert not (tmp_path / "out" / "_SUCCESS.json").exists()


def test_batch_with_a_damaged_model_is_an_error_with_its_type(ctx: RunContext, tmp_path: Path):
    model = registered(ctx)
    key = f"{model.artifact.key}/weights.safetensors"
    ctx.store.write(key, ctx.store.read(key)[:-1])
    pq.write_table(rows(10), tmp_path / "in.parquet")
    wanted = spec({"format": "parquet", "path": str(tmp_path / "in.parquet")}, tmp_path / "out")
    with pytest.raises(DigestMismatch, match=r"weights\.safetensors is damaged"):
        predict_batch(wanted, model, ctx)


def test_batch_into_a_folder_of_somebody_else_is_refused_and_changes_nothing(ctx: RunContext, tmp_path: Path):
    model = registered(ctx)
    pq.write_table(rows(10), tmp_path / "in.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    wanted = spec({"format": "parquet", "path": str(tmp_path / "in.parquet")}, tmp_path / "out")
    with pytest.raises(DataError, match="is not empty"):
        predict_batch(wanted, model, ctx)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_batch_over_a_source_that_is_not_there_leaves_no_output(ctx: RunContext, tmp_path: Path):
    wanted = spec({"format": "csv", "path": str(tmp_path / "nothing.csv")}, tmp_path / "out")
    with pytest.raises(DataError, match=r"nothing\.csv"):
        predict_batch(wanted, registered(ctx), ctx)
    assert not (tmp_path / "out").exists()


@pytest.mark.s3
def test_batch_from_s3_to_s3_with_the_model_in_s3(ray_cluster: SimpleNamespace, s3: S3Server, bucket: str):
    ctx = run_context(open_store(f"s3://{bucket}/store"))
    model = registered(ctx)
    buffer = io.BytesIO()
    pq.write_table(rows(500), buffer)
    open_store(f"s3://{bucket}/in").write("rows.parquet", buffer.getvalue())
    source = {"format": "parquet", "path": f"s3://{bucket}/in/rows.parquet"}
    output = predict_batch(spec(source, f"s3://{bucket}/out"), model, ctx)
    assert (output.output, output.num_rows) == (f"s3://{bucket}/out", 500)
    assert answered(output).drop(["prediction", "probability"]).equals(rows(500))
