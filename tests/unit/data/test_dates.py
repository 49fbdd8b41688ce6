"""Dates and times to numbers: the same as the standard library."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.errors import DataError
from raypipe.records import Column
from tests.unit.data.transforms import exact, fit_one


@settings(deadline=None, max_examples=100)
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
    seconds = Column(name="t", dtype="int64")
    since_1970 = (utc - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1)
    assert exact(fitted, seconds, np.array([since_1970])).tolist() == [expected]


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


def test_milliseconds_taken_for_seconds_are_refused():
    column = Column(name="t", dtype="int64")
    with pytest.raises(DataError, match=r"(?s)'t' holds 1700000000000;.*milliseconds"):
        fit_one(column, np.array([1_700_000_000_000]), {"kind": "date_parts", "columns": ["t"]}, cuts=())
