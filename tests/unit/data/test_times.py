from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.table.times import instants
from raypipe.data.transforms.dates import DateParts
from raypipe.spec.moments import MOMENT_PATTERN, microseconds
from raypipe.spec.splits import TimeSplit
from raypipe.spec.transforms import DatePartsTransform

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES)


@given(st.lists(MOMENTS, max_size=5), st.sampled_from("T "), st.booleans())
def test_instants_are_pythons_own_to_the_microsecond(moments, between, encoded):
    text = pa.array([moment.isoformat(between) for moment in moments], pa.string())
    found, bad = instants(text.dictionary_encode() if encoded else text)
    assert not bad.any()
    assert found.tolist() == [(moment - EPOCH) // timedelta(microseconds=1) for moment in moments]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-02-29", "2024-02-29T00:00:00+00:00"),
        ("2024-01-31 12:30", "2024-01-31T12:30:00.000000Z"),
        ("2024-01-31 12:30:00.5", "2024-01-31T12:30:00.500000+0000"),
        ("2024-01-31T12:30:00.123456789", "2024-01-31T12:30:00.123456Z"),
        (" 2024-01-31 12:30:00 Z ", "2024-01-31T11:30:00-01:00"),
        ("2024-01-31T12", "2024-01-31T13:00+01"),
    ],
)
def test_instants_of_one_moment_written_in_two_ways_agree(text, same):
    found, bad = instants(pa.array([text, same]))
    assert found[0] == found[1] and not bad.any()


BAD = [
    "",
    "soon",
    "2024",
    "2023-02-29",
    "2024-13-01",
    "2024-00-01",
    "2024-01-01T24:00",
    "2024-01-01 10:60",
    "1704067200",
    "0000-01-01",
    "2024-01-01T12:00:60",
    "2024-01-01T12:00+24:00",
    "2024-01-01T12:00+1",
    "２０２４-01-01",
]


ALMOST = st.text(alphabet="0123456789-:.TZ+ ", max_size=28) | st.from_regex(MOMENT_PATTERN, fullmatch=True)


@given(st.lists(ALMOST, min_size=1, max_size=5))
def test_the_file_and_a_column_read_every_text_alike(texts):
    found, bad = instants(pa.array(texts, pa.string()))
    assert [None if none else moment for moment, none in zip(found.tolist(), bad, strict=True)] == [
        microseconds(text) for text in texts
    ]


@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_date_parts_reads_what_a_time_split_reads(moments):
    texts = pa.array([moment.isoformat() for moment in moments])
    spec = DatePartsTransform(kind="date_parts", columns=["t"], parts=["year", "hour", "second"], cyclical=False)
    parts = DateParts(spec.model_dump(), {}, "t").apply(texts)
    in_utc = [moment.astimezone(timezone.utc) for moment in moments]
    assert parts.tolist() == [[moment.year, moment.hour, moment.second] for moment in in_utc]
    hours = pa.array(["2024-01-31T12", "2024-01-31T12+02"])
    assert DateParts(spec.model_dump(), {}, "t").apply(hours).tolist() == [[2024, 12, 0], [2024, 10, 0]]


@pytest.mark.parametrize("text", [None, *BAD])
def test_instants_of_what_is_no_time_are_marked(text):
    assert instants(pa.array([text, "2024-01-01"], pa.string()))[1].tolist() == [True, False]


@pytest.mark.parametrize("text", BAD)
def test_border_that_is_no_time_for_the_data_is_none_for_the_file_either(text):
    with pytest.raises(ValueError, match="is no time; write it like"):
        TimeSplit(kind="time", column="t", test_from=text)
