from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.model import probe_rows
from raypipe.model.probe_rows import NUM_DRAWN, probe_features
from raypipe.records import Column, Signature
from raypipe.testing.contracts import TRANSFORM_COLUMNS, TransformContract
from raypipe.testing.fakes import fit_columns
from tests.unit.data.transforms import transforms


def probes(columns: dict[str, Any], *specs: dict[str, Any], **fields: Any) -> tuple[np.ndarray, FittedTransforms]:
    """Probe features of a dataset with these train rows."""
    inputs = tuple(Column(name=n, **{"dtype": _dtype(v), "shape": v.shape[1:], **fields}) for n, v in columns.items())
    fitted = fit_columns(transforms(*specs), inputs, [columns])
    shape = fitted.feature_shape(inputs)
    signature = Signature(inputs=inputs, task="regression", target="y")
    return probe_features(signature, fitted.state(), shape, lambda rows: fitted.apply(rows, inputs)), fitted


def _dtype(values: np.ndarray) -> str:
    return "string" if values.dtype == object else values.dtype.name


def test_same_rows_every_time_zeros_first():
    image = np.zeros((3, 4, 4), np.uint8)
    found, again = (
        probes({"image": image}, {"kind": "scale", "columns": ["image"], "factor": 1 / 255})[0] for _ in "ab"
    )
    np.testing.assert_array_equal(found, again)
    assert found.shape == (NUM_DRAWN + 3, 4, 4) and found.dtype == np.float32
    assert not found[0].any() and (found[1] == 1).all() and not found[2].any(), "zeros, white, black"
    assert found[3:].min() >= 0 and found[3:].max() <= 1 and found[3:].std() > 0.2


def test_numbers_lie_where_train_had_them():
    age = np.random.default_rng(0).normal(4000.0, 10.0, 200)
    plain = probes({"age": age}, {"kind": "clip", "columns": ["age"], "min": 3990.0, "max": 4010.0})[0]
    assert plain[1:].min() >= 3990 and plain[1:].max() <= 4010
    scaled = probes({"age": age}, {"kind": "standardize", "columns": ["age"]})[0]
    assert 0.5 < scaled[3:].std() < 2 and sorted(np.round(scaled[1:3, 0])) == [-10, 10]


def test_categories_and_their_combinations_are_those_of_train():
    columns = {"city": np.array(["Bonn", "Ulm"] * 5, object), "zone": np.array([3, 7] * 5)}
    found, _ = probes(
        columns,
        {"kind": "cross", "columns": ["city", "zone"], "unknown": "error", "keep": False},
    )
    assert found.shape[1] == 2 and (found[3:].sum(axis=1) == 1).all()


def test_places_in_an_embedding_stay_within_the_vocabulary():
    texts = np.array(["the cat sat", "the dog ran away"] * 5, object)
    found, fitted = probes(
        {"text": texts},
        {"kind": "tokens", "columns": ["text"], "tokenizer": "word", "max_length": 6, "max_vocabulary": 9},
    )
    known = len(fitted.state()[0]["columns"]["text"]["vocabulary"])
    assert found.min() >= 0 and found.max() < known + 2 and len(np.unique(found[3:], axis=0)) > 10
    assert (found == found.astype(int)).all()


class Logged(logging.Handler):
    """Keeps the errors that are logged with their traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.errors.append(record.exc_info[1])


@pytest.mark.parametrize(
    ("error", "is_told"), [(DataError("a value that is refused"), False), (KeyError("gone"), True)]
)
def test_what_transforms_refuse_is_passed_over_and_what_they_may_not_raise_is_logged(
    error: Exception, is_told: bool, monkeypatch: pytest.MonkeyPatch
):
    def apply(rows: Mapping[str, Any]) -> np.ndarray:
        raise error

    signature = Signature(inputs=(Column(name="x", dtype="float64"),), task="regression", target="y")
    logged = Logged()
    monkeypatch.setattr(probe_rows, "logger", logging.Logger("apart"))  # Serve's own has the level of whoever was here
    probe_rows.logger.addHandler(logged)
    found = probe_features(signature, [], (2,), apply)
    assert found.shape == (NUM_DRAWN + 1, 2) and np.isfinite(found).all(), "a start goes on with other rows"
    assert logged.errors == ([error] * 2 if is_told else [])


@pytest.mark.parametrize("name", TransformContract.usable_examples())
def test_every_kind_of_transform_gives_finite_rows_of_the_right_shape(name: str):
    for fields in TransformContract.examples[name]:
        columns = {c: TRANSFORM_COLUMNS[c] for c in fields["columns"] if name == "impute" or not _may_be_missing(c)}
        inputs = tuple(Column(name=c, **fields) for c, (fields, _) in columns.items())
        values = {c: rows for c, (_, rows) in columns.items()}
        fitted = fit_columns(transforms({"kind": name, **fields, "columns": list(columns)}), inputs, [values])
        if any(_is_text(fitted, values, column) for column in inputs):
            continue
        shape = fitted.feature_shape(inputs)
        signature = Signature(inputs=inputs, task="regression", target="y")
        found = probe_features(signature, fitted.state(), shape, lambda r, f=fitted, i=inputs: f.apply(r, i))
        assert found.shape[1:] == shape and len(found) > NUM_DRAWN and np.isfinite(found).all()
        if name in ("log", "date_parts"):  # they keep nothing of what train held
            continue
        real = fitted.apply(values, inputs)
        assert found[1:].max() >= np.quantile(real, 0.6) and found[1:].min() <= np.quantile(real, 0.4)


def _may_be_missing(name: str) -> bool:
    return TRANSFORM_COLUMNS[name][0].get("nullable", False)


def _is_text(fitted: FittedTransforms, values: dict[str, Any], column: Column) -> bool:
    return not isinstance(fitted.column(values[column.name], column), np.ndarray)
