"""Is a value what a column of the model must hold?  One answer for training, batch inference and serving.

Each says it in its own words, and does its own: training sets the row aside, the others refuse it.  Nothing here needs
Arrow or Ray: a replica asks it of every request.  B rows.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from raypipe.records import Column

INFINITE, NAN, NOT_WHOLE, OUT_OF_RANGE = "is infinite", "holds NaN", "is no whole number", "is out of range"

FAMILIES = {"string": "text", "bool": "true/false", "null": "nothing"}
"""What a column of a type holds; of all other types: numbers."""


def family_of(dtype: str) -> str:
    """`text`, `true/false`, `numbers`, or `nothing` while no value has been seen."""
    return FAMILIES.get(dtype, "numbers")


def kind_fits(dtype: str, is_array: bool, column: Column) -> bool:
    """Whether a column of a file can hold what the model reads, by its type alone."""
    return dtype == "null" or (family_of(dtype) == family_of(column.dtype) and is_array == holds_arrays(column))


def holds_arrays(column: Column) -> bool:
    """Whether a row of a file holds several values for it."""
    return bool(column.shape) or column.is_list


def held_as(column: Column) -> str:
    """The numpy type of a column's values: floats, whose NaN is a missing value, where one may be missing."""
    if column.dtype == "string":
        return "object"
    return "float64" if column.nullable else column.dtype


@cache
def limits(dtype: str) -> tuple[float, float]:
    """The smallest and the largest number of a type."""
    found = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    cast = float if dtype.startswith("float") else int
    return cast(found.min), cast(found.max)


def misfit(value: int | float, dtype: str) -> str | None:
    """Why one number is none of a type; None where it is one."""
    low, high = limits(dtype)
    if not isinstance(value, int) and not math.isfinite(value):
        return NAN if value != value else INFINITE
    if not dtype.startswith("float") and value != math.floor(value):
        return NOT_WHOLE
    return None if low <= value <= high else OUT_OF_RANGE


def misfits(values: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """As `misfit`, of whole columns: why -> the rows, bool [B]; of arrays, rows in which any number is none.

    Args:
        values: numbers [B, *shape] of any type.
    """
    wrong: dict[str, np.ndarray] = {}
    if values.dtype.kind == "f":
        wrong |= {INFINITE: np.isinf(values), NAN: np.isnan(values)}
    low, high = limits(dtype)
    if not dtype.startswith("float"):
        if values.dtype.kind == "f":
            wrong[NOT_WHOLE] = np.isfinite(values) & (values != np.floor(values))
        wrong[OUT_OF_RANGE] = _outside(values, low, high)
    elif values.dtype.kind == "f" and values.dtype.itemsize > np.dtype(dtype).itemsize:
        wrong[OUT_OF_RANGE] = np.isfinite(values) & _outside(values, low, high)
    size = int(np.prod(values.shape[1:]))
    return {why: np.logical_or.reduce(mask.reshape(len(values), size), axis=1) for why, mask in wrong.items()}


def _outside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if values.dtype.kind == "f":  # 2**63 as a float is beyond the largest int64, which float64 rounds up to it
        return (values < low) | (values >= high + 1) if isinstance(high, int) else (values < low) | (values > high)
    own = np.iinfo(values.dtype)
    outside = np.zeros(values.shape, bool)
    if own.min < low:
        outside |= values < low
    if own.max > high:
        outside |= values > high
    return outside
