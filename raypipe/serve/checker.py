"""The checker of a signature: parsed JSON in, columns out, or one clear 4xx. Made once, when a replica starts.

The fast path is one packing of a column's numbers, which refuses every other type by itself. Only where that does not
fit are values looked at one by one (schema.py), and only those of the smallest part that does not fit:
parts are halved.

Shape letters: B rows.
"""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain
from operator import iadd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits, text_lists
from raypipe.errors import RequestError
from raypipe.records import Column, Signature
from raypipe.serve import schema
from raypipe.serve.base64_files import unwrapped

Columns = dict[str, NDArray[Any]]
"""Column name -> array [B, *shape], as Predictor.predict reads it."""

Decoder = Callable[[Column, Sequence["str | bytes"], Sequence[int]], NDArray[Any]]
"""(column, pictures as text or bytes, the row of each) -> their values [B, *shape]; raises RequestError."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

MAX_EXACT_INT = 2.0**53
"""From here on a float64 no longer tells neighbouring integers apart."""

MAX_STRUCT_VALUES = 4096
"""struct takes each number as an argument; more are packed by array, which is slower for few."""

PART_ROWS = 16
"""Fewer rows than this are no longer halved."""

TYPE_CODES = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float64": "d",
}


class Checker:
    """Checks and reads the rows of requests for one model.

    Args:
        max_rows: most rows one request may hold.
        decode: reads pictures that stand in a column's place as base64 or files; None: such a text is refused.
    """

    def __init__(self, signature: Signature, max_rows: int, decode: Decoder | None = None) -> None:
        self.signature = signature
        self.max_rows = max_rows
        self._readers = [ColumnReader(column, signature.null_words, decode) for column in signature.inputs]
        self._within = schema.objects_within(signature)

    def rows(self, instances: Any, *, booleans: bool = True) -> Columns:
        """Rows of a request -> columns of the model.

        Args:
            instances: parsed JSON: a list of rows. A row is an object {column: value}, or a list of values in the
                signature's order; with a single input column also the bare value.
            booleans: whether true or false may be among the values; looking for them costs time.
        Returns:
            Each input as an array [B, *shape]: numbers in the column's dtype (float64 with NaN where null is allowed),
            strings as objects (str or None), lists of strings as text_lists.py keeps them.
        Raises:
            RequestError: 400 naming row and field, or 413.
        """
        schema.check_row_list(instances, self.signature, self.max_rows)
        if self._within:
            instances = [
                schema.unnested(row, self._within, f"row {i}: ") if isinstance(row, dict) else row
                for i, row in enumerate(instances)
            ]
        values = schema.values_by_column(instances, self.signature)
        return {reader.column.name: reader.read(values[i], booleans) for i, reader in enumerate(self._readers)}

    def columns(self, inputs: Any, *, booleans: bool = True) -> Columns:
        """The same, from {column: [value, ...]}, or with a single input column the list of its values.

        Raises:
            RequestError: as `rows`; or the columns differ in length.
        """
        if self._within and isinstance(inputs, dict):
            inputs = schema.unnested(inputs, self._within, "")
        values = schema.values_of_columns(inputs, self.signature, self.max_rows)
        return {reader.column.name: reader.read(values[i], booleans) for i, reader in enumerate(self._readers)}

    def arrays(self, columns: dict[str, NDArray[Any]]) -> Columns:
        """The same, from arrays that a binary protocol brought: checked against the signature, never cast in silence.

        Args:
            columns: each input -> [B, *shape], or [B, F] of a flat shape; numbers of any dtype that hold its values.
        Raises:
            RequestError: as `rows`.
        """
        schema.check_row_count(len(next(iter(columns.values()))), self.signature, self.max_rows)
        return {reader.column.name: reader.read_array(columns[reader.column.name]) for reader in self._readers}


class ColumnReader:
    """Reads the values of one column.

    Args:
        null_words: texts that meant 'no value' in training and do so here.
    """

    def __init__(self, column: Column, null_words: frozenset[str] = frozenset(), decode: Decoder | None = None) -> None:
        self.column = column
        self._null_words = null_words
        self._decode = decode if column.shape else None
        self._held_as = np.dtype(fits.held_as(column))
        self._type = self._held_as if column.dtype in ("string", "bool") else np.dtype(column.dtype)
        self._is_float = column.dtype.startswith("float")
        self._code = TYPE_CODES.get(column.dtype)
        self._size = math.prod(column.shape)

    def read(self, values: Sequence[Any], booleans: bool = True, start: int = 0) -> NDArray[Any]:
        """All values of a request -> [B, *shape].

        Args:
            start: number of the first row, for messages.
        Raises:
            RequestError: 400; names the first wrong value's row and field.
        """
        if self._decode is not None and not {str, bytes, dict}.isdisjoint(map(type, values)):
            values = self._with_pictures(values, self._decode)
            if isinstance(values, np.ndarray):
                return self.read_array(values)
        found = self._fast(values, self.column.shape, booleans)
        if found is not None:
            return found
        if len(values) > PART_ROWS:
            half = len(values) // 2
            first = self.read(values[:half], booleans, start)
            return np.concatenate([first, self.read(values[half:], booleans, start + half)])
        return self._exact(values, start)

    def read_array(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same, from an array [B, *shape] or [B, size]."""
        column = self.column
        if self._decode is not None and values.dtype == object and values.size == len(values):
            return self.read(values.ravel().tolist())
        if column.dtype == "string":
            if values.dtype != object:
                raise RequestError(f"field '{column.name}': found {values.dtype}; expected text")
            if column.is_list:  # a tensor has no place for lists of any length, so they come as JSON
                return self.read([parsed_list(text) for text in self._shaped(values).tolist()])
            return self.read(values.reshape(len(values)).tolist()) if values.ndim == 1 else self.read(values.tolist())
        if values.dtype == object or (values.dtype == bool) != (column.dtype == "bool"):
            found = "text" if values.dtype == object else str(values.dtype)
            raise RequestError(f"field '{column.name}': found {found}; expected {schema.expected(column)}")
        shaped = self._shaped(values)
        if shaped.dtype == self._held_as and not self._is_float and not column.nullable:
            return shaped
        return self._checked_numbers(shaped) if shaped.dtype != bool else shaped

    def _shaped(self, values: NDArray[Any]) -> NDArray[Any]:
        shape = self.column.shape
        if values.shape[1:] == shape:
            return values
        if values.shape[1:] == (self._size,) or (not shape and values.shape[1:] == (1,)):
            return values.reshape(len(values), *shape)
        wanted = ", ".join(["rows", *map(str, shape)])
        raise RequestError(
            f"field '{self.column.name}': found shape {list(values.shape)}; expected [{wanted}]",
            f"expected {schema.expected(self.column)}",
        )

    def _checked_numbers(self, values: NDArray[Any]) -> NDArray[Any]:
        missing = np.isnan(values) if values.dtype.kind == "f" and self.column.nullable else None
        for why, rows in fits.misfits(values, self.column.dtype).items():
            wrong = rows
            if missing is not None and why in (fits.NAN, fits.NOT_WHOLE):
                wrong = rows & ~missing.reshape(len(values), -1).any(axis=1)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise RequestError(
                    f"row {row}, field '{self.column.name}': the value {why}; {self.column.dtype} is expected",
                    f"expected {schema.expected(self.column)}",
                )
        return values.astype(self._held_as, copy=False)

    def _with_pictures(self, values: Sequence[Any], decode: Decoder) -> Any:
        """The same with numbers for pictures: an array where all are some, else nested lists in their places."""
        values = [unwrapped(value) for value in values]
        rows = [row for row, value in enumerate(values) if isinstance(value, str | bytes)]
        read = decode(self.column, [values[row] for row in rows], rows) if rows else ()
        if len(rows) == len(values):
            return read
        for row, numbers in zip(rows, read, strict=True):
            values[row] = numbers.tolist()
        return values

    def _fast(self, values: Sequence[Any], shape: tuple[int, ...], booleans: bool) -> NDArray[Any] | None:
        """The whole column in a few calls, or None where a value needs a closer look."""
        if self.column.dtype == "string":
            return None if shape else self._fast_strings(values)
        flat: Any = values
        try:
            is_flat = len(shape) > 1 and len(flat[0]) == self._size and not isinstance(flat[0][0], list)
            for size in (self._size,) if is_flat and shape == self.column.shape else shape:
                if set(map(len, flat)) != {size}:
                    return None
                flat = reduce(iadd, flat, [])  # half the time of chain
            found = self._fast_numbers(flat, booleans)
        except (struct.error, TypeError, ValueError, OverflowError, LookupError):  # no number, or too large
            return None
        return None if found is None else found.reshape(len(values), *shape)

    def _fast_strings(self, values: Sequence[Any]) -> NDArray[Any] | None:
        if self.column.is_list:
            return self._fast_lists(values)
        if not set(map(type, values)) <= ({str, type(None)} if self.column.nullable else {str}):
            return None
        if not self._null_words.isdisjoint(values):
            return None
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found

    def _fast_lists(self, values: Sequence[Any]) -> NDArray[Any] | None:
        if set(map(type, values)) != {list} or not set(map(type, chain.from_iterable(values))) <= {str}:
            return None
        found = np.empty(len(values), dtype=object)
        found[:] = [text_lists.written(value) for value in values]
        return found

    def _fast_numbers(self, flat: Sequence[Any], booleans: bool) -> NDArray[Any] | None:
        if self.column.dtype == "bool":
            return np.array(flat, self._held_as) if set(map(type, flat)) == {bool} else None
        if booleans and bool in set(map(type, flat)):
            return None
        if self.column.nullable:
            # struct refuses null and text; numpy would read "2" as 2
            if not set(map(type, flat)) <= {int, float, type(None)}:
                return None
            return self._of_floats(np.array(flat, np.float64), missing=True)
        if self._code is not None and not self._is_float and type(flat[0]) is not float:
            try:
                return np.frombuffer(packed(self._code, flat), self._held_as)
            except (struct.error, TypeError, ValueError):  # some floats that are whole, it may be
                pass
        return self._of_floats(np.frombuffer(packed("d", flat), np.float64))

    def _of_floats(self, values: NDArray[np.float64], *, missing: bool = False) -> NDArray[Any] | None:
        """float64 -> the column's type, where each is one exactly."""
        there = values[~np.isnan(values)] if missing else values
        if self._is_float:
            # One pass finds NaN, infinity and what float32 cannot hold; a float64 beyond that is for the closer look.
            is_small = float(np.vdot(there, there)) <= FLOAT32_MAX**2
            return values.astype(self._held_as, copy=False) if is_small else None
        with np.errstate(invalid="ignore"):  # what does not fit becomes some other number, and is no longer equal
            whole = there.astype(self._type)
        if whole.astype(np.float64).tobytes() != there.tobytes():  # nor is -0.0, which the closer look takes
            return None
        if whole.itemsize == there.itemsize and (np.abs(there) >= MAX_EXACT_INT).any():
            return None
        if not missing:
            return whole
        return values.astype(self._held_as, copy=False)

    def _exact(self, values: Sequence[Any], start: int) -> NDArray[Any]:
        """Value by value; raises at the first wrong one."""
        found = np.empty((len(values), *self.column.shape), self._held_as)
        for i, value in enumerate(values):
            where = f"row {start + i}, field '{self.column.name}'"
            found[i] = self._value(value, self.column.shape, where)
        return found

    def _value(self, value: Any, shape: tuple[int, ...], where: str) -> Any:
        column = self.column
        if not shape:
            return schema.checked_value(column, value, where, self._null_words if not column.shape else frozenset())
        size, inner = shape[0], shape[1:]
        if not isinstance(value, list):
            raise schema.wrong(where, value, schema.expected(column), column)
        if len(value) == self._size and len(shape) > 1 and shape == column.shape and not isinstance(value[0], list):
            flat = self._value(value, (self._size,), where)  # a flat list, where the shape is known
            return np.array(flat, self._held_as).reshape(shape)
        if len(value) != size:
            raise RequestError(
                f"{where}: found a list of {len(value)}; expected {size} values",
                f"expected {schema.expected(column)}",
            )
        fast = self._fast(value, inner, booleans=True)
        if fast is not None:
            return fast
        return [self._value(item, inner, f"{where}[{i}]") for i, item in enumerate(value)]


def parsed_list(text: Any) -> Any:
    """The list that a text writes as JSON; the text itself where it writes none, which is refused as what it is."""
    try:
        return text_lists.parsed(text)
    except (ValueError, TypeError, RecursionError):
        return text


def packed(code: str, flat: Sequence[Any]) -> bytearray:
    """Numbers as bytes in the machine's order.

    Raises:
        struct.error, TypeError, ValueError, OverflowError: one is no number, or does not fit.
    """
    if code == "B":  # an image's pixels, nearly always: a quarter of the time
        return bytearray(flat)
    if len(flat) <= MAX_STRUCT_VALUES:
        found = bytearray(len(flat) * struct.calcsize(code))
        struct.pack_into(f"{len(flat)}{code}", found, 0, *flat)
        return found
    return bytearray(array.array(code, flat).tobytes())


def columns_of(instances: Any, signature: Signature, *, max_rows: int) -> Columns:
    """`Checker.rows` for one request alone."""
    return Checker(signature, max_rows).rows(instances)
