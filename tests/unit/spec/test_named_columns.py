"""`columns` of a source that the user narrowed: what else the file names must be among them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from raypipe.data.shuffle.read_all import as_read
from raypipe.spec.data import DataSpec

READ = ["a", "b", "y"]


def spec(columns=READ, **fields):
    source = {"format": "csv", "path": "f.csv", "columns": columns, **fields.pop("source", {})}
    return DataSpec.model_validate({"source": source, "target": "y", **fields})


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"features": ["a", "c"]}, "features"),
        ({"features": ["a"], "split": {"key": ["c"]}}, "split"),
        ({"split": {"kind": "grouped", "group": ["c"]}}, "split"),
        ({"split": {"kind": "stratified", "by": "c"}}, "split"),
        ({"split": {"kind": "time", "column": "c"}}, "split"),
        ({"transforms": [{"kind": "standardize", "columns": ["c"]}]}, r"transforms\[0\] \(standardize\)"),
        ({"expectations": [{"kind": "not_null", "columns": ["c"]}]}, r"expectations\[0\] \(not_null\)"),
        ({"masking": [{"columns": ["c"], "method": "drop"}]}, r"masking\[0\]"),
    ],
)
def test_column_that_the_source_does_not_read_is_refused_with_both_places(fields, place):
    with pytest.raises(ValidationError, match=rf"{place} names \['c'\], but source\.columns does not read it"):
        spec(**fields)


def test_target_that_a_ready_made_split_does_not_read_is_refused_with_its_source():
    with pytest.raises(ValidationError, match=r"target names \['y'\], but test_source\.columns does not read it"):
        spec(test_source={"format": "csv", "path": "t.csv", "columns": ["a"]})


def test_column_that_only_chooses_rows_need_not_stay():
    found = spec(source={"where": [{"column": "c", "op": "not_null"}]})
    assert found.source.columns == READ


@pytest.mark.parametrize("split", [{}, {"key": ["b"]}, {"kind": "grouped", "group": ["b"]}])
def test_no_other_column_is_read_than_the_narrowed_source_names(split):
    narrowed = spec(features=["a"], split=split)
    assert set(as_read(narrowed.source, narrowed).columns or ()) <= set(READ)
