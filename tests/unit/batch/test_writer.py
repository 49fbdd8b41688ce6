"""An output is empty, ours, or refused; it is whole once its success mark is there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data.extensions import ArrowTensorArray

from raypipe.batch import writer
from raypipe.batch.writer import SHARDS, STARTED, SUCCESS, Claim, ParquetShards, Success, claim, complete
from raypipe.errors import DataError
from raypipe.storage import open_store
from raypipe.storage.publish import sha256

CLAIM = Claim(model="digits", version=2, artifact="ab" * 32, source={"format": "csv", "path": "in.csv"})


class Silent:
    """Stands for the progress channel, which needs Ray."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def send(self, event: dict[str, int], *, force: bool) -> None:
        del event, force


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParquetShards:
    monkeypatch.setattr(writer, "Reporter", Silent)
    return ParquetShards(str(tmp_path / "out"), channel="c")


def write(sink: ParquetShards, task_idx: int, *tables: pa.Table):
    return sink.write(tables, SimpleNamespace(task_idx=task_idx))


def test_claim_of_an_empty_folder_marks_it(tmp_path: Path):
    store = claim(str(tmp_path / "out"), CLAIM)
    assert [info.key for info in store.list("")] == [STARTED]
    assert Claim.model_validate_json(store.read(STARTED)) == CLAIM


def test_claim_of_a_relative_path_starts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert claim("out", CLAIM).uri == str(tmp_path / "out")


def test_claim_again_by_the_same_claim_removes_what_it_left(tmp_path: Path):
    store = claim(str(tmp_path), CLAIM)
    store.write("part-00007.parquet", b"x")
    complete(store, CLAIM, [], 0.0)
    assert [info.key for info in claim(str(tmp_path), CLAIM).list("")] == [STARTED]


def test_claim_after_an_attempt_that_wrote_nothing_is_free_to_another_claim(tmp_path: Path):
    claim(str(tmp_path), CLAIM)
    other = CLAIM.model_copy(update={"version": 3})
    assert Claim.model_validate_json(claim(str(tmp_path), other).read(STARTED)) == other


@pytest.mark.parametrize("change", [{"version": 3}, {"model": "wine"}, {"source": {"format": "csv", "path": "other"}}])
def test_claim_of_the_output_of_another_claim_is_refused_and_changes_nothing(tmp_path: Path, change: dict):
    store = claim(str(tmp_path), CLAIM)
    store.write("part-00000.parquet", b"x")
    with pytest.raises(DataError, match="holds the predictions of digits@2"):
        claim(str(tmp_path), CLAIM.model_copy(update=change))
    assert [info.key for info in store.list("")] == [STARTED, "part-00000.parquet"]


def test_claim_of_a_folder_with_foreign_files_is_refused_and_changes_nothing(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match=r"is not empty: it holds thesis\.txt"):
        claim(str(tmp_path), CLAIM)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_claim_of_our_own_output_with_a_foreign_file_in_it_is_refused(tmp_path: Path):
    claim(str(tmp_path), CLAIM)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds notes\.txt, which raypipe did not write"):
        claim(str(tmp_path), CLAIM)


def test_claim_of_an_output_with_an_unreadable_mark_is_refused(tmp_path: Path):
    (tmp_path / STARTED).write_text("{}")
    (tmp_path / "part-00000.parquet").write_text("x")
    with pytest.raises(DataError, match="nobody knows whose it is"):
        claim(str(tmp_path), CLAIM)


def test_write_of_one_task_is_one_object_named_after_it(sink: ParquetShards, tmp_path: Path):
    shard = write(sink, 3, pa.table({"a": [1, 2]}), pa.table({"a": [3]}))
    assert shard is not None
    data = (tmp_path / "out" / "part-00003.parquet").read_bytes()
    assert (shard.key, shard.num_rows, shard.size_bytes, shard.sha256) == (
        "part-00003.parquet",
        3,
        len(data),
        sha256(data),
    )
    assert pq.read_table(io.BytesIO(data)).to_pydict() == {"a": [1, 2, 3]}


def test_write_of_a_repeated_task_leaves_one_object_with_the_same_bytes(sink: ParquetShards, tmp_path: Path):
    first = write(sink, 0, pa.table({"a": [1, 2]}))
    assert write(sink, 0, pa.table({"a": [1, 2]})) == first
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part-00000.parquet"]


def test_write_without_rows_leaves_no_object(sink: ParquetShards, tmp_path: Path):
    assert write(sink, 0, pa.table({"a": pa.array([], pa.int64())})) is None
    assert not (tmp_path / "out").exists()


def test_write_of_arrays_is_readable_by_any_parquet_reader(sink: ParquetShards, tmp_path: Path):
    image_BHW = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write(sink, 0, pa.table({"image": ArrowTensorArray.from_numpy(image_BHW), "label": [1, 2]}))
    table = pq.ParquetFile(tmp_path / "out" / "part-00000.parquet").read()
    assert table["image"].to_pylist() == image_BHW.tolist()
    assert table.schema.field("image").type.value_type.value_type == pa.uint8()


def test_complete_lists_the_shards_in_row_order(tmp_path: Path, sink: ParquetShards):
    store = open_store(str(tmp_path / "out"))
    shards = [write(sink, i, pa.table({"a": [i]})) for i in (2, 0, 1)]
    success = complete(store, CLAIM, [shard for shard in shards if shard], 1_700_000_000.0)
    assert Success.model_validate_json(store.read(SUCCESS)) == success
    lines = store.read(SHARDS)
    assert success.num_shards == 3 and success.shards_sha256 == sha256(lines)
    assert [json.loads(line)["key"] for line in lines.splitlines()] == [f"part-0000{i}.parquet" for i in range(3)]
    assert (success.num_rows, success.finished_at) == (3, "2023-11-14T22:13:20+00:00")
