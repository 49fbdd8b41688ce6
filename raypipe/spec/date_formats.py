"""How dates are written in text tables: formats in the words of strptime, as one regular expression each.

`raypipe.data.table.written_dates` reads whole columns by it.
"""

from __future__ import annotations

import re

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""English months by their first three letters, as programs write them."""

_PARTS = {
    "d": r"(?P<day>[0-9]{1,2})",
    "m": r"(?P<month>[0-9]{1,2})",
    "b": r"(?P<name>[A-Za-z]{3})",
    "B": r"(?P<name>[A-Za-z]{3,9})",
    "Y": r"(?P<year>[0-9]{4})",
    "y": r"(?P<short_year>[0-9]{2})",
    "H": r"(?P<hour>[0-9]{1,2})",
    "I": r"(?P<half_hour>[0-9]{1,2})",
    "p": r"(?P<half>[AaPp]\.?[Mm]\.?)",
    "M": r"(?P<minute>[0-9]{2})",
    "S": r"(?P<second>[0-9]{2})",
    "f": r"(?P<fraction>[0-9]{1,6})",
    "z": r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})",
}

_COMPACT = {"d": r"(?P<day>[0-9]{2})", "m": r"(?P<month>[0-9]{2})", "H": r"(?P<hour>[0-9]{2})"}
"""Where no sign stands between a part and the next or the one before, all digits are written."""

_DATES = (
    {"day", "month", "year"},
    {"day", "name", "year"},
    {"day", "month", "short_year"},
    {"day", "name", "short_year"},
)


def date_pattern(written: str) -> str:
    """The regular expression of a format, whose groups are named after the parts of a date.

    Raises:
        ValueError: it holds a part that is not known, or twice, or no whole date.
    """
    parts = re.split(r"%(.)", written)
    pattern, names = re.escape(parts[0]), list[str]()
    for place in range(1, len(parts), 2):
        letter, after = parts[place], parts[place + 1]
        if letter not in _PARTS:
            raise ValueError(
                f"date_format {written!r}: %{letter} is not known; use {' '.join(f'%{p}' for p in _PARTS)}"
            )
        is_compact = (not after and place + 2 < len(parts)) or (place > 1 and not parts[place - 1])
        part = _COMPACT.get(letter, _PARTS[letter]) if is_compact else _PARTS[letter]
        names.append(part[4 : part.index(">")])
        pattern += part + re.escape(after).replace(r"\ ", " +")
    date = {name for name in names if name in ("day", "month", "name", "year", "short_year")}
    if len(set(names)) < len(names) or date not in _DATES or ("half" in names) != ("half_hour" in names):
        raise ValueError(
            f"date_format {written!r} is no date; name day, month and year once each, e.g. %d/%m/%Y or %Y-%m-%d %H:%M"
        )
    return pattern
