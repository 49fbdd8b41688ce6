"""How the values of text columns are written: numbers with marks and signs, and dates.  Judged by distinct texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.declared import BLANKS, GROUPS, Written, plain_numbers
from raypipe.data.table.times import instants
from raypipe.data.table.written_dates import as_iso, fits
from raypipe.spec.date_formats import date_pattern
from raypipe.spec.moments import microseconds

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

CODES = "EUR|USD|GBP|CHF|JPY|SEK|NOK|DKK|PLN|CZK|CAD|AUD|INR|BRL|kr|zł|Fr|Kč|R\\$|US\\$"

SIGN = f"[%‰$¢£¥€₹₽₩₺₪฿₫₴]|{CODES}"
"""What may stand with a number and is left out: per cent, and money."""

_SIGNED = re.compile(
    rf"[(+\u2212-]*\s*(?P<before>{SIGN})?\s*[+\u2212-]?[0-9][0-9.,'\u2019_{BLANKS}]*?\s*(?P<after>{SIGN})?\)?"
)
"""What may be a number, with its marks and sign."""

THOUSANDS = (None, ",", ".", " ", "'", "_")

NUM_LOOKED = 20
"""Texts that tell whether a column may be one of numbers."""

MOSTLY = 0.5
"""Share of them that must look like numbers."""

LIKE_BOTH = r"^[+-]?([1-9][0-9]{0,2}\.[0-9]{3}|[0-9]{1,3})$"
"""1.234 is a number of three decimals, or one of four digits in groups; beside it 5 tells nothing."""

_DAYS = ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%Y{0}%m{0}%d", "%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")
_NAMED = ("%d{0}%b{0}%Y", "%d{0}%b{0}%y", "%d{0}%B{0}%Y", "%b{0}%d{0}%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S")

_ALONE = (
    *(day.format(sign) for sign in "/.-" for day in _DAYS),
    *(day.format(sign) for sign in "-/ ." for day in _NAMED),
    "%b %d, %Y", "%B %d, %Y", "%d. %B %Y", "%Y年%m月%d日", "%Y%m%d",
)  # fmt: skip

DATES = tuple(date + clock for clock in _CLOCKS for date in _ALONE)
"""Formats that are tried, one after another."""


@dataclass
class Forms:
    """How columns of text are written.

    Attributes:
        decimal_point: None: nothing tells it; where columns differ, those with a comma.
        numbers: column -> its sign, or None; they are numbers written so.
        dates: column -> its format.
        unclear: column -> the formats its dates fit, several.
        odd: columns of numbers but for some texts -> the first of those.
        doubtful: column -> the mark in its numbers that may stand between thousands, or before a fraction.
        unlike: column -> the mark between thousands in its numbers, where those of other columns have another.
        kinds: column -> the word of `dtypes` that its texts are: true and false, times of day, durations.
        likely: the same of columns that may be something else.
        compact: columns of whole numbers -> the format that they are dates in.
        quoted: columns all of whose texts stand in single quotes.
    """

    decimal_point: str | dict[str, str] | None = None
    thousands: str | None = None
    numbers: dict[str, str | None] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, list[str]] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    likely: dict[str, str] = field(default_factory=dict)
    compact: dict[str, str] = field(default_factory=dict)
    quoted: list[str] = field(default_factory=list)

    def of(self, matters: Callable[[str], bool]) -> Forms:
        """What is known of some of the columns alone."""
        by_column: dict[str, Any] = {name: held for name, held in vars(self).items() if isinstance(held, dict)}
        kept = {name: {c: held[c] for c in held if matters(c)} for name, held in by_column.items()}
        return replace(self, **kept, quoted=[name for name in self.quoted if matters(name)])


def sign_of(text: str) -> str | None:
    """What stands with a number; empty where it is bare, None where it is no number however written."""
    match = _SIGNED.fullmatch(text.strip())
    return None if match is None else match["before"] or match["after"] or ""


class Numbers:
    """The columns of text that may be numbers, and in which ways each can be read.

    Args:
        texts: column -> its distinct texts, trimmed.
        decimal_point, thousands: as the spec names them; None: both, or all, are tried.
    """

    def __init__(self, texts: Mapping[str, pa.Array], decimal_point: str | None, thousands: str | None) -> None:
        self.signs: dict[str, str | None] = {}
        self.ways: dict[str, dict[Written, pa.Array]] = {}
        self.odd: dict[str, str] = {}
        """Columns most of whose texts are numbers written alike -> the first that is not."""
        points = [point for point in ([decimal_point] if decimal_point else (".", ",")) if point != thousands]
        groups = (None, thousands) if thousands else THOUSANDS
        for name, values in texts.items():
            signs = [sign_of(text) for text in values[:NUM_LOOKED].to_pylist()]
            if sum(sign is not None for sign in signs) < max(1, MOSTLY * len(signs)):
                continue
            sign = Counter(sign for sign in signs if sign is not None).most_common(1)[0][0] or None
            ways = [Written(point, group, sign) for point in points for group in groups if group != point]
            read = _read_in(ways, values)
            self.signs[name] = sign
            self.ways[name] = {way: numbers for way, numbers in read.items() if not numbers.null_count}
            best = min(read.values(), key=lambda numbers: numbers.null_count)
            if 0 < best.null_count <= (1 - MOSTLY) * len(values):
                self.odd[name] = values.filter(best.is_null())[0].as_py()

    def votes(self, point: str) -> bool:
        """Whether some column is one of numbers with this decimal point only."""
        return any(ways and all(way.decimal_point == point for way in ways) for ways in self.ways.values())

    def own_points(self) -> dict[str, str]:
        """Column -> what stands before its fractions, where its texts are numbers in one way only."""
        points = {name: {way.decimal_point for way in ways} for name, ways in self.ways.items()}
        return {name: next(iter(some)) for name, some in points.items() if len(some) == 1}

    def decided(self, usual: str | None, own: Mapping[str, str] | None = None) -> Forms:
        """What is certain of the columns.

        Args:
            usual: the decimal point of the file; None: nothing tells.
            own: column -> another one, where columns differ.
        """
        own = own or {}
        forms = Forms(usual, odd=dict(self.odd))
        left = {
            name: [way for way in ways if own.get(name, usual) in (None, way.decimal_point)]
            for name, ways in self.ways.items()
            if ways
        }
        grouped = [{way.thousands for way in ways} for ways in left.values() if ways and _needs_groups(ways)]
        common = set.intersection(*grouped) if grouped else set[str | None]()
        forms.thousands = next(iter(common)) if len(common) == 1 else None
        for name, ways in left.items():
            point = own.get(name, usual)
            read = [way for way in ways if way.thousands in (None, forms.thousands)]
            meant = ways if point is None else read
            meanings = {tuple(self.ways[name][way].cast(pa.float64()).to_pylist()) for way in meant}
            if len(meanings) == 1 and any(way.decimal_point == (point or ".") for way in read):
                forms.numbers[name] = self.signs[name]
            elif ways:
                mark = next((way.thousands for way in ways if way.thousands), ",")
                (forms.unlike if point and len(grouped) > 1 > len(common) else forms.doubtful)[name] = mark
        if own:
            forms.decimal_point = {n: point for n, point in own.items() if point == "," and n in forms.numbers} or usual
        return forms


def _read_in(ways: Sequence[Written], values: pa.Array) -> dict[Written, pa.Array]:
    """What each way makes of texts; ways whose mark between thousands is nowhere in these are all read as one."""
    written = "|".join(values.to_pylist())
    there = {way.thousands for way in ways if way.thousands and re.search(GROUPS[way.thousands], written)}
    alike = {way: way if way.thousands in there else way._replace(thousands=None) for way in ways}
    read = {way: plain_numbers(values, way) for way in dict.fromkeys(alike.values())}
    return {way: read[same] for way, same in alike.items()}


def _needs_groups(ways: Iterable[Written]) -> bool:
    return all(way.thousands is not None for way in ways)


def dates_of(values: pa.Array, formats: Iterable[str] = DATES) -> list[str]:
    """The formats that every text is a date in, one of each meaning; none where all are ISO 8601 already.

    Args:
        values: distinct texts, trimmed.
    """
    first = values[0].as_py() if len(values) else ""
    if not re.search(r"[0-9]", first) or len(first) > 40:
        return []
    if formats is DATES and not _of_any_date().fullmatch(first):  # nearly all texts, at a hundredth of the cost
        return []
    likely = [written for written in formats if _compiled(written).fullmatch(first)]
    if not likely or (microseconds(first) is not None and not instants(values)[1].any()):
        return []
    fitting = [written for written in likely if fits(values, written)]
    if len(fitting) < 2:
        return fitting
    meanings = {tuple(as_iso(values, written)[0].to_pylist()): written for written in reversed(fitting)}
    return [written for written in fitting if written in meanings.values()]


COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits of a whole number -> the format in which it may be a date."""

YEARS = range(1900, 2100)
"""Of dates that whole numbers may be."""


def compact_date(values: pa.Array) -> str | None:
    """The format in which several whole numbers, all of which are dates in it, are ones.

    Args:
        values: distinct ones.
    """
    if len(values) < 2:
        return None
    low, high = (str(each) for each in pc.min_max(values).as_py().values())
    written = COMPACT.get(len(low))
    if written is None or len(high) != len(low) or int(low[:4]) not in YEARS or int(high[:4]) not in YEARS:
        return None
    return written if fits(values.cast(pa.string()), written) else None


@cache
def _compiled(written: str) -> re.Pattern[str]:
    return re.compile(date_pattern(written))


@cache
def _of_any_date() -> re.Pattern[str]:
    """What matches where one of DATES does."""
    any_date = "%Y-%m-%d"
    clocks = [date_pattern(any_date + clock).removeprefix(date_pattern(any_date)) for clock in _CLOCKS]
    either = "".join(f"(?:{'|'.join(parts)})" for parts in ([date_pattern(date) for date in _ALONE], clocks))
    return re.compile(re.sub(r"\(\?P<\w+>", "(?:", either))
