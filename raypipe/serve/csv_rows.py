"""Rows of a request as CSV: text/csv in, the columns of the model out, and answers as CSV.

A first line that holds a field's name is a header, as MLflow and pandas write one; without it the cells are in the
signature's order, as SageMaker's own algorithms have them. A model of one tensor reads its numbers cell by cell. What
is no number stays text, and the checker refuses it as it does in JSON.

Shape letters: B rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import Column, Signature
from raypipe.serve import schema
from raypipe.serve.checker import Checker, Columns

NUMBER = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)

NOT_IN_NUMBERS = re.compile(r"[^0-9eE+\-.,\s]")
"""Python reads more than this as a number: `nan`, `inf`, `1_000`, digits of other scripts."""

BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

HINT = "send one line a row, with the fields' names in the first line or the values in the model's order"


def read(body: bytes, signature: Signature, checker: Checker) -> tuple[Columns, int]:
    """Columns of the model, and the number of rows.

    Raises:
        RequestError: 400 naming row and field, or 413.
    """
    shaped = [column for column in signature.inputs if column.shape]
    lines = _lines(body)
    if shaped and len(signature.inputs) > 1:
        raise RequestError(
            f"field '{shaped[0].name}' holds several numbers; CSV has one a cell",
            "send JSON: content-type application/json",
        )
    if shaped:
        return _tensor(lines, shaped[0], signature, checker)
    return _table(lines, signature, checker)


def written(predictions: Predictions) -> bytes:
    """One line a row: the number, or the label and the probability of each class, in class order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if predictions.classes is None:
        writer.writerows([str(value)] for value in predictions.values)
    else:
        for best, row_K in zip(predictions.labels().tolist(), predictions.values, strict=True):
            writer.writerow([predictions.classes[best], *map(str, row_K)])
    return text.getvalue().encode()


def _tensor(lines: Iterator[list[str]], column: Column, signature: Signature, checker: Checker) -> tuple[Columns, int]:
    rows: list[list[Any]] = []
    for line in lines:
        rows.append(_numbers(line, is_nullable=column.nullable))
        if len(rows) > checker.max_rows:
            break
    schema.check_row_count(len(rows), signature, checker.max_rows)
    return checker.columns({column.name: rows}, booleans=False), len(rows)


def _table(lines: Iterator[list[str]], signature: Signature, checker: Checker) -> tuple[Columns, int]:
    known = [column.name for column in signature.inputs]
    names, rows = known, []
    for line_number, line in enumerate(lines):
        if line_number == 0 and not set(known).isdisjoint(line):
            names = _header(line, signature)
            continue
        if len(line) != len(names):
            listed = ", ".join(names)[:80]
            raise RequestError(f"row {len(rows)}: found {len(line)} cells; expected {len(names)} ({listed})", HINT)
        rows.append(line)
        if len(rows) > checker.max_rows:
            break
    schema.check_row_count(len(rows), signature, checker.max_rows)
    cells = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns = {c.name: _values(cells[c.name], c, signature.null_words) for c in signature.inputs}
    return checker.columns(columns, booleans=False), len(rows)


def _header(names: list[str], signature: Signature) -> list[str]:
    known = {column.name for column in signature.inputs}
    twice = [name for name in names if name in known and names.count(name) > 1]
    if twice:
        raise RequestError(f"the first line names field {schema.shown(twice[0])} twice", "name each field once")
    schema.check_names(names, signature)
    return names


def _lines(body: bytes) -> Iterator[list[str]]:
    """Cells of all lines that are not empty.

    Raises:
        RequestError: it is no UTF-8, or no CSV.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 at byte {error.start}", "send CSV as UTF-8") from None
    try:
        yield from (line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line)
    except csv.Error as error:
        raise RequestError(f"the body is not valid CSV: {error}", HINT) from None


def _values(cells: Sequence[str], column: Column, null_words: frozenset[str]) -> list[Any]:
    """Cells -> what JSON would hold."""
    if column.dtype == "string":
        return list(cells)
    if column.dtype != "bool":
        return _numbers(cells, is_nullable=column.nullable)
    read = [BOOLEANS.get(cell.strip(), cell) for cell in cells]
    return [None if value == "" else value for value in read] if column.nullable else read


def _numbers(cells: Sequence[str], *, is_nullable: bool) -> list[Any]:
    """The number in each cell, as JSON has it; the cell itself where it holds none.

    Args:
        is_nullable: whether an empty cell is a missing value.
    """
    if NOT_IN_NUMBERS.search(",".join(cells)) is None:
        for convert in (int, float):
            try:
                if is_nullable:
                    return [convert(cell) if cell else None for cell in cells]
                return list(map(convert, cells))
            except ValueError:  # one is no number of this kind
                continue
    return [None if is_nullable and not cell else _number(cell) for cell in cells]


def _number(cell: str) -> int | float | str:
    text = cell.strip()
    if not NUMBER.fullmatch(text):
        return cell
    return float(text) if set(text) & set(".eE") else int(text)
