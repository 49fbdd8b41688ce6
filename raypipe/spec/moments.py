"""Which texts name a moment, and which moment: the one grammar for `where`, expectations, time splits and date_parts.

`raypipe.data.table.times` reads whole columns by the same pattern.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any, cast

MOMENT_PATTERN = (
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2})"
    r"(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6})[0-9]*)?)?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
"""A date, or a date and a time of day from the hour on: ISO 8601, to the microsecond; without a zone it is UTC."""

BLANKS = " \t\n\r\v\f"
"""Characters before and after a moment that do not matter."""

WRITTEN_LIKE = "2024-01-31 or 2024-01-31T12:00:00Z"
"""For messages."""

_EPOCH = datetime(1970, 1, 1)


def as_text(value: Any) -> Any:
    """Dates and times that YAML has read out of `2024-01-31`, written out again, in lists too; others as they are."""
    if isinstance(value, list):
        return [as_text(item) for item in cast("list[Any]", value)]
    return value.isoformat() if isinstance(value, date) else value


def microseconds(text: str) -> int | None:
    """The moment a text names, in microseconds since 1970 (UTC), blanks around it left out; None where it names none.

    What is finer than a microsecond is cut off.
    """
    match = re.fullmatch(MOMENT_PATTERN, text.strip(BLANKS))
    if match is None:
        return None
    *parts, fraction, zone = match.groups()
    try:
        moment = datetime(*(int(part or 0) for part in parts), microsecond=int((fraction or "").ljust(6, "0")))
    except ValueError:
        return None
    zone = (zone or "Z").replace("Z", "+0000").replace(":", "").ljust(5, "0")
    hours, minutes = int(zone[1:3]), int(zone[3:5])
    if hours > 23 or minutes > 59:
        return None
    away = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return (moment - _EPOCH - away) // timedelta(microseconds=1)
