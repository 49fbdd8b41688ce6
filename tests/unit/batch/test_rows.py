"""Columns of any source fit the model as they are, or are named; nothing is bent to fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ray.data.extensions import ArrowTensorArray

from raypipe.batch.rows import raw_columns
from raypipe.data.table.columns import ENCODED
from raypipe.errors import DataError
from raypipe.records import Column, Reading, Signature


def raw(values: Any, **column: Any) -> Any:
    signature = Signature(inputs=(Column(name="x", **column),), task="regression", target="y")
    return raw_columns(pa.table({"x": values, "other": pa.nulls(len(values))}), signature)["x"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2, 255], "uint8"),
        ([1.0, 2.0, -3.0], "int16"),
        ([0.1, 2.5, -1e30], "float32"),
        ([1, 2, 3], "float64"),
        ([True, False, True], "bool"),
    ],
)
def test_numbers_arrive_in_the_dtype_the_model_was_trained_on(values: list[Any], dtype: str):
    found = raw(values, dtype=dtype)
    assert found.dtype == dtype
    assert np.array_equal(found, np.array(values, dtype))


def test_missing_numbers_are_nan_where_the_model_allows_it():
    found = raw([1, None, 3], dtype="int64", nullable=True)
    assert found.dtype == np.float64
    assert np.array_equal(found, [1.0, np.nan, 3.0], equal_nan=True)


def test_a_column_without_any_value_is_all_missing_where_the_model_allows_it():
    assert np.isnan(raw([None, None], dtype="float32", nullable=True)).all()
    assert raw([None, None], dtype="string", nullable=True).to_pylist() == [None, None]


@pytest.mark.parametrize("form", [pa.string(), ENCODED])
def test_texts_stay_in_arrow(form: pa.DataType):
    found = raw(pa.array(["a", None, "ü"]).cast(form), dtype="string", nullable=True)
    assert isinstance(found, pa.Array) and found.type == form
    assert found.to_pylist() == ["a", None, "ü"]


@pytest.mark.parametrize("as_list", [False, True])
def test_arrays_arrive_in_their_shape(as_list: bool):
    image_BHW = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    values = pa.array(image_BHW.tolist()) if as_list else ArrowTensorArray.from_numpy(image_BHW)
    found = raw(values, dtype="uint8", shape=(3, 4))
    assert found.dtype == np.uint8
    assert np.array_equal(found, image_BHW)


@pytest.mark.parametrize(
    ("values", "column", "told"),
    [
        ([1, 256], {"dtype": "uint8"}, "column 'x' holds 256; the model reads whole numbers from 0 to 255"),
        ([1, -1], {"dtype": "uint8"}, "holds -1"),
        ([1.5, 2.0], {"dtype": "int64"}, r"holds 1\.5"),
        ([1, 300, None], {"dtype": "uint8", "nullable": True}, "holds 300"),
        ([1.0, float("inf")], {"dtype": "float64"}, "NaN or infinity"),
        ([1.0, None, float("nan")], {"dtype": "float64"}, "2 of 3 rows have no value"),
        (["a", None], {"dtype": "string"}, "1 of 2 rows have no value"),
        (["1", "2"], {"dtype": "int64"}, r"holds string; the model reads numbers \(int64\)"),
        ([1, 2], {"dtype": "string"}, "holds int64; the model reads text"),
        ([1, 0], {"dtype": "bool"}, "holds int64; the model reads true/false"),
        ([True], {"dtype": "int64"}, "holds bool; the model reads numbers"),
        ([[1, 2], [3]], {"dtype": "int64", "shape": (2,)}, r"1 of 2 rows do not have shape \[2\]"),
        ([[1, 2]], {"dtype": "int64"}, "holds list of int64; the model reads numbers"),
        ([1], {"dtype": "int64", "shape": (2,)}, r"holds int64; the model reads numbers of shape \[2\]"),
        ([[1, 256]], {"dtype": "uint8", "shape": (2,)}, "holds 256"),
        ([[1.0, float("nan")]], {"dtype": "float64", "shape": (2,)}, "NaN or infinity"),
    ],
)
def test_values_that_do_not_fit_are_an_error_that_names_them(values: Any, column: dict[str, Any], told: str):
    with pytest.raises(DataError, match=told):
        raw(pa.array(values), **column)


def test_a_column_that_is_not_there_is_an_error_that_suggests_another():
    signature = Signature(inputs=(Column(name="width", dtype="float64"),), task="regression", target="y")
    with pytest.raises(DataError, match=r"no column 'width'.*has \['widht'\]\ntry: is 'widht' meant"):
        raw_columns(pa.table({"widht": [1.0]}), signature)


def test_an_extra_column_is_left_out_unless_the_policy_refuses_it():
    column = Column(name="width", dtype="float64")
    signature = Signature(inputs=(column,), task="regression", target="y")
    table = pa.table({"width": [1.0], "widht": [2.0]})
    assert list(raw_columns(table, signature)) == ["width"]
    with pytest.raises(DataError, match=r"a column 'widht', which the model does not read.*\ntry: is 'width' meant"):
        raw_columns(table, signature.model_copy(update={"extra_columns": "error"}))


def test_row_numbers_that_training_left_out_are_no_extra_column():
    column = Column(name="width", dtype="float64")
    signature = Signature(inputs=(column,), task="regression", target="y", extra_columns="error")
    table = pa.table({"": [0], "Unnamed: 0": [0], "__index_level_0__": [0], "width": [1.0]})
    assert list(raw_columns(table, signature)) == ["width"]


@pytest.mark.parametrize("is_encoded", [False, True])
def test_text_that_meant_no_value_in_training_is_missing_in_files_of_any_format(is_encoded: bool):
    reading = Reading(format="csv", settings={"null_values": ["", "NA"]})
    column = Column(name="city", dtype="string", nullable=True)
    signature = Signature(inputs=(column,), task="regression", target="y", reading=reading)
    text = pa.array(["", "Bonn", "NA", " ", None])
    table = pa.table({"city": text.dictionary_encode() if is_encoded else text})
    assert raw_columns(table, signature)["city"].to_pylist() == [None, "Bonn", None, " ", None]
    required = signature.model_copy(update={"inputs": (column.model_copy(update={"nullable": False}),)})
    with pytest.raises(DataError, match="'city': 3 of 5 rows have no value"):
        raw_columns(table, required)
