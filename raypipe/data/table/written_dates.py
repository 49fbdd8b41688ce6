"""Dates in the formats of spec/date_formats.py as ISO 8601, whole columns at once.  n rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.times import instants
from raypipe.spec.date_formats import MONTHS, date_pattern
from raypipe.spec.moments import BLANKS

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

PIVOT = 69
"""Years of two digits from here on are of 1900, as POSIX has it."""


def as_iso(text: pa.Array, written: str) -> tuple[pa.Array, list[int]]:
    """Dates as ISO 8601 text, with a time of day where the format has one; and the rows where that cannot be."""
    encoded = text.dictionary_encode()
    values, is_date = _iso(encoded.dictionary, written)
    values = pc.if_else(pa.array(is_date), values, pa.scalar(None, pa.string()))
    taken = values.take(encoded.indices)
    lost = pc.and_(taken.is_null(), text.is_valid()).to_numpy(zero_copy_only=False)
    return taken, np.flatnonzero(lost).tolist()


def fits(texts: pa.Array, written: str) -> bool:
    """Whether every text is a date in this format."""
    return bool(len(texts)) and bool(_iso(texts, written)[1].all())


def _iso(texts: pa.Array, written: str) -> tuple[pa.Array, np.ndarray]:
    """ISO 8601 of each text, and bool [n] whether it is a date."""
    pattern = date_pattern(written)
    matched = pc.extract_regex(pc.utf8_trim(texts, BLANKS), f"^{pattern}$")
    names = [field.name for field in matched.type]
    part = {name: pc.fill_null(pc.struct_field(matched, name), "") for name in names}
    is_date = matched.is_valid().to_numpy(zero_copy_only=False)
    year, ok_year = _year(part)
    month, ok_month = _month(part)
    iso = pc.binary_join_element_wise(year, month, _two(part["day"]), "-")
    if "hour" in part or "half_hour" in part:
        hour, ok_hour = _hour(part)
        clock = [hour, _two(part.get("minute", pa.array(["0"] * len(texts))))]
        clock += [_two(part["second"])] if "second" in part else []
        time = pc.binary_join_element_wise(*clock, ":")
        if "fraction" in part:
            time = pc.binary_join_element_wise(time, part["fraction"], ".")
        iso = pc.binary_join_element_wise(iso, time, "T")
        iso = pc.binary_join_element_wise(iso, part["zone"], "") if "zone" in part else iso
        is_date = is_date & ok_hour
    is_date = is_date & ok_year & ok_month
    _, bad = instants(pc.if_else(pa.array(is_date), iso, pa.scalar(None, pa.string())))
    return iso, is_date & ~bad


def _year(part: dict[str, Any]) -> tuple[Any, np.ndarray]:
    if "year" in part:
        return part["year"], np.ones(len(part["year"]), bool)
    short = pc.if_else(pc.equal(part["short_year"], ""), "0", part["short_year"]).cast(pa.int64())
    century = pc.if_else(pc.greater_equal(short, PIVOT), "19", "20")
    return pc.binary_join_element_wise(century, part["short_year"], ""), np.ones(len(short), bool)


def _month(part: dict[str, Any]) -> tuple[Any, np.ndarray]:
    if "month" in part:
        return _two(part["month"]), np.ones(len(part["month"]), bool)
    place = pc.index_in(pc.utf8_slice_codeunits(pc.utf8_lower(part["name"]), 0, 3), value_set=pa.array(MONTHS))
    known = place.is_valid().to_numpy(zero_copy_only=False)
    return _two(pc.add(place.fill_null(0), 1).cast(pa.string())), known


def _hour(part: dict[str, Any]) -> tuple[Any, np.ndarray]:
    if "hour" in part:
        return _two(part["hour"]), np.ones(len(part["hour"]), bool)
    digits = pc.if_else(pc.equal(part["half_hour"], ""), "0", part["half_hour"])
    hour = digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
    is_late = pc.starts_with(pc.utf8_lower(part["half"]), "p").to_numpy(zero_copy_only=False)
    known = (hour >= 1) & (hour <= 12)
    return _two(pa.array(hour % 12 + 12 * is_late).cast(pa.string())), known


def _two(digits: Any) -> Any:
    return pc.utf8_lpad(digits, 2, "0")
