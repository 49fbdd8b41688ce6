"""Text as values of a declared type: what Arrow can cast, and nothing else, found without a cast for each value."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.table import declared
from raypipe.data.table.declared import Written, as_type
from raypipe.data.table.written_dates import as_iso

TYPES = ["int8", "int64", "uint8", "uint64", "float32", "float64"]
WRITTEN = (
    st.integers(-(2**70), 2**70).map(str)
    | st.integers(-300, 300).map(lambda number: f"{number:+05d}")
    | st.floats().map(str)
    | st.sampled_from(
        ["true", "tRue", "0x1F", "0xFFFFFFFFFFFFFFFF", "1.", ".5", ".", "nan(1)", "-0", "00000000000000000000000001"]
    )
    | st.text(alphabet="0123456789+-.eExXnaif", max_size=6)
    | st.none()
)


def can_be(text, wanted):
    try:
        pa.array([text], pa.string()).cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True


@pytest.mark.parametrize("dtype", TYPES)
@given(texts=st.lists(WRITTEN, max_size=8))
def test_misfits_are_the_texts_that_arrow_cannot_cast(dtype, texts):
    wanted = pa.type_for_alias(dtype)
    values, misfits = as_type(pa.array(texts, pa.string()), dtype)
    assert misfits == [row for row, text in enumerate(texts) if not can_be(text, wanted)]
    kept = pa.array([None if row in misfits else text for row, text in enumerate(texts)], pa.string()).cast(wanted)
    assert str(values) == str(kept)


@pytest.mark.parametrize(
    ("text", "dtype"), [("abc", "int64"), ("300", "int8"), ("1.5", "int32"), ("x", "float32"), ("9" * 25, "int64")]
)
def test_column_of_another_type_than_declared_is_not_cast_value_by_value(monkeypatch, text, dtype):
    looked_at = []
    by_halves = declared._by_halves  # counts what is left for it; nowhere else is seen how often text is cast
    monkeypatch.setattr(
        declared, "_by_halves", lambda text, *rest: looked_at.append(len(text)) or by_halves(text, *rest)
    )
    _, misfits = as_type(pa.array([text] * 1000), dtype)
    assert len(misfits) == 1000 and looked_at == [0]


@pytest.mark.parametrize(
    ("texts", "dtype", "how", "wanted"),
    [
        (["Ja", "nein", "TRUE", "0", "2", None], "bool", Written(), [True, False, True, False, None, None]),
        (["1.234,50 €", "€ -3", "(2,5 €)", "7"], "float64", Written(",", ".", "€"), [1234.5, -3.0, -2.5, None]),
        (["1,234", "1,234.5", "12,34", "0,234"], "float64", Written(".", ","), [1234.0, 1234.5, None, None]),
        (["1\u202f234 567", "-5"], "int64", Written(".", " "), [1234567, -5]),
        (["14:30", "2:30 PM", "25:00"], "time", Written(), [52200.0, 52200.0, None]),
        (
            ["1:02:03", "P1DT2H", "3 days 04:00:00", "1h 20m", "x"],
            "duration",
            Written(),
            [3723, 93600, 273600, 4800, None],
        ),
    ],
)
def test_values_are_read_as_they_are_written_and_what_is_none_is_told(texts, dtype, how, wanted):
    values, misfits = as_type(pa.array(texts, pa.string()), dtype, how)
    assert values.to_pylist() == wanted
    assert misfits == [row for row, text in enumerate(texts) if text is not None and wanted[row] is None]


@pytest.mark.parametrize(
    ("text", "written", "iso"),
    [
        ("31/01/2024", "%d/%m/%Y", "2024-01-31"),
        ("31/02/2024", "%d/%m/%Y", None),
        ("5-Jan-24 2:05 PM", "%d-%b-%y %I:%M %p", "2024-01-05T14:05"),
        ("20240131", "%Y%m%d", "2024-01-31"),
        ("March 5, 1999", "%B %d, %Y", "1999-03-05"),
        ("01/01/70", "%d/%m/%y", "1970-01-01"),
    ],
)
def test_dates_are_read_by_their_format(text, written, iso):
    assert as_iso(pa.array([text, None]), written)[0].to_pylist() == [iso, None]
