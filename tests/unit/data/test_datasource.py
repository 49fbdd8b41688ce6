"""What read tasks carry, and how many rows a source is taken to have before it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle

from raypipe.data.formats import FORMATS
from raypipe.data.formats.datasource import SMALL_BYTES, TASK_FILES, FilesDatasource, few_files, grouped
from raypipe.data.formats.folders import FileRows
from raypipe.data.formats.labels import FileRow
from raypipe.data.formats.parts import FileRange
from raypipe.data.masking import UNMASKED
from raypipe.data.sources.place import SourceFile
from tests.unit.data.helpers import source

dumps: Any = vars(ray.cloudpickle)["dumps"]


def nothing(part: FileRange) -> list[pa.Table]:
    del part
    return []


def datasource(name: str, root: Any, **fields: Any) -> FilesDatasource:
    spec = source(name, **fields)
    return FilesDatasource(*FORMATS[name].plan(spec, str(root)), spec, UNMASKED, False)


def estimated(name: str, root: Any, **fields: Any) -> int | None:
    spec = source(name, **fields)
    return FORMATS[name].estimated_rows(datasource(name, root, **fields), spec)


def many(num_files: int, size_bytes: int | None = 100) -> list[FileRange]:
    files = [f"/data/some/folder/{number:06}.csv" for number in range(num_files)]
    return [
        FileRange(SourceFile(uri[6:], uri, size_bytes, f"{size_bytes} {2**60} {2**60} 7"), size_bytes) for uri in files
    ]


@pytest.mark.thorough
def test_read_tasks_of_100_000_files_stay_small_whatever_lies_beside_them_and_however_few_are_asked_for():
    large = FileRange(SourceFile("large.csv", "/large.csv", 2**40, ""), 2**40)
    files = FilesDatasource([large, *many(100_000)], nothing, source("csv"), UNMASKED, False)
    tasks = files.get_read_tasks(1)
    assert 100 <= len(tasks) <= 102
    assert max(len(dumps(task)) for task in tasks) < 300_000
    assert all(task.metadata.input_files is None for task in tasks)


def test_files_are_divided_in_order_and_none_is_lost():
    parts = many(2500)
    groups = [few for group in grouped(parts, 2) for few in few_files(group)]
    assert [part for group in groups for part in group] == parts
    assert max(len(group) for group in groups) <= TASK_FILES
    rows = FileRows(tuple(FileRow(part.file, part.name, None) for part in parts[:600]))
    assert [len(group) for group in few_files([rows, rows, rows])] == [1, 1, 1]


def test_files_of_unknown_size_make_the_size_unknown_and_get_tasks_of_their_own():
    parts = [*many(2, None), *many(10)]
    files = FilesDatasource(parts, nothing, source("csv"), UNMASKED, False)
    assert files.num_bytes is None and files.estimate_inmemory_data_size() is None
    assert FilesDatasource(many(3, SMALL_BYTES), nothing, source("csv"), UNMASKED, False).num_bytes == 3 * SMALL_BYTES
    assert [len(group) for group in grouped(parts, 3)] == [1, 1, 10]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_rows_of_text_are_estimated_from_its_beginning(suffix, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}{suffix}").write_text('{"a": 1}\n' * 1000)
    name = {".csv": "csv", ".jsonl": "jsonl", ".txt": "text"}[suffix]
    assert estimated(name, tmp_path, path=".") == 3000


def test_rows_of_files_that_tell_them_are_known(tmp_path):
    pq.write_table(pa.table({"a": range(5000)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": range(5000)}), tmp_path / "b.parquet")
    assert abs((estimated("parquet", tmp_path, path=".") or 0) - 10_000) < 10
    np.save(tmp_path / "x.npy", np.zeros((123, 4)))
    assert estimated("numpy", tmp_path, path=None, arrays={"x": "x.npy"}) == 123
    for number in range(7):
        (tmp_path / f"{number}.wav").write_bytes(b"x")
    assert estimated("sound", tmp_path, path=".", sample_rate=1000, duration_s=1) == 7


def test_rows_of_a_stream_that_tells_nothing_are_not_known(tmp_path):
    with pa.ipc.new_stream(tmp_path / "a.arrows", pa.schema({"a": pa.int64()})) as stream:
        stream.write_table(pa.table({"a": [1]}))
    assert estimated("arrow", tmp_path, path="a.arrows") is None
