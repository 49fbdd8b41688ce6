"""Where the labels of files come from that are a row each: folders, names, a table, or files beside them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.csv_settings import CsvSettings
from raypipe.spec.endings import has_ending, without_ending

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")
NO_CSV = (*PARQUET, *JSON_LINES)
"""Names of tables that are of another format end so."""


class NamedFiles(NamedTuple):
    """The files that one field of a source names."""

    field: str
    paths: str | list[str]
    suffixes: tuple[str, ...]
    """What counts inside a folder."""
    is_one: bool = False
    """Whether it must be one file."""


class LabelSpec(Spec):
    """Where the label of a file comes from, and other columns with it."""

    model_config = ConfigDict(serialize_by_alias=True)  # `from` is a word of Python

    def named(self, paths: str | list[str], suffixes: tuple[str, ...]) -> list[NamedFiles]:
        """The files that it reads beside those of the rows, which these paths and suffixes name."""
        del paths, suffixes
        return []

    def in_split(self, word: str) -> Self:
        """For the source of one split: `word` in place of `{split}` in every path."""
        del word
        return self


class FolderLabel(LabelSpec):
    """The name of the folder that a file lies in."""

    source: Literal["folder"] = Field(alias="from")
    """Where from."""


class RegexLabel(LabelSpec):
    """Fields of labels that a regular expression finds."""

    regex: str = Field(min_length=1)
    """It has one group, which is the label, or named ones, `(?P<label>[0-9])_(?P<speaker>[a-z]+)`, which are columns.
    It is looked for anywhere in the name unless `^` and `$` tie it to the ends; a file that it does not match is
    refused."""

    @model_validator(mode="after")
    def regex_has_groups(self) -> Self:
        try:
            pattern = re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"regex {self.regex!r} is no regular expression: {error}") from None
        if not pattern.groups:
            raise ValueError(f"regex {self.regex!r} has no group; put what is the label in ( ), e.g. '^([0-9]+)_'")
        if pattern.groups > max(1, len(pattern.groupindex)):
            raise ValueError(
                f"regex {self.regex!r} has {pattern.groups} groups; name those that are columns, e.g. "
                "'(?P<label>[0-9])_(?P<speaker>[a-z]+)', and write others as (?:...)"
            )
        if "file" in pattern.groupindex:
            raise ValueError(f"regex {self.regex!r} names a group `file`, which is the column of the files' names")
        return self


class FilenameLabel(RegexLabel):
    """A part of a file's name."""

    source: Literal["filename"] = Field(alias="from")
    """Where from: the name without folders."""


class PathLabel(RegexLabel):
    """A part of a file's path below the folder that the source names."""

    source: Literal["path"] = Field(alias="from")
    """Where from: the name with the folders before it, divided by `/`."""


class TableLabel(LabelSpec):
    """A table with a row for each file; its other columns are columns of the rows."""

    source: Literal["table"] = Field(default="table", alias="from")
    """Where from."""
    path: str
    """A CSV, JSON lines or Parquet file."""
    file_column: str = "file"
    """Names the files, as the source's column `file` does: relative to the folder that `path` names. Where no name is
    one of those, they are looked for without suffix, without folders, and without either."""
    label_column: str | None = "label"
    """Column of the table that is the label, as text; null where no column is. Others keep their names and types: for
    features, target, weights and splits."""
    unlabelled: Literal["refuse", "leave_out"] = "refuse"
    """Files that the table does not name, and rows of it without a file: bad rows, or left out, and told either way."""
    csv: CsvSettings | None = None
    """How a CSV table is written, in the fields of `format: csv`: `{delimiter: ";", encoding: cp1252}`. What is not set
    is recognised."""

    @model_validator(mode="after")
    def csv_is_written_so(self) -> Self:
        if self.csv is not None and has_ending(self.path, NO_CSV):
            raise ValueError(f"csv says how a CSV table is written, and {self.path!r} is none; leave csv out")
        if self.csv is not None and not self.csv.header:
            raise ValueError("csv.header: give the name of every cell, in the table's order, e.g. [file, label]")
        return self

    @model_serializer(mode="wrap")
    def without_what_is_not_set(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Tables that need no setting are the data sets that they were."""
        return {name: value for name, value in written(self).items() if name != "csv" or value is not None}

    def named(self, paths: str | list[str], suffixes: tuple[str, ...]) -> list[NamedFiles]:
        return [NamedFiles("label", self.path, (".csv", ".jsonl", ".parquet"), is_one=True)]

    def in_split(self, word: str) -> Self:
        return self.model_copy(update={"path": self.path.replace("{split}", word)})


class SidecarLabel(LabelSpec):
    """A file beside each with the same name but for the suffix."""

    source: Literal["sidecar"] = Field(alias="from")
    """Where from."""
    suffix: str = Field(default=".txt", pattern=r"^\.[^/*?\[\]]+$")
    """`.json` holds an object, whose fields are columns; any other one line, which is the label."""
    label_field: str = "label"
    """Of an object the field that is the label, as text."""

    def named(self, paths: str | list[str], suffixes: tuple[str, ...]) -> list[NamedFiles]:
        beside = [self._beside(path, suffixes) for path in ([paths] if isinstance(paths, str) else paths)]
        return [NamedFiles("label", beside, (self.suffix.lower(),))]

    def _beside(self, path: str, suffixes: tuple[str, ...]) -> str:
        stem = next((without_ending(path, suffix) for suffix in suffixes if has_ending(path, suffix)), None)
        return path if stem is None else stem + self.suffix


def _from_where(given: Any) -> Any:
    """What `from` says; a label without it is a table."""
    if isinstance(given, dict):
        return cast("dict[str, Any]", given).get("from", "table")
    return getattr(given, "source", None)


# Not by the field's name: `from` is its alias alone, of which pydantic makes no JSON Schema.
Label = Annotated[
    Annotated[FolderLabel, Tag("folder")]
    | Annotated[FilenameLabel, Tag("filename")]
    | Annotated[PathLabel, Tag("path")]
    | Annotated[TableLabel, Tag("table")]
    | Annotated[SidecarLabel, Tag("sidecar")],
    Discriminator(
        _from_where,
        custom_error_type="label_from",
        custom_error_message="`from` is one of folder, filename, path, table and sidecar",
    ),
]
