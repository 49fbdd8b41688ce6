"""Times as numbers that sort: microseconds since 1970 (UTC) of text.  B rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.spec.splits import MOMENT_PATTERN

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

_PARTS = ("year", "month", "day", "hour", "minute", "second", "fraction", "zone")


def instants(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Dates and times of day, ISO 8601, without a zone in UTC; what is finer than a microsecond is cut off.

    Args:
        text: [B], plain or dictionary-encoded.
    Returns:
        int64 [B], microseconds since 1970; and bool [B], where there is no time (the microseconds mean nothing there).
    """
    encoded = text if isinstance(text, pa.DictionaryArray) else text.dictionary_encode()
    found = pc.extract_regex(pc.utf8_trim_whitespace(encoded.dictionary), f"^{MOMENT_PATTERN}$")
    bad = found.is_null().to_numpy(zero_copy_only=False)
    part = {name: pc.fill_null(pc.struct_field(found, name), "") for name in _PARTS}
    year, month, day, hour, minute, second = (_digits(part[name]) for name in _PARTS[:6])
    micro = _digits(pc.utf8_rpad(part["fraction"], 6, "0"))
    zone = pc.replace_substring(pc.replace_substring(part["zone"], ":", ""), "Z", "")
    zone_hour, zone_minute = _digits(pc.utf8_slice_codeunits(zone, 1, 3)), _digits(pc.utf8_slice_codeunits(zone, 3, 5))
    away = np.where(pc.starts_with(zone, "-").to_numpy(zero_copy_only=False), -1, 1) * (zone_hour * 60 + zone_minute)
    months = (np.clip(year - 1970, -1970, 8029) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    first, next_first = (m.astype("datetime64[D]").astype(np.int64) for m in (months, months + 1))
    bad |= (month < 1) | (month > 12) | (day < 1) | (day > next_first - first)
    bad |= (hour > 23) | (minute > 59) | (second > 59) | (zone_hour > 23) | (zone_minute > 59)
    minutes = ((first + day - 1) * 24 + hour) * 60 + minute - away
    instant = (minutes * 60 + second) * 1_000_000 + micro
    index = encoded.indices.fill_null(len(bad)).to_numpy(zero_copy_only=False)
    return np.append(instant, 0)[index], np.append(bad, True)[index]


def _digits(text: pa.Array) -> np.ndarray:
    return pc.if_else(pc.equal(text, ""), "0", text).cast(pa.int64()).to_numpy(zero_copy_only=False)
