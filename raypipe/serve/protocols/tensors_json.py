"""The data of a v2 tensor in JSON -> an array: flat or nested, every value of the datatype or named with its place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits
from raypipe.errors import RequestError
from raypipe.serve.checker import MAX_EXACT_INT, packed
from raypipe.serve.protocols import tensors
from raypipe.serve.schema import kind_of

CODES = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
}


def from_json(tensor: tensors.Said, data: Any, *, booleans: bool = True) -> NDArray[Any]:
    """Parsed JSON, flat in row-major order or nested as the shape says -> array of the tensor's shape.

    Args:
        booleans: whether true or false may be among the values; looking for them costs time.
    Returns:
        Numbers; NaN for null in a tensor of floats. Texts as objects, None for null.
    Raises:
        RequestError: 400 naming the input and what is wrong with it.
    """
    flat = _flat(tensor, data)
    if tensor.datatype == tensors.TEXT:
        return _objects(tensor, flat).reshape(tensor.shape)
    if tensor.datatype == tensors.BF16:
        raise RequestError(f"{tensor.where}: BF16 is not read from JSON", "send it as binary data, or as FP32")
    dtype = tensors.NUMBERS[tensor.datatype]
    kinds = set(map(type, flat)) if booleans or dtype == "bool" else set()
    if dtype == "bool" or bool in kinds:
        if dtype != "bool" or kinds - {bool}:
            raise tensors.wrong_value(tensor, flat)
        return np.array(flat, bool).reshape(tensor.shape)
    try:
        found = _floats(tensor, flat, dtype) if dtype.startswith("float") else _integers(tensor, flat, dtype)
    except (struct.error, TypeError, ValueError, OverflowError):
        raise tensors.wrong_value(tensor, flat) from None
    return found.reshape(tensor.shape)


def _flat(tensor: tensors.Said, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise RequestError(
            f"{tensor.where}: 'data' must be a list; found {kind_of(data)}", f"of {tensors.shape_text(tensor)}"
        )
    level: list[Any] = data
    if len(tensor.shape) > 1 and data and isinstance(data[0], list):
        for depth, size in enumerate(tensor.shape):
            if depth:
                kinds = set(map(type, level))
                if kinds - {list}:
                    raise RequestError(
                        f"{tensor.where}: 'data' is nested unevenly; at depth {depth} all must be lists",
                        f"nest it as 'shape' {tensors.shape_text(tensor)} says, or send it flat",
                    )
                lengths = set(map(len, level)) - {size}
                level = list(chain.from_iterable(level))
            else:
                lengths = {len(level)} - {size}
            if lengths:
                raise RequestError(
                    f"{tensor.where}: 'data' has a list of {min(lengths)} at depth {depth}; 'shape' "
                    f"{tensors.shape_text(tensor)} says {size}",
                    "make 'shape' and 'data' agree",
                )
        return level
    tensors.check_num_values(tensor, len(data))
    return data


def _objects(tensor: tensors.Said, flat: Sequence[Any]) -> NDArray[Any]:
    if set(map(type, flat)) - {str, type(None)}:
        raise tensors.wrong_value(tensor, flat)
    found = np.empty(len(flat), object)
    found[:] = flat
    return found


def _integers(tensor: tensors.Said, flat: Sequence[Any], dtype: str) -> NDArray[Any]:
    try:
        return np.frombuffer(packed(CODES[dtype], flat), dtype)
    except (struct.error, TypeError):  # floats that are whole, it may be
        found = np.frombuffer(packed("d", flat), np.float64)
    low, high = fits.limits(dtype)
    is_exact = np.isfinite(found).all() and np.array_equal(found, np.floor(found))
    if not is_exact or np.abs(found).max(initial=0) >= MAX_EXACT_INT or found.min() < low or found.max() > high:
        raise tensors.wrong_value(tensor, flat)
    return found.astype(dtype)


def _floats(tensor: tensors.Said, flat: Sequence[Any], dtype: str) -> NDArray[Any]:
    try:
        found = np.frombuffer(packed("d", flat), np.float64)
    except (struct.error, TypeError):  # null, it may be
        if set(map(type, flat)) - {int, float, type(None)}:
            raise
        found = np.array(flat, np.float64)
    if dtype == "float64":
        return found
    with np.errstate(over="ignore"):
        cast = found.astype(dtype)
    if np.isinf(cast).any():
        raise tensors.wrong_value(tensor, flat)
    return cast
