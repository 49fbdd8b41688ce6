"""Times of day and durations as seconds."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

from raypipe.data.table.spans import duration, is_certain, time_of_day


@pytest.mark.parametrize("seconds", [-1, -86401, -3600, 0, 59, 90, 3661, 93600, 86400 * 3 + 1])
def test_durations_are_what_python_and_pandas_wrote(seconds):
    delta = datetime.timedelta(seconds=seconds)
    assert duration(str(delta)) == duration(str(pd.Timedelta(delta))) == seconds
    assert duration(pd.Timedelta(delta).isoformat()) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:02:03", 3723),
        ("26:30", 95400),
        ("-0:30", -1800),
        ("3 days -04:00:00", 3 * 86400 - 14400),
        ("P1DT2H", 93600),
        ("-PT1M30S", -90),
        ("1h 20m", 4800),
        ("45 min", 2700),
        ("1:75:00", None),
        ("1:02:60", None),
        ("1.2.3 s", None),
        ("P", None),
        ("", None),
        ("12", None),
    ],
)
def test_duration_is_what_a_person_reads_or_nothing(text, seconds):
    assert duration(text) == seconds


def test_time_of_day_is_before_midnight():
    assert [time_of_day(text) for text in ("0:00", "12:15 am", "2:30 PM", "23:59:59.5")] == [0, 900, 52200, 86399.5]
    assert [time_of_day(text) for text in ("24:00", "13:00 PM", "7:5", "7")] == [None] * 4


def test_texts_that_may_be_something_else_are_not_certain():
    assert all(map(is_certain, ["8:30", "1 days 02:00:00", "P1DT2H", "-PT5M"]))
    assert not any(map(is_certain, ["3 m", "45 min", "P1D", "2d"]))
