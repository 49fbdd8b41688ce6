"""Batch inputs are read as the rows a model learned."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from raypipe.batch.reading import as_learned, source_fields
from raypipe.data.formats.csv import refuse_undeclared
from raypipe.records import Column, Reading, Signature
from raypipe.spec.sources import FORMAT_NAMES, Source
from tests.unit.data.helpers import reader, source, source_file

LEARNED: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ";", "null_values": ["-"], "dtypes": {"zip": "string", "y": "int64"}},
    "sound": {"sample_rate": 8000, "duration_s": 0.5},
    "images": {"size": [8, 8], "mode": "L"},
    "text": {"rows": "windows", "window_chars": 64},
    "jsonl": {"dtypes": {"x": "float64", "y": "int64"}},
}
PLACES: dict[str, dict[str, Any]] = {
    "idx": {"images": "i", "labels": "l"},
    "sklearn": {"dataset": "iris"},
    "numpy": {"arrays": {"x": "x.npy"}},
}


def read_as(spec: Any) -> Reading:
    return Reading(format=spec.format, settings=spec.settings())


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_settings_of_training_are_those_of_the_input_and_its_files_are_not(name: str):
    places = PLACES.get(name, {"path": "train"})
    choice = {"columns": ["a"], "where": [{"column": "a", "op": "not_null"}]}
    fields = {"format": name, **LEARNED.get(name, {})}
    spec = TypeAdapter(Source).validate_python({**fields, **places, **choice})
    reading = Reading.model_validate_json(read_as(spec).to_json())
    assert not {*PLACES["idx"], "path", "columns", "where", "dataset", "arrays"} & reading.settings.keys()
    if name not in PLACES:
        made = source_fields({"format": name, "path": "new"}, reading)
        assert TypeAdapter(Source).validate_python(made) == source(name, path="new", **LEARNED.get(name, {}))


def test_fields_that_are_given_go_before_and_another_format_is_read_by_its_own_defaults():
    reading = Reading(format="csv", settings={**LEARNED["csv"], "path": "/etc", "where": []})
    assert source_fields({"format": "csv", "path": "a", "delimiter": ","}, reading) == {
        **LEARNED["csv"],
        "format": "csv",
        "path": "a",
        "delimiter": ",",
    }
    assert source_fields({"format": "parquet", "path": "a"}, reading) == {"format": "parquet", "path": "a"}
    assert source_fields({"format": "csv", "path": "a"}, None) == {"format": "csv", "path": "a"}


SIGNATURE = Signature(
    inputs=(Column(name="zip", dtype="string"), Column(name="code", dtype="string"), Column(name="x", dtype="int64")),
    task="classification",
    target="y",
    reading=Reading(format="csv", settings=LEARNED["csv"]),
)


def test_text_of_digits_stays_the_text_the_model_learned_and_the_target_need_not_be_there(tmp_path):
    (tmp_path / "f.csv").write_text("zip;code;x;note\n02139;7;1;a\n-;08;2;b\n")
    fields = source_fields({"format": "csv", "path": str(tmp_path / "f.csv")}, SIGNATURE.reading)
    learned = as_learned(TypeAdapter(Source).validate_python(fields), SIGNATURE)
    file = source_file(tmp_path / "f.csv")
    refuse_undeclared([file], learned)
    (table,) = reader("csv", **{k: v for k, v in dict(learned).items() if k not in ("format", "mixed", "path")})(file)
    assert table.to_pydict() == {"zip": ["02139", None], "code": ["7", "08"], "x": [1, 2], "note": ["a", "b"]}


def test_declared_fields_of_json_that_are_no_inputs_are_not_made_up():
    signature = SIGNATURE.model_copy(update={"reading": Reading(format="jsonl", settings=LEARNED["jsonl"])})
    fields = source_fields({"format": "jsonl", "path": "a"}, signature.reading)
    assert as_learned(TypeAdapter(Source).validate_python(fields), signature).dtypes == {"x": "float64"}
