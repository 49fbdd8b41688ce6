"""Dates and times to numbers.

B rows, P parts.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import (
    Kind,
    Values,
    first,
    need_filled,
    need_single,
    numbers,
    pc,
    refuse_missing,
)
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import DatePartsTransform

PARTS = {
    "year": (pc.year, 0, 0),
    "quarter": (pc.quarter, 1, 4),
    "month": (pc.month, 1, 12),
    "day": (pc.day, 1, 31),
    "day_of_year": (pc.day_of_year, 1, 366),
    "weekday": (pc.day_of_week, 0, 7),
    "hour": (pc.hour, 0, 24),
    "minute": (pc.minute, 0, 60),
    "second": (pc.second, 0, 60),
}
"""Part -> function of timestamps, its first value, and the length of its cycle (0: it has none)."""

ZONED = r"[T ][0-9:]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
"""A time that says its zone."""

FRACTION = r"\.[0-9]+"

SECONDS = pa.timestamp("s")

FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""Years 1 to 9999, in seconds since 1970."""


class DateParts(Kind):
    """One column a part, two for a cyclical one."""

    @staticmethod
    def needs_rows(spec: DatePartsTransform) -> bool:
        return False

    @staticmethod
    def refuses(spec: DatePartsTransform) -> bool:
        return True

    @staticmethod
    def check(spec: DatePartsTransform, column: Column) -> Column:
        need_single(spec, column)
        need_filled(spec, column)
        num_cyclical = len([part for part in spec.parts if PARTS[part][2]]) if spec.cyclical else 0
        return numbers(column, (len(spec.parts) + num_cyclical,))

    def apply(self, values: Values) -> np.ndarray:
        refuse_missing(values, self.name)
        when_B = _of_text(values, self.name) if isinstance(values, pa.Array) else _of_seconds(values, self.name)
        found: list[np.ndarray] = []
        for part in self.state["parts"]:
            function, start, cycle = PARTS[part]
            number_B = function(when_B).to_numpy(zero_copy_only=False).astype(np.float64)
            if self.state["cyclical"] and cycle:
                angle_B = (number_B - start) * (2 * math.pi / cycle)
                found += [np.sin(angle_B), np.cos(angle_B)]
            else:
                found.append(number_B)
        return np.stack(found, axis=1)


def _of_seconds(values: np.ndarray, name: str) -> pa.Array:
    beyond = (values < FIRST_S) | (values >= LAST_S + 1)
    if beyond.any():
        raise DataError(
            f"column '{name}' holds {first(values, beyond):.0f}; seconds since 1970 lie within the years 1 to 9999",
            "if these are milliseconds, put a `scale` transform with factor 0.001 before date_parts",
        )
    return pa.array(np.floor(values).astype(np.int64)).cast(SECONDS)


def _of_text(text: pa.Array, name: str) -> pa.Array:
    try:
        return _parsed(text)
    except pa.ArrowInvalid:
        raise DataError(
            f"column '{name}' holds {_misfit(text)!r}, which is no date or time in ISO 8601",
            "write it like 2024-03-01, 2024-03-01T12:30:00 or 2024-03-01T12:30:00+02:00",
        ) from None


def _parsed(text: pa.Array) -> pa.Array:
    """Seconds in UTC."""
    text = pc.replace_substring_regex(text, FRACTION, "")
    zoned = pc.match_substring_regex(text, ZONED)
    nothing = pa.scalar(None, pa.string())
    in_zone = pc.if_else(zoned, text, nothing).cast(pa.timestamp("s", "UTC")).cast(SECONDS)
    return pc.coalesce(in_zone, pc.if_else(zoned, nothing, text).cast(SECONDS))


def _misfit(text: pa.Array) -> str:
    """The first value that cannot be read, by halves."""
    while len(text) > 1:
        half = text[: len(text) // 2]
        try:
            _parsed(half)
        except pa.ArrowInvalid:
            text = half
        else:
            text = text[len(half) :]
    return text[0].as_py()
