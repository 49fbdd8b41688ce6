"""How the lines of a text table lie in its file: what divides cells, what stands before and among the rows."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from raypipe.data.table.names import MissingColumn
from raypipe.errors import DataError
from raypipe.spec.sources import CsvSource

DELIMITERS = ",;\t|"
"""What divides the values of text tables."""

MAX_ROWS = 200
MAX_CHARS = 2**20
"""Of a file's start, to see how it is laid out."""

MIN_AGREEING = 0.9
"""Share of the rows that have as many cells as the header, for its delimiter to be certain."""

MIN_USUAL = 0.5
"""Share of the rows that have the usual number of cells, where the header has another one."""

SHOWN = 60

SEP_LINE = re.compile(r'"?sep=(.)"?')
"""What spreadsheets write, and read, as the first line of a table."""

COMMENTS = "#%!"

VALUE = re.compile(r"[+-]?[0-9.,]*[0-9][0-9.,:/-]*(?: ?%| ?€)?|")
"""A number, a date or nothing: hardly the name of a column."""


class Line(NamedTuple):
    """One row as a delimiter cuts it."""

    cells: list[str]
    number: int
    """Of the line it begins in, from 1."""


def laid_out(
    text: str, source: CsvSource, file: str, targets: Sequence[str] = (), is_shown: bool = True
) -> dict[str, Any]:
    """The fields of the source that the start of a file tells, of those that are not set.

    Args:
        text: whole lines.
        targets: columns that the file must have, as far as they are known.
        is_shown: whether messages may show what the file holds.
    Raises:
        DataError: some setting is needed; says which and why.
    """
    fields: dict[str, Any] = {}
    first = text.partition("\n")[0].strip("\r\ufeff")
    if source.delimiter is None and not source.skip_lines and (match := SEP_LINE.fullmatch(first)):
        fields |= {"delimiter": match[1], "skip_lines": 1}
        source = source.model_copy(update=fields)
    lines = _kept(text, source)
    signs = _signs(lines, source)
    fields |= signs
    source = source.model_copy(update=signs)
    cuts = {sign: _cut(lines, sign, source) for sign in (source.delimiter or DELIMITERS)}
    delimiter = source.delimiter or _delimiter(cuts, source, file)
    if delimiter is None:
        _refuse_lines_before(cuts, source, file, is_shown)
        return fields
    if source.delimiter is None:
        fields["delimiter"] = delimiter
    rows = cuts[delimiter]
    if len(rows) > 1:
        fields |= _names_of_rows(rows, source, file)
        if "row_names" not in fields:
            _refuse_lines_before({delimiter: rows}, source, file, is_shown)
        _refuse_comments(rows, source, file, is_shown)
    _refuse_values_as_names(rows, source, file, targets, is_shown)
    return fields


def _kept(text: str, source: CsvSource) -> list[tuple[int, str]]:
    """The lines, each with its number, without those that the source leaves out."""
    start = io.StringIO(text[:MAX_CHARS].lstrip("\ufeff"), newline="")  # cuts at line breaks alone, as readers do
    lines = list(enumerate(start, 1))[source.skip_lines :]
    return [line for line in lines if not (source.comment and line[1].startswith(source.comment))]


def _signs(lines: list[tuple[int, str]], source: CsvSource) -> dict[str, Any]:
    """The quote and the escape sign that make all rows alike, where those that are set do not."""
    escapes = ["\\"] if source.escape is None and any("\\" in text for _, text in lines) else []
    is_free = "quote" not in source.model_fields_set and any("'" in text for _, text in lines)
    quotes = ["'"] if is_free else []
    ways: list[dict[str, Any]] = [
        *({"escape": escape} for escape in escapes),
        *({"quote": quote} for quote in quotes),
        *({"quote": quote, "escape": escape} for quote in quotes for escape in escapes),
    ]
    if not ways or _is_even(lines, source):
        return {}
    return next((way for way in ways if _is_even(lines, source.model_copy(update=way))), {})


def _is_even(lines: list[tuple[int, str]], source: CsvSource) -> bool:
    """Whether some delimiter cuts every row into as many cells as the header has, with no text behind a quote."""
    return any(_is_even_by(sign, lines, source) for sign in (source.delimiter or DELIMITERS))


def _is_even_by(delimiter: str, lines: list[tuple[int, str]], source: CsvSource) -> bool:
    try:
        sizes = [len(cells) for cells in _reader(lines, delimiter, source, strict=True) if cells]
    except csv.Error:
        return False
    if source.header is not True:
        return set(sizes) == {len(source.header or source.columns or [])} and sizes[0] > 1
    return len(sizes) > 1 and sizes[0] > 1 and set(sizes[1:]) in ({sizes[0]}, {sizes[0] + 1})


def _reader(lines: list[tuple[int, str]], delimiter: str, source: CsvSource, *, strict: bool) -> Any:
    options: dict[str, Any] = {"quotechar": source.quote} if source.quote else {"quoting": csv.QUOTE_NONE}
    texts = (text for _, text in lines)
    return csv.reader(texts, delimiter=delimiter, escapechar=source.escape, strict=strict, **options)


def _cut(lines: list[tuple[int, str]], delimiter: str, source: CsvSource) -> list[Line]:
    """Rows that are not blank; none where the delimiter cannot be the one."""
    reader = _reader(lines, delimiter, source, strict=False)
    rows: list[Line] = []
    try:
        before = 0
        for cells in reader:
            if cells:
                rows.append(Line(cells, lines[before][0]))
            before = reader.line_num
            if len(rows) > MAX_ROWS:
                break
    except csv.Error:  # e.g. a cell of more than 128 KiB
        return []
    return rows


def _delimiter(cuts: dict[str, list[Line]], source: CsvSource, file: str) -> str | None:
    """The one that divides the header and the rows alike; None where none does.

    Raises:
        DataError: several do.
    """
    dividing = [sign for sign, rows in cuts.items() if rows and _divides(rows, source)]
    if len(dividing) > 1 and source.header is True and source.columns:
        dividing = [s for s in dividing if set(source.columns) <= set(cuts[s][0].cells)] or dividing
    if len(dividing) > 1:
        both = " and ".join(repr(sign) for sign in dividing)
        raise DataError(
            f"{file}: the header and the rows can be divided at {both}",
            f"set data.source.delimiter: {json.dumps(dividing[0])} or {json.dumps(dividing[1])}",
        )
    return dividing[0] if dividing else None


def _divides(rows: list[Line], source: CsvSource) -> bool:
    sizes = [len(row.cells) for row in rows]
    if source.header is not True:
        names = source.header or source.columns or []
        return len(names) > 1 and sizes.count(len(names)) >= MIN_USUAL * len(sizes)
    size, rest = sizes[0], sizes[1:] or sizes
    return size > 1 and sum(one in (size, size + 1) for one in rest) >= MIN_AGREEING * len(rest)


def _names_of_rows(rows: list[Line], source: CsvSource, file: str) -> dict[str, Any]:
    """Whether all rows begin with a name of their own that the header has no cell for."""
    size = len(rows[0].cells)
    if isinstance(source.header, list) or source.header is False:
        names = source.header or source.columns or []
        usual, count = Counter(len(row.cells) for row in rows).most_common(1)[0]
        if usual != len(names) and count >= MIN_USUAL * len(rows):
            named = "columns" if source.header is False else "header"
            raise DataError(
                f"{file}: the rows have {usual} cells, data.source.{named} gives {len(names)} names",
                f"name every cell, in the file's order, in data.source.{named}",
            )
        return {}
    if source.row_names is not None or any(len(row.cells) != size + 1 for row in rows[1:]):
        return {}
    firsts = [row.cells[0] for row in rows[1:]]
    return {"row_names": True} if len(set(firsts)) == len(firsts) else {}


def _refuse_lines_before(cuts: dict[str, list[Line]], source: CsvSource, file: str, is_shown: bool) -> None:
    """Raise DataError where the table begins below lines of another kind."""
    if source.header is not True:
        return
    for sign, rows in cuts.items():
        counts = Counter(len(row.cells) for row in rows)
        usual, count = counts.most_common(1)[0] if rows else (0, 0)
        before = list(takewhile(lambda row: len(row.cells) != usual, rows))  # noqa: B023, used at once
        if usual < 2 or not before or count < max(2, MIN_USUAL * len(rows)):
            continue
        if source.row_names:
            continue
        if len(before) == 1 and len(before[0].cells) >= 2 and usual == len(before[0].cells) + 1:
            raise DataError(
                f"{file}: the header has {usual - 1} cells, {count} of the first {len(rows) - 1} rows have {usual}",
                "set data.source.row_names: true where the first cell of each is the row's name; else mend the header",
            )
        line = rows[len(before)].number
        text = sign.join(before[0].cells)[:SHOWN]
        shown = f" ({text!r})" if is_shown else ""
        is_comment = text[:1] in COMMENTS and all("".join(row.cells)[:1] == text[:1] for row in before)
        needed = f"data.source.comment: '{text[:1]}'" if is_comment else f"data.source.skip_lines: {line - 1}"
        raise DataError(
            f"{file}: line {before[0].number}{shown} is no header of the rows: from line {line} on there are {usual} "
            f"cells divided by {sign!r}",
            f"set {needed}",
        )


def _refuse_comments(rows: list[Line], source: CsvSource, file: str, is_shown: bool) -> None:
    """Raise DataError where some lines among the rows are remarks."""
    size = len(rows[0].cells)
    for sign in COMMENTS if source.comment is None else "":
        begun = [row for row in rows if row.cells[0].startswith(sign)]
        if begun and all(len(row.cells) not in (size, size + 1) for row in begun):
            shown = f" ({begun[0].cells[0][:SHOWN]!r})" if is_shown else ""
            raise DataError(
                f"{file}: line {begun[0].number} begins with {sign!r}{shown} and is no row",
                f"set data.source.comment: '{sign}', which leaves such lines out",
            )


def _refuse_values_as_names(
    rows: list[Line], source: CsvSource, file: str, targets: Sequence[str], is_shown: bool
) -> None:
    """Raise MissingColumn where the file seems to have no header."""
    if not rows or source.header is not True or not targets or set(targets) <= set(rows[0].cells):
        return
    cells = rows[0].cells
    values = [cell for cell in cells if cell and VALUE.fullmatch(cell.strip())]
    if len(values) >= max(1, MIN_USUAL * len(cells)):
        shown = f": {cells[:10]}" if is_shown else ""
        what = f"{file}: the first line holds values and not the names of columns"
        raise MissingColumn(
            f"{what}{shown}",
            f"set data.source.header: false, and data.source.columns: the names of all {len(cells)} cells in order",
            what,
        )
