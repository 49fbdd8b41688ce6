"""Text as values of a type that the pipeline file declares, and which texts are none.  n rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

_WHOLE = r"^-?[0-9]{1,18}$"
"""Whole numbers that fit 64 bits for certain, so that one cast reads them all."""

_MAY_BE = {
    "b": r"^(?i:true|false|0|1)$",
    "u": r"^0*[0-9]{1,20}$|^0[xX][0-9a-fA-F]{1,16}$",
    "i": r"^-?0*[0-9]{1,20}$|^0[xX][0-9a-fA-F]{1,16}$",
    "f": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^(?i:[+-]?(inf|infinity|nan(\(.*\))?))$",
}
"""What Arrow reads as true/false, whole numbers without and with a sign, other numbers; and a little more."""


def as_type(written: pa.Array, wanted: pa.DataType, decimal_point: str) -> tuple[pa.Array, list[int]]:
    """Text as values of a type, and the rows where that cannot be; they are null."""
    if pa.types.is_string(wanted):
        return written, []
    text = pc.utf8_trim_whitespace(written)
    text = text if decimal_point == "." else pc.replace_substring(text, decimal_point, ".")
    try:
        return text.cast(wanted), []
    except pa.ArrowInvalid:
        pass
    is_misfit = _misfits(text, wanted)
    values = pc.if_else(pa.array(is_misfit), pa.scalar(None, pa.string()), text).cast(wanted)
    return values, np.flatnonzero(is_misfit).tolist()


def _misfits(text: pa.Array, wanted: pa.DataType) -> np.ndarray:
    """Bool [n]: no value of the type.  Whole columns are looked at, and only what they cannot tell one by one."""
    kind = np.dtype(str(wanted)).kind
    is_misfit = ~_matches(text, _MAY_BE[kind]) & text.is_valid().to_numpy(zero_copy_only=False)
    is_told = is_misfit.copy()
    if kind in "iu":
        is_whole = _matches(text, _WHOLE) & ~is_misfit
        numbers = pc.if_else(pa.array(is_whole), text, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
        limits = np.iinfo(str(wanted))
        is_misfit |= is_whole & ((numbers < limits.min) | (numbers > limits.max))
        is_told |= is_whole
    is_open = ~is_told
    rows = np.flatnonzero(is_open)
    is_misfit[rows[_by_halves(text.take(pa.array(rows)), wanted)]] = True
    return is_misfit


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(text, pattern).fill_null(False).to_numpy(zero_copy_only=False)


def _by_halves(text: pa.Array, wanted: pa.DataType, offset: int = 0) -> list[int]:
    """Places of the texts that cannot be cast, each of which takes some ten casts to find."""
    try:
        text.cast(wanted)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return [offset]
        half = len(text) // 2
        return [*_by_halves(text[:half], wanted, offset), *_by_halves(text[half:], wanted, offset + half)]
    return []
