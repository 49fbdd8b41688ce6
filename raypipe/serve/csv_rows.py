"""Rows of a request as CSV: text/csv in, the columns of the model out, and answers as CSV.

A first line that holds a field's name is a header, as MLflow and pandas write one; without it the cells are in the
signature's order, as SageMaker's own algorithms have them. A model of one tensor reads its numbers cell by cell. A body
that is divided as the CSV files were that the model learned from is read as those (csv_written.py). What is no number
stays text, and the checker refuses it as it does in JSON.

Shape letters: B rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import OutputColumn, Task
from raypipe.records import Column, Signature
from raypipe.serve import csv_written, schema
from raypipe.serve.checker import Checker, Columns, parsed_list

NUMBER = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)

NOT_IN_NUMBERS = re.compile(r"[^0-9eE+\-.,\s]")
"""Python reads more than this as a number: `nan`, `inf`, `1_000`, digits of other scripts."""

BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

HINT = "send one line a row, with the fields' names in the first line or the values in the model's order"


def read(body: bytes | bytearray, signature: Signature, checker: Checker) -> tuple[Columns, int]:
    """Columns of the model, and the number of rows.

    Raises:
        RequestError: 400 naming row and field, or 413.
    """
    shaped = [column for column in signature.inputs if column.shape]
    text = _text(body)
    if shaped and len(signature.inputs) > 1:
        raise RequestError(
            f"field '{shaped[0].name}' holds several numbers; CSV has one a cell",
            "send JSON: content-type application/json",
        )
    if shaped:
        return _tensor(_lines(text), shaped[0], signature, checker)
    how = csv_written.how_of(text, signature)
    return _table(_lines(text, how.dialect), signature, checker, how)


SET_SEPARATOR = ";"
"""Between several labels in one cell; a label that holds it stands in quotes, as cells do that hold a comma."""


def written(predictions: Predictions, task: Task) -> bytes:
    """One line a row: the number, or one a target; the text; or the label, or labels, and the probability of each, in
    class order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    answers = task.answers(predictions.values)
    shown = [column for column in task.columns if column.role != "confidence"]  # which is among the details
    for row in zip(*(answers[column.name] for column in shown), strict=True):
        parts = zip(shown, row, strict=True)
        writer.writerow([cell for column, value in parts for cell in _cells(column, value)])
    return text.getvalue().encode()


def _cells(column: OutputColumn, value: Any) -> list[Any]:
    """Labels and texts as they are; numbers in the fewest digits that read back the same."""
    if column.is_set:
        labels = io.StringIO()
        csv.writer(labels, delimiter=SET_SEPARATOR, lineterminator="").writerow(value)
        return [labels.getvalue()]
    return [value] if column.labels or column.dtype == "string" else [str(number) for number in np.ravel(value)]


def _tensor(lines: Iterator[list[str]], column: Column, signature: Signature, checker: Checker) -> tuple[Columns, int]:
    rows: list[list[Any]] = []
    for line in lines:
        rows.append(_numbers(line, is_nullable=column.nullable))
        if len(rows) > checker.max_rows:
            break
    schema.check_row_count(len(rows), signature, checker.max_rows)
    return checker.columns({column.name: rows}, booleans=False), len(rows)


def _table(
    lines: Iterator[list[str]], signature: Signature, checker: Checker, how: csv_written.HowWritten
) -> tuple[Columns, int]:
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
    columns = {c.name: _values(cells[c.name], c, how) for c in signature.inputs}
    return checker.columns(columns, booleans=False), len(rows)


def _header(names: list[str], signature: Signature) -> list[str]:
    known = {column.name for column in signature.inputs}
    twice = schema.first_repeated(name for name in names if name in known)
    if twice is not None:
        raise RequestError(f"the first line names field {schema.shown(twice)} twice", "name each field once")
    schema.check_names(names, signature)
    return names


def _text(body: bytes | bytearray) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 at byte {error.start}", "send CSV as UTF-8") from None


def _lines(text: str, dialect: csv_written.Dialect = csv_written.PLAIN) -> Iterator[list[str]]:
    """Cells of all lines that are not empty.

    Raises:
        RequestError: it is no CSV.
    """
    try:
        yield from (line for line in csv_written.cells(text, dialect) if line)
    except csv.Error as error:
        raise RequestError(f"the body is not valid CSV: {error}", HINT) from None


def _values(cells: Sequence[str], column: Column, how: csv_written.HowWritten) -> list[Any]:
    """Cells -> what JSON would hold."""
    if column.is_list:
        return [parsed_list(cell) for cell in cells]
    plain, odd = how.plain(column, cells)
    if column.dtype == "string":
        return list(plain)
    if column.dtype == "bool":
        read = [BOOLEANS.get(cell.strip(), cell) for cell in plain]
        return [None if value == "" else value for value in read] if column.nullable else read
    numbers = _numbers(plain, is_nullable=column.nullable)
    for row in odd:
        numbers[row] = cells[row]  # as text, which the checker refuses, or takes for no value
    return numbers


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
