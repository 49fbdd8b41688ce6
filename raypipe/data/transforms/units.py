"""What the numbers of a column of dates mean: counted since 1970, or spelled as digits.

B rows.
"""

from __future__ import annotations

import numpy as np

EPOCH = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9, "days": 1 / 86_400}
"""Unit of a count since 1970 -> how many of it a second has."""

SPELLED = ("yyyymm", "yyyymmdd", "yyyymmddhh", "yyyymmddhhmm", "yyyymmddhhmmss")
"""Dates spelled as the digits of one number."""

FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""Years 1 to 9999, in seconds since 1970."""

LIKELY_S = (-2_208_988_800, 4_133_980_799)
"""Years 1900 to 2100: milliseconds and finer units lie beyond, except for some weeks around 1970."""

UNCLEAR_S = 31_536_000
"""Within a year of 1970, before or after: more likely a year, a month, spelled digits or a count of days."""


def seconds_of(values: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since 1970, rounded down.

    Args:
        values: float64 [B], none missing.
        unit: one of EPOCH or SPELLED.
    Returns:
        int64 [B], and bool [B], where the number is no such date (the seconds mean nothing there).
    """
    if unit in EPOCH:
        seconds = np.floor(values / EPOCH[unit])
        wrong = ~((seconds >= FIRST_S) & (seconds <= LAST_S))
        return np.where(wrong, 0, seconds).astype(np.int64), wrong
    fits = (values == np.floor(values)) & (values >= 1000 * 10.0 ** (len(unit) - 4)) & (values < 10.0 ** len(unit))
    digits = np.where(fits, values, 10 ** (len(unit) - 1)).astype(np.int64)
    pairs: list[np.ndarray] = []
    for _ in range((len(unit) - 4) // 2):
        digits, pair = np.divmod(digits, 100)
        pairs.insert(0, pair)
    missing = [np.ones_like(digits), np.ones_like(digits), *[np.zeros_like(digits)] * 3]
    month, day, hour, minute, second = [*pairs, *missing[len(pairs) :]]
    months = ((digits - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    first, after = (m.astype("datetime64[D]").astype(np.int64) for m in (months, months + 1))
    wrong = ~fits | (month < 1) | (month > 12) | (day < 1) | (day > after - first)
    wrong |= (hour > 23) | (minute > 59) | (second > 59)
    return (((first + day - 1) * 24 + hour) * 60 + minute) * 60 + second, wrong


def unclear(values: np.ndarray) -> np.ndarray:
    """Bool [B]: numbers that are not taken for seconds since 1970 unless the unit says so."""
    low, high = LIKELY_S
    return ~((values >= low) & (values <= high)) | ((np.abs(values) < UNCLEAR_S) & (values != 0))


def likely_unit(value: float) -> str | None:
    """The unit in which a number that is unclear is a date of the years 1900 to 2100; None where there is none."""
    for unit in (*reversed(SPELLED), "milliseconds", "microseconds", "nanoseconds", "days"):
        (seconds,), (wrong,) = seconds_of(np.array([value]), unit)
        is_year = unit == "days" and abs(value) < 3000
        is_near = unit in EPOCH and unit != "days" and abs(seconds) < UNCLEAR_S
        if not wrong and LIKELY_S[0] <= seconds <= LIKELY_S[1] and not is_year and not is_near:
            return unit
    return None


def are_ten_digits(values: np.ndarray) -> bool:
    """Whether every number is a date of ten digits (yyyymmddhh, or yymmddhhmm), so that none is likely a count.

    As seconds since 1970 they are years from 2001 on.

    Args:
        values: float64 [B]; of one alone nobody can tell.
    """
    spelled = [(values, "yyyymmddhh"), *((values + century, "yyyymmddhhmm") for century in (2.0e11, 1.9e11))]
    for numbers, unit in spelled:
        seconds, wrong = seconds_of(numbers, unit)
        if len(values) and not (wrong | (values < 1e8) | (seconds < LIKELY_S[0]) | (seconds > LIKELY_S[1])).any():
            return True
    return False
