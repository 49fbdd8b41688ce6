"""Times of day and durations as seconds."""

from __future__ import annotations

import re
from collections.abc import Callable

_TIME = re.compile(
    r"(?P<h>[0-9]{1,2}):(?P<m>[0-9]{2})(?::(?P<s>[0-9]{2}(?:[.,][0-9]+)?))?(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
)
"""14:30, 14:30:15.5, 2:30 PM."""

_CLOCK = re.compile(
    r"(?:(?P<d>-?[0-9]+) ?d(?:ays?)?,? ?)?(?P<sign>[+-])?(?P<h>[0-9]+):(?P<m>[0-9]{2})"
    r"(?::(?P<s>[0-9]{2}(?:[.,][0-9]+)?))?"
)
"""1:02:03, 26:30, 3 days 04:00:00: hours first, as databases and pandas write them. A minus before days is that of the
days alone: -1 days +23:59:59 is -1 second."""

_ISO = re.compile(
    r"(?P<minus>-)?P(?:(?P<w>-?[0-9.]+)W)?(?:(?P<d>-?[0-9.]+)D)?"
    r"(?:T(?:(?P<h>-?[0-9.]+)H)?(?:(?P<m>-?[0-9.]+)M)?(?:(?P<s>-?[0-9.]+)S)?)?"
)
"""P1DT2H3M4.5S; pandas writes P-1DT23H59M59S for -1 second."""

_WORDS = re.compile(
    r"(?P<minus>-)?(?:(?P<d>[0-9.]+) ?d(?:ays?)?,? ?)?(?:(?P<h>[0-9.]+) ?h(?:ours?|rs?)?,? ?)?"
    r"(?:(?P<m>[0-9.]+) ?m(?:in(?:utes?)?)?,? ?)?(?:(?P<s>[0-9.]+) ?s(?:ec(?:onds?)?)?)?"
)
"""1h 20m, 45 min, 3 days."""

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def time_of_day(text: str | None) -> float | None:
    """Seconds since midnight; None where the text names no time of day."""
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    hours, minutes, seconds = int(match["h"]), int(match["m"]), float((match["s"] or "0").replace(",", "."))
    if match["half"]:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + 12 * (match["half"] in "Pp")
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 60 else None


def duration(text: str | None) -> float | None:
    """Seconds; None where the text names no duration. `1:02` is an hour and two minutes."""
    text = text or ""
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        minutes, seconds = int(clock["m"]), float((clock["s"] or "0").replace(",", "."))
        time = int(clock["h"]) * 3600 + minutes * 60 + seconds
        days = int(clock["d"] or 0) * _SECONDS["d"]
        return days + (-time if clock["sign"] == "-" else time) if minutes < 60 and seconds < 60 else None
    for pattern in (_ISO, _WORDS):
        match = pattern.fullmatch(text)
        parts = {} if match is None else {k: v for k, v in match.groupdict().items() if v and k != "minus"}
        if match is None or not parts:
            continue
        try:
            total = sum(_SECONDS[unit] * float(value) for unit, value in parts.items())
        except ValueError:  # 1.2.3
            return None
        return -total if match["minus"] else total
    return None


_CERTAIN = re.compile(r"[^:]*[0-9]:[0-9].*|-?P.*T.*")
"""Clocks, and durations of ISO 8601 with a time in them; `3 m` and `P1D` may be something else."""


def is_certain(text: str) -> bool:
    """Whether a text that can be read as a time of day or a duration is hardly anything else."""
    return _CERTAIN.fullmatch(text) is not None


READERS: dict[str, Callable[[str | None], float | None]] = {"time": time_of_day, "duration": duration}
"""Words of `dtypes` -> what reads one text."""
