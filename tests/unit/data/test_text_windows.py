"""A text in windows: every character is predicted once, and splits are parts of the text one after another."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from raypipe.data.formats import text_windows
from raypipe.data.formats.text_windows import read_file
from raypipe.data.sources.listing import list_files
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.sources import TextWindowsSource

SOURCE = {"format": "text_windows", "path": "a.txt", "context_length": 4}


def read(folder: Path, content: bytes, **fields: Any) -> pa.Table:
    source = TextWindowsSource.model_validate({**SOURCE, **fields})
    (folder / str(source.path)).write_bytes(content)
    (file,) = list_files(source, str(folder))
    return pa.concat_tables(read_file(file, source=source))


def test_each_character_but_the_first_is_predicted_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_windows, "TABLE_ROWS", 3)
    text = "".join(chr(ord("a") + i % 26) for i in range(90)) + "äöü€𝄞\r\n\n end"
    table = read(tmp_path, text.encode())
    windows = table["text"].to_pylist()
    predicted = "".join(window[1:] for window in windows)
    assert text[1:].startswith(predicted) and len(text) - 1 - len(predicted) < 4
    assert all(len(window) == 5 for window in windows)
    place = [round(position * len(text)) for position in table["position"].to_pylist()]
    assert place == list(range(0, 4 * len(windows), 4))


def test_compressed_text_is_read_and_wrong_bytes_make_a_bad_row(tmp_path: Path):
    assert read(tmp_path, gzip.compress(b"abcdefghi"), path="a.txt.gz")["text"].to_pylist() == ["abcde", "efghi"]
    table = read(tmp_path, b"abcdef\xffhi")
    assert table["text"].to_pylist() == ["abcde", None]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"a\.txt is empty; a window of source\.context_length 4 needs 5"),
        (b"abcd", r"a\.txt has 4 characters; a window of source\.context_length 4 needs 5"),
    ],
)
def test_text_shorter_than_a_window_is_refused(content: bytes, words: str, tmp_path: Path):
    with pytest.raises(DataError, match=words):
        read(tmp_path, content)


def test_task_says_what_follows_from_it_and_again_when_read_again():
    spec = DataSpec.model_validate({"task": "language_model", "source": SOURCE, "split": {"val_frac": 0.2}})
    assert (spec.target, spec.features, spec.split.kind, spec.split.reads) == ("text", ["text"], "time", ("position",))
    (tokens,) = spec.transforms
    assert (tokens.kind, tokens.columns) == ("tokens", ["text"])
    assert tokens.model_dump()["max_length"] == 5
    again = DataSpec.model_validate(spec.model_dump(mode="json"))
    assert again == spec and again.fingerprint() == spec.fingerprint()
    longer = spec.model_dump(mode="json")
    longer["source"]["context_length"] = 8
    assert DataSpec.model_validate(longer).transforms[0].model_dump()["max_length"] == 9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": {"format": "csv", "path": "a.csv"}}, "reads source.format: text_windows, found csv"),
        ({"target": "label"}, "leave target out"),
        ({"features": ["position"]}, "leave features out"),
        ({"transforms": [{"kind": "standardize", "columns": ["position"]}]}, "leave transforms out"),
        ({"source": {**SOURCE, "context_length": "long"}}, "context_length"),
    ],
)
def test_file_that_says_otherwise_is_refused(fields: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(DataSpec).validate_python({"task": "language_model", "source": SOURCE, **fields})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"model": {"kind": "mlp"}}, "model.kind: mlp does not fit data.task: language_model; use gpt or import"),
        ({"train": {"loss": "mse"}}, "train.loss: 'mse' does not fit data.task: language_model"),
        ({"train": {"target_transform": "log"}}, "tokens are not numbers to scale"),
        ({"train": {"class_weights": "balanced"}}, "needs data.task: classification"),
        ({"evaluate": {"gates": [{"metric": "accuracy", "min": 0.5}]}}, "use one of .*perplexity"),
    ],
)
def test_pipeline_whose_parts_fit_no_language_model_is_refused(parts: dict[str, Any], words: str):
    data = {"task": "language_model", "source": SOURCE}
    with pytest.raises(ValidationError, match=words):
        PipelineSpec.model_validate({"name": "p", "data": data, "model": {"kind": "gpt"}, **parts})


def test_gpt_for_rows_of_another_kind_is_refused():
    data = {"source": {"format": "sklearn", "dataset": "iris"}, "target": "target"}
    with pytest.raises(ValidationError, match=r"model\.kind: gpt does not fit data\.task: classification"):
        PipelineSpec.model_validate({"name": "p", "data": data, "model": {"kind": "gpt"}})
