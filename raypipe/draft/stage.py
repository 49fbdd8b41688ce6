"""draft(): looks at data and writes the pipeline file that a careful person would begin with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from raypipe.data.formats.csv_layout import DELIMITERS
from raypipe.data.sample import Sample, first_row, read_sample
from raypipe.data.table.names import MissingColumn
from raypipe.draft.find import What, find_data
from raypipe.draft.folders import draft_folder
from raypipe.draft.table import draft_table
from raypipe.draft.text import draft_text
from raypipe.draft.written import Written
from raypipe.errors import SpecError
from raypipe.spec.load import parse_pipeline
from raypipe.spec.sources import Source

_SOURCE: TypeAdapter[Any] = TypeAdapter(Source)


class Draft(NamedTuple):
    """What is written.

    Attributes:
        pipeline: text of the pipeline file.
        request: what a client sends.
        guesses: what should be looked at.
    """

    pipeline: str
    request: dict[str, Any]
    guesses: list[str]


def draft(path: str, folder: str, name: str, target: str | None = None) -> Draft:
    """A pipeline file for data.

    Args:
        path: of the data: a file, folder or glob of this machine, `s3://` or `https://`.
        folder: where the pipeline file will lie; a path that is relative is written as it reads from there.
        name: of the pipeline.
        target: the column to predict, where it is a table.
    Raises:
        SpecError: there is nothing to predict, or to learn from.
        DataError: the data is not there, or cannot be read.
    """
    data = find_data(path)
    if target is not None and data.what != "table":
        raise SpecError(f"--target names a column of a table, but {path} holds a {data.what}", "leave --target out")
    is_elsewhere = "://" in path or os.path.isabs(os.path.expanduser(path))
    there = path if is_elsewhere else os.path.relpath(path, folder)
    written = _DRAFTS[data.what](data.format, path, there, target)
    if data.others:
        found = ", ".join(f"{num} of format {form}" for form, num in data.others.items())
        written.data.insert(0, f"# beside these files lie others, which are not read: {found}")
        written.guesses.append("which files are read")
    text = written.text(name)
    spec = parse_pipeline(text, name="pipeline.yaml")
    if written.request is None:
        row = first_row(spec.data.parts()[0].source, folder)
        written.request = {column: row[column] for column in spec.data.features or ()}
    return Draft(text, {"instances": [written.request]}, written.guesses)


def _table(form: str, path: str, there: str, target: str | None) -> Written:
    fields, sample = _read_table(form, path)
    return draft_table(sample, {**fields, "path": there}, target)


def _read_table(form: str, path: str) -> tuple[dict[str, Any], Sample]:
    """The section `source`, and rows; of CSV with the delimiter that divides its header."""
    found: MissingColumn | None = None
    for fields in _ways(form, path):
        try:
            return fields, read_sample(_SOURCE.validate_python(fields), ".")
        except MissingColumn as error:  # the header is one cell
            found = found or error
    assert found is not None
    raise found


def _ways(form: str, path: str) -> list[dict[str, Any]]:
    plain = {"format": form, "path": path}
    if form != "csv":
        return [plain]
    is_tabs = path.lower().removesuffix(".gz").endswith(".tsv")
    first = [{**plain, "delimiter": "\t"}] if is_tabs else [plain]
    return [*first, *({**plain, "delimiter": sign} for sign in DELIMITERS if sign != ",")]


def _folder(form: str, path: str, there: str, target: str | None) -> Written:
    del target
    needed = {"sample_rate": 1, "duration_s": 1} if form == "sound" else {}  # the files tell, see draft_folder
    return draft_folder(_SOURCE.validate_python({"format": form, "path": path, **needed}), there)


def _text(form: str, path: str, there: str, target: str | None) -> Written:
    del target
    return draft_text(_SOURCE.validate_python({"format": form, "path": path}), there)


_DRAFTS: dict[What, Callable[[str, str, str, str | None], Written]] = {
    "table": _table,
    "pictures": _folder,
    "recordings": _folder,
    "text": _text,
}
