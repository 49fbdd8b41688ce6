"""The table of columns that `raypipe data` ends with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raypipe.cli.columns import MAX_COLUMNS, show_columns
from raypipe.records import ColumnProfile, DataProfile, DatasetVersion, DataWarning, TopValue
from raypipe.storage.documents import write_document
from raypipe.testing.fakes import MemoryStore, tiny_dataset

KEY = "datasets/d/v/profile.json"


def column(name: str, dtype: str, top: dict[Any, int] | None = None, **fields: Any) -> ColumnProfile:
    found = tuple(TopValue(value=value, count=count) for value, count in (top or {}).items())
    return ColumnProfile(name=name, dtype=dtype, **{"count": 200, "nulls": 0, "top": found, **fields})


def shown(capsys: pytest.CaptureFixture[str], *columns: ColumnProfile) -> list[str]:
    """Lines of the table, with runs of blanks as one."""
    store = MemoryStore()
    write_document(store, KEY, DataProfile(name="d", version="v", num_rows=200, columns=columns))
    show_columns(store, dataset_of(store))
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def dataset_of(store: MemoryStore) -> DatasetVersion:
    made = tiny_dataset(store, {"x": np.arange(4.0)}, np.arange(4) % 2)
    return made.model_copy(update={"profile_key": KEY})


@pytest.mark.parametrize(
    ("profile", "line"),
    [
        (column("age", "int64", min=17, max=90, mean=38.5812), "age int64 17 to 90, mean 38.5812 whole number"),
        (column("pay", "float64", nulls=13, min=0.0, max=1e9), "pay float64 6.5% 0 to 1e+09 number"),
        (
            column("y", "int64", {0: 150, 1: 50}, min=0, max=1, distinct=2),
            "y int64 0 (150), 1 (50) whole number the target",
        ),
        (
            column("city", "string", {"Bonn": 90, "Köln": 60, "Aachen": 30, "Trier": 20}, distinct=4),
            "city string Bonn (90), Köln (60), Aachen (30), ... 4 different category of 4",
        ),
        (column("id", "string", {"a": 1}, distinct=200), "id string a (1), ... 200 different text"),
        (column("same", "float64", {3.0: 200}, min=3.0, max=3.0, distinct=1), "same float64 3 (200) one value"),
        (column("gone", "float64", nulls=200), "gone float64 100.0% no value"),
        (column("inf", "float64", min=0.5, max=2.0, infinite=7), "inf float64 0.5 to 2 number 7 infinite"),
        (
            column("image", "uint8", shape=(8, 8), min=0, max=16, mean=4.9),
            "image uint8 [8, 8] 0 to 16, mean 4.9 array 8 x 8",
        ),
        (column("x\x1b[2J\n", "string", {"\u202e" * 40: 200}, distinct=1), None),
    ],
)
def test_row_says_what_a_column_holds(capsys: pytest.CaptureFixture[str], profile: ColumnProfile, line: str | None):
    header, row = shown(capsys, profile)
    assert header == "column type missing values recognised as note"
    if line is None:  # what a file's author wrote neither moves the cursor nor makes a line
        assert "\x1b" not in row and "\u202e" not in row
    else:
        assert row == line


def test_warnings_follow_the_table_and_their_columns_point_at_them(capsys: pytest.CaptureFixture[str]):
    store = MemoryStore()
    columns = (column("age", "float64", min=0.0, max=1.0), column("x", "float64", min=0.0, max=1.0))
    write_document(store, KEY, DataProfile(name="d", version="v", num_rows=200, columns=columns))
    warned = DataWarning(kind="leak", columns=("x",), text="column 'x' alone tells the target")
    show_columns(store, dataset_of(store).model_copy(update={"warnings": (warned,)}))
    table, _, warnings = capsys.readouterr().out.strip().rpartition("\n\n")
    assert [line.endswith("see below") for line in table.splitlines()] == [False, False, True]
    assert warnings == "warning: column 'x' alone tells the target"


def test_table_of_many_columns_ends_and_says_where_the_rest_is(capsys: pytest.CaptureFixture[str]):
    lines = shown(capsys, *(column(f"c{i}", "float64", min=0.0, max=1.0) for i in range(MAX_COLUMNS + 7)))
    assert len(lines) == 1 + MAX_COLUMNS + 1
    assert lines[-1] == f"and 7 more columns, in {KEY}"


def test_profile_that_is_not_there_or_damaged_leaves_the_table_out(capsys: pytest.CaptureFixture[str]):
    store = MemoryStore()
    show_columns(store, dataset_of(store))
    store.write(KEY, b"{}")
    show_columns(store, dataset_of(store))
    assert capsys.readouterr().out == ""
