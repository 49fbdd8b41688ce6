"""Files beside the files of a folder that say what those are: one line each, or an object of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.json_rows import json_object, reason
from raypipe.data.formats.jsonl import JsonParser
from raypipe.data.formats.labels import LABEL, FileRow
from raypipe.data.sources.files import UnreadableFile, read_bytes
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from raypipe.spec.labels import SidecarLabel
from raypipe.spec.sources import JsonlSource

MAX_BYTES = 16 * 2**20
"""A larger file is none that says what another one is."""


class Sidecars(NamedTuple):
    """What stands beside some files.

    Attributes:
        columns: label and further columns, a row a file.
        problems: of each file, why it has none.
    """

    columns: pa.Table
    problems: list[str | None]


def read_sidecars(rows: Sequence[FileRow], spec: SidecarLabel) -> Sidecars:
    """The files beside some files; what is no such file is a problem of that one."""
    problems: list[str | None] = []
    read: list[bytes] = []
    for row in rows:
        data, problem = b"", row.problem
        if row.sidecar is not None:
            try:
                if (row.sidecar.size_bytes or 0) > MAX_BYTES:
                    raise DataError(f"{row.sidecar.name} has more than {MAX_BYTES} bytes")
                data = read_bytes(row.sidecar)
            except UnreadableFile as error:
                problem = error.message
            except DataError as error:
                if type(error) is not DataError:
                    raise  # the source changed: it is not the file that is wrong
                problem = error.message
        problems.append(problem)
        read.append(data)
    return _objects(rows, read, problems, spec) if spec.suffix.lower() == ".json" else _lines(rows, read, problems)


def _lines(rows: Sequence[FileRow], read: Sequence[bytes], problems: list[str | None]) -> Sidecars:
    labels: list[str | None] = []
    for i, (row, data) in enumerate(zip(rows, read, strict=True)):
        label = None
        if problems[i] is None and row.sidecar is not None:
            try:
                label = data.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                problems[i] = f"{row.sidecar.name} is no UTF-8 text"
            num_lines = len((label or "").splitlines())
            if label is not None and num_lines != 1:
                what = "is empty" if not num_lines else f"has {num_lines} lines"
                problems[i], label = f"{row.sidecar.name} {what}, where one line is the label", None
        labels.append(label)
    return Sidecars(pa.table({LABEL: pa.array(labels, pa.string())}), problems)


def _objects(
    rows: Sequence[FileRow], read: Sequence[bytes], problems: list[str | None], spec: SidecarLabel
) -> Sidecars:
    lines: list[bytes] = []
    for i, (row, data) in enumerate(zip(rows, read, strict=True)):
        line = b"{}"
        if problems[i] is None and row.sidecar is not None:
            try:
                line = json.dumps(json_object(data.removeprefix(b"\xef\xbb\xbf"))).encode()
            except (ValueError, RecursionError) as error:
                problems[i] = f"{row.sidecar.name} {reason(error)}"
        lines.append(line + b"\n")
    chunk = Chunk(b"".join(lines), np.cumsum([len(line) for line in lines]))
    name = f"its file *{spec.suffix}"
    table = JsonParser(name, JsonlSource(format="jsonl", path=name), ()).parse(chunk)
    if BAD in table.column_names:
        told = table[BAD].to_pylist()
        problems = [problem or why for problem, why in zip(problems, told, strict=True)]
        table = table.drop_columns([BAD])
    labels = pa.nulls(len(rows), pa.string())
    if spec.label_field in table.column_names:
        held = table[spec.label_field]
        if pa.types.is_list(held.type):
            why = f"'{spec.label_field}' is a list, where one text or number is the label"
            has_list = held.is_valid().to_pylist()
            problems = [problem or (why if wrong else None) for problem, wrong in zip(problems, has_list, strict=True)]
        else:
            labels = held.cast(pa.string())
        table = table.drop_columns([spec.label_field])
    return Sidecars(table.append_column(LABEL, labels), problems)
