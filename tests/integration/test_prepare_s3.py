"""From files in S3 to a dataset version, on a real S3 server."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import load_rows
from raypipe.data.stage import prepare
from raypipe.errors import RaypipeError, StoreAccessError, StoreError
from raypipe.pipeline.plan import source_fingerprint
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, spec, store_files

pytestmark = [pytest.mark.ray, pytest.mark.s3]


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


def test_source_on_s3_that_is_not_there_is_refused_by_name(s3, bucket):
    for path in (f"s3://{bucket}/nothing.csv", f"s3://{bucket}-no/nothing.csv"):
        with pytest.raises(RaypipeError, match=r"nothing\.csv"):
            source_fingerprint(spec("unused", path))
    assert not Path("unused").exists()


def test_source_on_s3_with_wrong_credentials_is_refused_with_what_to_check(s3, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreAccessError, match="access denied") as caught:
        source_fingerprint(spec("unused", f"s3://{bucket}/a.csv"))
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


def test_source_on_s3_that_does_not_answer_may_be_tried_again(s3_address, free_port, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    with pytest.raises(StoreError, match="S3 did not answer") as caught:
        source_fingerprint(spec("unused", "s3://bucket/a.csv"))
    assert caught.value.transient
