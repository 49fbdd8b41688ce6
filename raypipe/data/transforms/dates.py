"""Dates and times to numbers.

B rows, P parts.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from raypipe.data.table.times import instants
from raypipe.data.transforms.base import (
    TransformKind,
    Values,
    first,
    need_filled,
    need_single,
    numbers,
    pc,
    refuse_missing,
)
from raypipe.data.transforms.units import EPOCH, SPELLED, likely_unit, seconds_of, unclear
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

SECONDS = pa.timestamp("s")


class DateParts(TransformKind):
    """One column a part, two for a cyclical one."""

    @staticmethod
    def refuses(spec: DatePartsTransform) -> bool:
        return True

    @staticmethod
    def check(spec: DatePartsTransform, column: Column) -> Column:
        need_single(spec, column)
        need_filled(spec, column)
        if column.dtype == "string" and spec.unit in EPOCH:
            raise DataError(
                f"data.transforms: date_parts with unit: {spec.unit} reads numbers, but '{column.name}' holds text",
                "leave `unit` out to read ISO 8601, correct the values that are no numbers, or name another `unit`",
            )
        num_cyclical = len([part for part in spec.parts if PARTS[part][2]]) if spec.cyclical else 0
        return numbers(column, (len(spec.parts) + num_cyclical,))

    def apply(self, values: Values) -> np.ndarray:
        refuse_missing(values, self.name)
        unit = self.state.get("unit", "seconds")  # states of versions without the field took all numbers for seconds
        if not isinstance(values, pa.Array):
            when_B = _of_numbers(values, unit, self.name)
        else:
            when_B = _of_digits(values, unit, self.name) if unit in SPELLED else _of_text(values, self.name)
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


def _of_numbers(values: np.ndarray, unit: str | None, name: str) -> pa.Array:
    """Seconds in UTC.

    Args:
        unit: None takes what can hardly be anything else for seconds since 1970.
    """
    if unit is None:
        refuse_unclear(values, unclear(values), name)
    seconds, wrong = seconds_of(values, unit or "seconds")
    if wrong.any():
        how = f"dates written as {unit}" if unit in SPELLED else f"{unit or 'seconds'} since 1970"
        raise DataError(
            f"column '{name}' holds {_shown(first(values, wrong))}; {how} lie within the years 1 to 9999",
            "correct the value, or the `unit` of date_parts",
        )
    return pa.array(seconds).cast(SECONDS)


def refuse_unclear(values: np.ndarray, is_unclear: np.ndarray, name: str) -> None:
    """Raise DataError where a number may be another date than the one it is as seconds since 1970."""
    if is_unclear.any():
        value = float(first(values, is_unclear))
        unit = likely_unit(value)
        meant = f"; is `unit: {unit}` meant?" if unit else f", one of {', '.join((*EPOCH, *SPELLED))}"
        raise DataError(
            f"column '{name}' holds {_shown(value)}; {_dated(value, unit)}",
            f"say in the date_parts transform of '{name}' what its numbers are{meant}",
        )


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == math.floor(value) else repr(value)


def _dated(value: float, unit: str | None) -> str:
    """What a number is as seconds since 1970, and in the unit that is more likely meant."""
    shown: list[str] = []
    for each in ("seconds", unit):
        (seconds,), (wrong,) = seconds_of(np.array([value]), each) if each else ((0,), (True,))
        date = None if wrong else str(pa.scalar(int(seconds), SECONDS).as_py().date())
        shown.append(
            f"as {each} {'since 1970 ' if each in EPOCH else ''}it is {date or 'no date of the years 1 to 9999'}"
        )
    return ", ".join(shown if unit else shown[:1])


def _of_digits(text: pa.Array, unit: str, name: str) -> pa.Array:
    spelled = pc.match_substring_regex(text, f"^[0-9]{{{len(unit)}}}$").to_numpy(zero_copy_only=False)
    numbers = pc.if_else(pa.array(spelled), text, "0").cast(pa.int64()).to_numpy().astype(np.float64)
    seconds, wrong = seconds_of(numbers, unit)
    if wrong.any():
        raise DataError(
            f"column '{name}' holds {first(text, wrong)!r}, which is no date written as {unit}",
            "correct the value, or the `unit` of date_parts",
        )
    return pa.array(seconds).cast(SECONDS)


def _of_text(text: pa.Array, name: str) -> pa.Array:
    """Seconds in UTC."""
    microseconds, wrong = instants(text)
    if wrong.any():
        raise DataError(
            f"column '{name}' holds {first(text, wrong)!r}, which is no date or time in ISO 8601",
            "write it like 2024-03-01, 2024-03-01T12:30:00 or 2024-03-01T12:30:00+02:00; of dates like 20240301 say "
            "`unit: yyyymmdd` in the date_parts transform",
        )
    return pa.array(microseconds // 1_000_000).cast(SECONDS)
