"""How delimited text is written: what `format: csv` says of its files, and a table of labels of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.date_formats import date_pattern

Dtype = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string"
]


CsvDtype = Literal[Dtype, "time", "duration"]

DecimalPoint = Literal[".", ","]

ONE_SIGN = r"^[\x00-\x7f]$"
"""One ASCII character."""

NULL_WORDS = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "<NA>", "\\N", "?", "-"]
"""What spreadsheets, pandas, R and databases write where there is no value."""


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        return "a".encode(name).decode(name) == "a"
    except (LookupError, ValueError):
        return False


class CsvSettings(Spec):
    """How a table of delimited text is written."""

    dtypes: dict[str, CsvDtype] = {}
    """Types of columns; a value that is none makes a bad row. `bool` takes any usual pair (yes and no, t and f, ja and
    nein, ...); `time` (of day: 14:30, 2:30 PM) and `duration` (1:02:03, P1DT2H, 3 days 04:00:00) become seconds. Other
    columns are what all their values can be; those with leading zeros are text."""
    newlines_in_values: bool = True
    """false: no quoted value holds a line break, so one large file can be read by several tasks."""
    encoding: str | None = None
    """How characters are bytes: utf-8, utf-16, cp1252, latin-1 or another name Python knows. Unset: UTF-8 and UTF-16
    are recognised; nothing tells single-byte encodings apart, so they must be named."""
    delimiter: str | None = Field(default=None, pattern=ONE_SIGN)
    """One character between cells: `,`, `;`, `|` or a tab."""
    quote: str = Field(default='"', pattern=r"^[\x00-\x7f]?$")
    """What stands around cells that hold the delimiter; doubled it is one of the cell. Empty: nothing does."""
    escape: str | None = Field(default=None, pattern=ONE_SIGN)
    """What takes the meaning of the sign after it, e.g. a backslash before a quote."""
    skip_lines: int = Field(default=0, ge=0, le=100_000)
    """Lines before the header that are no part of the table."""
    comment: str | None = Field(default=None, pattern=ONE_SIGN)
    """Lines that begin with this sign are no rows."""
    header: bool | list[str] = True
    """false: the first line is a row, and `columns` names the cells in order; a list names them itself."""
    row_names: bool | None = None
    """Each row has a cell more than the header, its name, in front: as R writes row names."""
    decimal_point: DecimalPoint | dict[str, DecimalPoint] | None = None
    """What stands before the fraction of a number; with `,` a file is usually divided by `;`. Where columns differ:
    column -> its own, all others have a point. Unset: recognised where values can be read in one way only."""
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """What stands between groups of three digits; a blank is any kind of blank."""
    signs: dict[str, str] = {}
    """Column -> the sign that stands with each of its numbers, e.g. `%`, `€`, `USD`. It is left out (12 % is 12), and a
    number without it, or with another one, makes a bad row."""
    date_format: str | dict[str, str] | None = None
    """How dates are written, e.g. `%d/%m/%Y` or `%d.%m.%y %H:%M`: column -> format, or one for all columns it fits.
    They become ISO 8601, as requests give them: 2024-01-31, or 2024-01-31T14:30:00."""
    null_values: list[str] = NULL_WORDS
    """Texts that mean 'no value'; with `""` among them, blanks do too."""

    @property
    def decimal_points(self) -> dict[str, DecimalPoint]:
        """Column -> what stands before its fractions, where `decimal_point` names columns."""
        return self.decimal_point if isinstance(self.decimal_point, dict) else {}

    @property
    def usual_point(self) -> DecimalPoint:
        """What stands before fractions, in a column of which nothing else is said."""
        return self.decimal_point if isinstance(self.decimal_point, str) else "."

    @property
    def date_formats(self) -> dict[str, str]:
        """Column -> the format of its dates, where `date_format` names columns."""
        return self.date_format if isinstance(self.date_format, dict) else {}

    @model_validator(mode="after")
    def signs_are_told_apart(self) -> Self:
        signs = [self.delimiter, self.quote, self.escape, self.comment]
        given = [sign for sign in signs if sign]
        if len(set(given)) < len(given):
            raise ValueError("delimiter, quote, escape and comment must be different signs")
        if self.thousands is not None and self.thousands == self.decimal_point:
            raise ValueError(f"thousands and decimal_point are both {self.thousands!r}; they must differ")
        if self.encoding is not None and not is_encoding(self.encoding):
            raise ValueError(f"encoding {self.encoding!r} is not known; use utf-8, utf-16, cp1252 or latin-1")
        return self

    @model_validator(mode="after")
    def dates_can_be_read(self) -> Self:
        formats = self.date_format or {}
        for written in [formats] if isinstance(formats, str) else formats.values():
            date_pattern(written)
        return self
