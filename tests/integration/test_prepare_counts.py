"""The rows that are counted are the rows that are stored."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypipe.data.stage import prepare
from raypipe.errors import DataError
from raypipe.records import DataProfile
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.storage import open_store
from raypipe.storage.documents import read_document
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, spec, store_files, write_csv

pytestmark = pytest.mark.ray

REPEATS = [{**row, "pay": row["pay"] + 100} for row in ADULTS[:100]]
"""Rows with keys that are there already."""


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    return run_context(open_store(str(tmp_path / "store")))


def test_prepare_counts_rows_without_the_repeats_that_are_set_aside(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", [*ADULTS, *REPEATS])
    unique = {"kind": "unique", "columns": ["key"], "on_fail": "quarantine"}
    fields: dict[str, Any] = {"bad_rows": {"max_frac": 0.5}}
    count = {"kind": "row_count", "min": 600, "max": 600}
    made = prepare(spec(tmp_path / "in", expectations=[count, unique], **fields), ctx)
    assert made.profile_key
    profile = read_document(ctx.store, made.profile_key, DataProfile)
    assert [(result.kind, result.passed) for result in profile.expectations] == [("row_count", True), ("unique", False)]
    before = store_files(ctx.store)
    more = {**count, "min": 601, "max": None}
    with pytest.raises(DataError, match=r"the number of rows is at least 601; there are 600 rows"):
        prepare(spec(tmp_path / "in", expectations=[more, unique], **fields), ctx)
    assert store_files(ctx.store) == before


def test_prepare_counts_rows_without_the_copies_that_leak_into_another_split(ray_cluster, ctx, tmp_path):
    write_csv(tmp_path / "in" / "a.csv", ADULTS)
    write_csv(
        tmp_path / "in" / "t.csv",
        [*ADULTS[:50], *({**row, "key": row["key"] + 1000, "pay": row["pay"] + 9} for row in ADULTS)],
    )
    fields: dict[str, Any] = {
        "test_source": {"format": "csv", "path": "t.csv"},
        "split": {"key": ["key"], "leaks": "drop"},
        "bad_rows": {"max_frac": 0.5},
    }
    count = {"kind": "row_count", "max": 1200, "on_fail": "warn"}
    made = prepare(spec(tmp_path / "in", "a.csv", expectations=[count], **fields), ctx)
    assert sum(split.num_rows for split in made.splits.values()) == 1200
    assert made.profile_key
    (found,) = read_document(ctx.store, made.profile_key, DataProfile).expectations
    assert found.passed and found.detail == "there are 1200 rows"


def test_prepare_of_two_yes_no_features_beside_an_id_is_not_refused_and_says_what_it_found(ray_cluster, ctx, tmp_path):
    rows = [{"id": i, "a": i * i % 7 % 2, "b": i % 5 % 2, "y": i % 3 % 2} for i in range(1000)]
    write_csv(tmp_path / "in" / "a.csv", rows)
    lines = io.StringIO()
    fields: dict[str, Any] = {"target": "y", "features": ["a", "b"], "split": {}, "transforms": []}
    context = replace(ctx, progress=Progress("r", stream=lines))
    made = prepare(spec(tmp_path / "in", **fields), context)
    assert made.row_identity == "features_and_target" and made.split_state == {"kind": "hash", "each_copy": True}
    assert 150 < made.splits["test"].num_rows < 250 and 60 < made.splits["val"].num_rows < 140
    assert "test rows have a twin in train, chance would give about" in lines.getvalue()
    assert "the 1000 rows are 8 different ones" in lines.getvalue()
    write_csv(tmp_path / "in" / "a.csv", [{**row, "id": row["id"] + 7, "more": 1} for row in rows[::-1]])
    again = prepare(spec(tmp_path / "in", read_parallelism=3, **fields), context)
    assert again == made  # found in the store
