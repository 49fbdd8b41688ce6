"""Request and response checks from the artifact's signature: parsed JSON in, columns out, or one clear 4xx.

The fast path is one numpy call a column. Only where that does not fit are values walked one by one; that walk either
finds the first wrong value and names its row and field, or builds the column exactly (nulls, integers written `3.0`).

Shape letters: B rows.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits
from raypipe.errors import RequestError
from raypipe.records import Column, Signature

Columns = dict[str, NDArray[Any]]
"""Column name -> array [B, *shape], as Predictor.predict reads it."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_SHOWN_CHARS = 40
MAX_SHOWN_NAMES = 5
MAX_COMPARED_NAMES = 50


def columns_of(instances: Any, signature: Signature, *, max_rows: int) -> Columns:
    """Rows of a request -> columns of the model.

    Args:
        instances: parsed JSON: a list of rows. A row is an object {column: value}, or a list of values in the
            signature's order; with a single input column also the bare value.
        max_rows: most rows one request may hold.
    Returns:
        Each input as an array [B, *shape]: numbers in the column's dtype (float64 with NaN where null is allowed),
        strings as objects (str or None).
    Raises:
        RequestError: 400 naming row and field, or 413.
    """
    if not isinstance(instances, list):
        raise RequestError(f"'instances' must be a list of rows; found {_kind(instances)}", example_of(signature))
    if not instances:
        raise RequestError("'instances' is empty; it must hold at least one row", example_of(signature))
    if len(instances) > max_rows:
        raise RequestError(
            f"the request holds {len(instances)} rows; at most {max_rows} are answered at once",
            "send fewer rows per request, or use batch inference: raypipe predict",
            status=413,
        )
    values = _by_column(instances, signature)
    null_words = signature.null_words
    return {column.name: _column(column, values[i], null_words) for i, column in enumerate(signature.inputs)}


def example_of(signature: Signature) -> str:
    """One line that shows the expected body."""
    fields = ", ".join(f'"{c.name}": {_expected(c)}' for c in signature.inputs[:MAX_SHOWN_NAMES])
    more = ", ..." if len(signature.inputs) > MAX_SHOWN_NAMES else ""
    return f'{{"instances": [{{{fields}{more}}}]}}'


def _by_column(instances: list[Any], signature: Signature) -> Sequence[Sequence[Any]]:
    """Turn rows into one list of values a column."""
    inputs = signature.inputs
    kinds = set(map(type, instances))
    if kinds == {dict}:
        try:
            values = [[row[c.name] for row in instances] for c in inputs]
        except KeyError:  # told below, with the row
            values = None
        ignores_extra = signature.extra_columns == "ignore"
        if values is not None and (ignores_extra or all(len(row) == len(inputs) for row in instances)):
            return values
    elif len(inputs) == 1 and dict not in kinds:
        return [instances]
    elif kinds == {list} and all(len(row) == len(inputs) for row in instances):
        return list(zip(*instances, strict=True))
    rows = [_row(row, index, signature) for index, row in enumerate(instances)]
    return list(zip(*rows, strict=True))


def _row(row: Any, index: int, signature: Signature) -> list[Any]:
    """Values of one row in the signature's order; the exact word on what is wrong with it."""
    inputs = signature.inputs
    if isinstance(row, dict):
        known = {c.name for c in inputs}
        extra = [str(name) for name in row if name not in known]
        if extra and signature.extra_columns == "error":
            raise RequestError(f"row {index}: unknown field {_shown(extra[0])}", _did_you_mean(extra[0], signature))
        for column in inputs:
            if column.name not in row:
                near = [name[:MAX_SHOWN_CHARS] for name in extra[:MAX_COMPARED_NAMES]]
                close = difflib.get_close_matches(column.name, near, n=1)
                raise RequestError(
                    f"row {index}: field '{column.name}' is missing; expected {_expected(column)}",
                    f"is {_shown(close[0])} meant? name it '{column.name}'" if close else example_of(signature),
                )
        return [row[c.name] for c in inputs]
    if len(inputs) == 1:
        return [row]
    if not isinstance(row, list):
        raise RequestError(
            f"row {index}: found {_kind(row)}; expected an object with the fields of the model", example_of(signature)
        )
    if len(row) != len(inputs):
        names = ", ".join(c.name for c in inputs[:MAX_SHOWN_NAMES]) + (", ..." if len(inputs) > MAX_SHOWN_NAMES else "")
        raise RequestError(
            f"row {index}: found {len(row)} values; expected {len(inputs)} ({names})",
            "send an object {field: value} to name them",
        )
    return row


def _column(column: Column, values: Sequence[Any], null_words: frozenset[str]) -> NDArray[Any]:
    array = _fast_strings(column, values, null_words) if column.dtype == "string" else _fast_numbers(column, values)
    if array is not None:
        return array
    return _exact(column, values, null_words)


def _fast_strings(column: Column, values: Sequence[Any], null_words: frozenset[str]) -> NDArray[Any] | None:
    if column.shape or not set(map(type, values)) <= ({str, type(None)} if column.nullable else {str}):
        return None
    if not null_words.isdisjoint(values):
        return None
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _fast_numbers(column: Column, values: Sequence[Any]) -> NDArray[Any] | None:
    """The whole column in a few numpy calls, or None where a value needs a closer look."""
    is_bool, is_float = column.dtype == "bool", column.dtype.startswith("float")
    try:
        # numpy reads true as 1, "2" as 2 and null as NaN without a word: only the types of the leaves tell
        if not _leaf_types(values, len(column.shape)) <= ({bool} if is_bool else {int, float}):
            return None
        array = np.array(values, dtype=np.float64 if is_float else None)
    except (ValueError, TypeError, OverflowError):  # ragged, or a number beyond 64 bits
        return None
    if array.shape != (len(values), *column.shape):
        return None
    if is_float:
        # One pass finds NaN, infinity and what float32 cannot hold; a float64 beyond that is for the closer look.
        flat = array.reshape(-1)
        with np.errstate(over="ignore"):
            is_small = float(flat @ flat) <= FLOAT32_MAX**2
        if not is_small:
            return None
    elif not is_bool and not _in_range(column, array):
        return None
    return array.astype(fits.held_as(column), copy=False)


def _leaf_types(values: Sequence[Any], rank: int) -> set[type]:
    leaves: Any = values
    for _ in range(rank):
        leaves = chain.from_iterable(leaves)
    return set(map(type, leaves))


def _in_range(column: Column, array: NDArray[Any]) -> bool:
    """Whether these integers fit the column; False also where numpy had to make floats of them."""
    if array.dtype.kind not in "iu" or not array.size:
        return not array.size
    low, high = fits.limits(column.dtype)
    return low <= int(array.min()) and int(array.max()) <= high


def _exact(column: Column, values: Sequence[Any], null_words: frozenset[str]) -> NDArray[Any]:
    """Check value by value; raises at the first wrong one. A text that meant 'no value' in training does so here."""
    checked: list[Any] = []
    for i, value in enumerate(values):
        where = f"row {i}, field '{column.name}'"
        if isinstance(value, str) and not column.shape and value in null_words:
            if not column.nullable:
                raise RequestError(
                    f"{where}: found {_shown(value)}, which meant 'no value' in the training data; a value is required",
                    f"expected {_expected(column)}",
                )
            value = None
        checked.append(_checked(column, value, column.shape, where))
    array = np.empty((len(values), *column.shape), fits.held_as(column))
    array[...] = checked
    return array


def _checked(column: Column, value: Any, shape: tuple[int, ...], where: str) -> Any:
    if shape:
        if not isinstance(value, list):
            raise _wrong(where, value, f"{_expected(column)}", column)
        if len(value) != shape[0]:
            raise RequestError(
                f"{where}: found a list of {len(value)}; expected {shape[0]} values", f"expected {_expected(column)}"
            )
        return [_checked(column, item, shape[1:], f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None:
        if not column.nullable:
            raise RequestError(f"{where}: found null; a value is required", f"expected {_expected(column)}")
        return None if column.dtype == "string" else math.nan
    if column.dtype == "string":
        return value if isinstance(value, str) else _refuse(where, value, "a string", column)
    if column.dtype == "bool":
        return value if isinstance(value, bool) else _refuse(where, value, "true or false", column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, value, "a number", column)
    return _number(column, value, where)


def _number(column: Column, value: int | float, where: str) -> int | float:
    is_float = column.dtype.startswith("float")
    why = fits.misfit(value, column.dtype)
    if is_float and why in (fits.INFINITE, fits.NAN):
        raise RequestError(f"{where}: found {value}; expected a finite number", "leave out NaN and infinity")
    if is_float and why is not None:
        raise RequestError(f"{where}: {_shown(value)} does not fit {column.dtype}", "check the unit of this field")
    if why == fits.OUT_OF_RANGE:
        low, high = fits.limits(column.dtype)
        raise RequestError(
            f"{where}: {_shown(value)} is out of range; {column.dtype} holds {low} to {high}",
            "check the unit of this field",
        )
    if why is not None:
        raise _wrong(where, value, f"an integer ({column.dtype})", column)
    return value if is_float else int(value)


def _wrong(where: str, value: Any, expected: str, column: Column) -> RequestError:
    found = _kind(value) if isinstance(value, list | dict) else f"{_shown(value)} ({_kind(value)})"
    return RequestError(f"{where}: found {found}; expected {expected}", f"expected {_expected(column)}")


def _refuse(where: str, value: Any, expected: str, column: Column) -> Any:
    raise _wrong(where, value, expected, column)


def _expected(column: Column) -> str:
    kind = {"string": "string", "bool": "boolean"}.get(column.dtype, column.dtype)
    text = f"<{kind}>" if not column.shape else f"<{kind} list of shape {list(column.shape)}>"
    return f"{text[:-1]} or null>" if column.nullable else text


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {str: "string", int: "integer", float: "number", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    """A value for people; text stands in quotes, so that nothing and blanks are told apart."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."
    text = "".join(character if character.isprintable() else "?" for character in text)
    return f"'{text}'" if isinstance(value, str) else text


def _did_you_mean(name: str, signature: Signature) -> str:
    names = [c.name for c in signature.inputs]
    close = difflib.get_close_matches(name[:MAX_SHOWN_CHARS], names, n=1)
    known = ", ".join(names[:MAX_SHOWN_NAMES]) + (", ..." if len(names) > MAX_SHOWN_NAMES else "")
    return f"did you mean '{close[0]}'?" if close else f"the fields are: {known}"
