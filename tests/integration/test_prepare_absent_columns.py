"""Columns that only some files, or some lines of a file, have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.data.shards import load_rows
from raypipe.data.stage import prepare
from raypipe.errors import DataError
from raypipe.runtime.context import RunContext
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, PLAIN, spec, store_files, write_csv

pytestmark = pytest.mark.ray


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    return run_context(open_store(str(tmp_path / "store")))


def test_prepare_of_a_column_of_numbers_and_text_that_a_third_file_has_not_reads_all_rows(ray_cluster, ctx, tmp_path):
    folder = tmp_path / "in"
    write_csv(folder / "a.csv", [{**row, "age": 30, "city": 5} for row in ADULTS[:200]])
    write_csv(folder / "b.csv", [{**row, "age": 30} for row in ADULTS[200:400]])
    write_csv(folder / "c.csv", [{k: v for k, v in {**row, "age": 30}.items() if k != "city"} for row in ADULTS[400:]])
    made = prepare(spec(folder, **PLAIN), ctx)
    assert sum(split.num_rows for split in made.splits.values()) == 600


def test_prepare_with_a_declared_type_of_a_column_that_no_file_has_is_refused(ray_cluster, ctx, tmp_path):
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / "in" / name, ADULTS)
    source = {"format": "csv", "path": "*.csv", "dtypes": {"citty": "string"}}
    with pytest.raises(DataError, match="column 'citty' is not there, did you mean 'city'"):
        prepare(spec(tmp_path / "in", source=source), ctx)


@pytest.mark.parametrize("parallelism", [1, 4])
def test_prepare_masks_and_asks_for_a_field_that_few_lines_have_and_refuses_one_that_none_has(
    ray_cluster, ctx, tmp_path, monkeypatch, parallelism
):
    rows = [{**row, "age": 30, **({"note": "CANARY"} if row["key"] == 433 else {})} for row in ADULTS]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("raypipe.data.formats.lines.CHUNK_BYTES", 2000)
    where = [{"column": "note", "op": "is_null"}]
    source = {"format": "jsonl", "path": "f.jsonl", "where": where}
    fields: dict[str, Any] = {**PLAIN, "read_parallelism": parallelism}
    mask = {"columns": ["note"], "method": "drop"}
    made = prepare(spec(tmp_path, source=source, **fields), ctx)
    assert sum(len(load_rows(ctx.store, made, name).row_id) for name in made.splits) == 599
    prepare(spec(tmp_path, source={**source, "where": []}, masking=[mask], **fields), ctx)
    before = store_files(ctx.store)
    assert not any(b"CANARY" in data for data in before.values())
    wrong = {**mask, "columns": ["nite"]}
    with pytest.raises(DataError, match=r"data\.source: column 'nite' is not there; it has 6 columns"):
        prepare(spec(tmp_path, source={**source, "where": []}, masking=[wrong], **fields), ctx)
    with pytest.raises(DataError, match=r"data\.source: column 'nite' is not there, did you mean 'note'"):
        prepare(spec(tmp_path, source={**source, "where": [{**where[0], "column": "nite"}]}, **fields), ctx)
    assert store_files(ctx.store) == before
