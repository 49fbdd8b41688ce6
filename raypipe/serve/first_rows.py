"""Rows that a replica asks its own model before anybody else does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raypipe.errors import DataError, RequestError
from raypipe.records import Signature
from raypipe.serve.checker import Checker, Columns
from raypipe.serve.schemas import Notes, example_row

if TYPE_CHECKING:
    from raypipe.model.predictor import Predictor


def warm_up(predictor: Predictor) -> None:
    """Run one row through the model, so that the first request does not pay for lazy set-up."""
    try:
        for _ in range(2):
            predictor.predict(_blank_row(predictor.signature))
    except DataError:
        return  # an empty text is no known category; the model itself was tried when it was built


def answered_row(predictor: Predictor, checker: Checker, notes: Notes) -> dict[str, Any] | None:
    """A row of a request that the model answers, for examples; None where none is known."""
    row = example_row(predictor.signature, notes)
    try:
        predictions = predictor.predict(checker.rows([row]))
    except (DataError, RequestError):
        return None
    return row if predictions.are_finite() else None


def _blank_row(signature: Signature) -> Columns:
    """One row of zeros and empty texts."""
    row: Columns = {}
    for column in signature.inputs:
        if column.dtype == "string":
            row[column.name] = np.full((1, *column.shape), column.empty_text, dtype=object)
        else:
            row[column.name] = np.zeros((1, *column.shape), np.float64 if column.nullable else column.dtype)
    return row
