"""Text as values of a declared type: what Arrow can cast, and nothing else, found without a cast for each value."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.table import declared
from raypipe.data.table.declared import as_type

TYPES = ["bool", "int8", "int64", "uint8", "uint64", "float32", "float64"]
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
    values, misfits = as_type(pa.array(texts, pa.string()), wanted, ".")
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
    _, misfits = as_type(pa.array([text] * 1000), pa.type_for_alias(dtype), ".")
    assert len(misfits) == 1000 and looked_at == [0]
