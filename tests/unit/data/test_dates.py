"""Dates and times to numbers: the same as the standard library."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.records import Column
from tests.unit.data.transforms import exact, fit_one


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60) | st.none())
def test_date_parts_equal_those_of_the_standard_library(when, offset_min):
    zone = None if offset_min is None else timezone(timedelta(minutes=offset_min))
    column = Column(name="t", dtype="string")
    parts = ["year", "quarter", "month", "day", "day_of_year", "weekday", "hour", "minute", "second"]
    fitted = fit_one(column, np.array([], object), {"kind": "date_parts", "columns": ["t"], "parts": parts}, cuts=())
    utc = when.replace(tzinfo=zone or timezone.utc).astimezone(timezone.utc)
    quarter, day_of_year = (utc.month + 2) // 3, utc.timetuple().tm_yday
    expected = [utc.year, quarter, utc.month, utc.day, day_of_year, utc.weekday(), utc.hour, utc.minute, utc.second]
    written = when.replace(tzinfo=zone).isoformat()
    for text in (written, written.replace("T", " ")):
        assert exact(fitted, column, np.array([text], object)).tolist() == [expected]
    since_1970 = utc - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert parts_of(since_1970 // timedelta(seconds=1), "seconds", parts) == expected
    assert parts_of(since_1970 // timedelta(milliseconds=1), "milliseconds", parts) == expected
    assert parts_of(since_1970 // timedelta(days=1), "days", parts) == [*expected[:6], 0, 0, 0]
    if utc.year >= 1000:
        digits = f"{utc:%Y%m%d%H%M%S}"
        for length, spelled in ((14, expected), (12, [*expected[:8], 0]), (10, [*expected[:7], 0, 0])):
            assert parts_of(int(digits[:length]), "yyyymmddhhmmss"[:length], parts) == spelled
            assert parts_of(digits[:length], "yyyymmddhhmmss"[:length], parts) == spelled
        assert parts_of(int(digits[:8]), "yyyymmdd", parts) == [*expected[:6], 0, 0, 0]
        assert parts_of(int(digits[:6]), "yyyymm", parts)[:4] == [utc.year, quarter, utc.month, 1]


def parts_of(value, unit, parts=("year", "month", "day", "hour")):
    """The parts of one date that is a number, or text of digits."""
    column = Column(name="t", dtype="string" if isinstance(value, str) else "int64")
    values = np.array([value], object if isinstance(value, str) else np.int64)
    spec = {"kind": "date_parts", "columns": ["t"], "parts": list(parts), "unit": unit}
    return exact(fit_one(column, values, spec, cuts=()), column, values)[0].tolist()


def test_cyclical_date_parts_lie_on_a_circle():
    column = Column(name="t", dtype="string")
    spec = {"kind": "date_parts", "columns": ["t"], "parts": ["year", "month"], "cyclical": True}
    fitted = fit_one(column, np.array([], object), spec, cuts=())
    done = exact(fitted, column, np.array(["2024-01-31", "2023-12-01", "2024-07-01"], object))
    np.testing.assert_allclose(done[:, 1:], [[0, 1], [-0.5, 0.75**0.5], [0, -1]], atol=1e-12)
    assert done[:, 0].tolist() == [2024, 2023, 2024]


@pytest.mark.parametrize("text", ["", "yesterday", "2024-02-30", "24-01-01", "2024-01-01T25:00:00", "2024-01-01 Paris"])
def test_text_that_is_no_date_is_refused_by_value(text):
    column = Column(name="t", dtype="string")
    days = np.array(["2024-01-01"] * 70 + [text] + ["2024-01-01"] * 29, object)
    with pytest.raises(DataError, match=f"'t' holds {re.escape(repr(text))}, which is no date"):
        fit_one(column, days, {"kind": "date_parts", "columns": ["t"]}, cuts=())


NOW = 1_715_904_000
"""2024-05-17 in seconds since 1970."""


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (20240517, "yyyymmdd"),
        (20241231, "yyyymmdd"),
        (202405, "yyyymm"),
        (202405171230, "yyyymmddhhmm"),
        (20240517123045, "yyyymmddhhmmss"),
        (NOW * 1000, "milliseconds"),
        (100_000_000_000, "milliseconds"),
        (NOW * 10**6, "microseconds"),
        (NOW * 10**9, "nanoseconds"),
        (NOW // 86_400, "days"),
        (2024, None),
        (240517, None),
        (17052024, None),
        (-5_000_000_000, None),
    ],
)
def test_number_that_is_hardly_seconds_since_1970_is_refused_with_the_unit_it_may_be(value, unit):
    column = Column(name="t", dtype="int64")
    values = np.array([NOW] * 3 + [value])
    spec = {"kind": "date_parts", "columns": ["t"]}
    with pytest.raises(DataError) as caught:
        fit_one(column, values, spec, cuts=())
    message = str(caught.value)
    assert f"'t' holds {value}; as seconds since 1970 it is " in message and "date_parts" in message
    assert f"is `unit: {unit}` meant?" in message if unit else "one of seconds, milliseconds" in message
    assert parts_of(value, unit)[0] in (1973, 2024) if unit else True
    if abs(value) < 1e9:
        assert parts_of(value, "seconds")[0] in (1969, 1970)


def test_date_of_eight_digits_taken_for_seconds_tells_both_dates():
    with pytest.raises(DataError, match="as seconds since 1970 it is 1970-08-23, as yyyymmdd it is 2024-05-17"):
        fit_one(
            Column(name="t", dtype="int64"), np.array([20240517]), {"kind": "date_parts", "columns": ["t"]}, cuts=()
        )


def test_seconds_that_can_be_nothing_else_need_no_unit():
    column = Column(name="t", dtype="float64")
    values = np.array([0, NOW + 0.5, -1e9, 4e9])
    done = exact(fit_one(column, values, {"kind": "date_parts", "columns": ["t"]}, cuts=()), column, values)
    assert done[:, 0].tolist() == [1970, 2024, 1938, 2096]


@pytest.mark.parametrize("value", [20241301, 20240230, 20240517.5, 240517, 202405171, -20240517, 10**17])
def test_number_that_is_no_date_of_its_unit_is_refused_by_value(value):
    column = Column(name="t", dtype="float64")
    spec = {"kind": "date_parts", "columns": ["t"], "unit": "yyyymmdd"}
    fitted = fit_one(column, np.array([20240517.0]), spec, cuts=())
    with pytest.raises(DataError, match=f"'t' holds {re.escape(str(value))}; dates written as yyyymmdd"):
        exact(fitted, column, np.array([20240517.0, value]))


@pytest.mark.parametrize("text", ["2024-05-17", "20241301", "2024051", "202405170", " 20240517", ""])
def test_text_that_is_no_date_of_its_unit_is_refused_by_value(text):
    with pytest.raises(DataError, match=f"'t' holds {re.escape(repr(text))}, which is no date written as yyyymmdd"):
        parts_of(text, "yyyymmdd")


def test_digits_as_text_without_a_unit_are_refused_with_what_to_write():
    column = Column(name="t", dtype="string")
    with pytest.raises(DataError, match=r"(?s)'t' holds '20240517'.*unit: yyyymmdd"):
        fit_one(column, np.array(["20240517"], object), {"kind": "date_parts", "columns": ["t"]}, cuts=())


def test_unit_that_counts_does_not_fit_text():
    with pytest.raises(DataError, match="unit: seconds reads numbers, but 't' holds text"):
        parts_of("1715904000", "seconds")


def test_state_that_was_kept_before_units_takes_numbers_for_seconds():
    fitted = fit_one(
        Column(name="t", dtype="int64"), np.array([NOW]), {"kind": "date_parts", "columns": ["t"]}, cuts=()
    )
    (state,) = fitted.state()
    assert state.pop("unit") is None
    kept = FittedTransforms.from_state([state])
    assert exact(kept, Column(name="t", dtype="int64"), np.array([20240517]))[0].tolist() == [1970, 8, 23, 6]
