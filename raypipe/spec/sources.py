"""Where rows come from: one variant a dataset format."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.addresses import check_address
from raypipe.spec.base import Spec
from raypipe.spec.moments import as_text


def _in_split(path: str, word: str) -> str:
    return path.replace("{split}", word) if "{split}" in path else f"{path.rstrip('/')}/{word}"


Scalar = bool | int | float | str

Dtype = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string"
]


class Condition(Spec):
    """What one column of a row must hold. A missing value (null, NaN) meets `is_null` and no other condition."""

    column: str
    """Column that is compared."""
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not_in", "is_null", "not_null"]
    """How it is compared with the value."""
    value: Annotated[Scalar | list[Scalar] | None, BeforeValidator(as_text)] = None
    """A number, text, or true/false; a list of them for `in` and `not_in`; left out for `is_null` and `not_null`. A
    number is compared as the column's type holds it, a date or time (ISO 8601, UTC unless it says otherwise) as one."""

    @model_validator(mode="after")
    def value_fits_op(self) -> Self:
        is_list = isinstance(self.value, list)
        if self.op in ("is_null", "not_null"):
            wanted, fits = "no value", self.value is None
        elif self.op in ("in", "not_in"):
            wanted, fits = "a list that is not empty", is_list and bool(self.value)
        else:
            wanted, fits = "one number or text", self.value is not None and not is_list
        if fits and self.op in ("<", "<=", ">", ">=") and isinstance(self.value, bool):
            wanted, fits = "a number or text", False
        if not fits:
            raise ValueError(f"op {self.op} takes {wanted}, found {self.value!r}")
        if isinstance(self.value, list) and len({_family(item) for item in self.value}) > 1:
            raise ValueError(f"value {self.value!r} mixes numbers, text or true/false; give one kind")
        return self


def _family(value: Scalar) -> str:
    return "true/false" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


NOT_HOW = frozenset({"format", "path", "arrays", "images", "labels", "dataset", "columns", "where"})
"""Fields of sources that say which files, columns and rows are read, and not how."""


class NamedFiles(NamedTuple):
    """The files that one field of a source names."""

    field: str
    paths: str | list[str]
    suffixes: tuple[str, ...]
    """What counts inside a folder."""
    is_one: bool = False
    """Whether it must be one file."""


class SourceSpec(Spec):
    """Fields every source has."""

    columns: list[str] | None = Field(default=None, min_length=1)
    """Columns to read, beside those that only choose rows; what else the file names must be among them. Unset: all."""
    where: list[Condition] = []
    """Rows to read: those that meet every condition. Row numbers in messages then count the rows that are left."""

    def named_files(self) -> list[NamedFiles]:
        """What each of its fields names, in order of the files it is read from."""
        return []

    def places(self) -> list[str]:
        """Every path and address it names, as written."""
        paths = [named.paths for named in self.named_files()]
        return [place for some in paths for place in ([some] if isinstance(some, str) else some)]

    def settings(self) -> dict[str, Any]:
        """How its files are read, JSON-able: all fields but those of NOT_HOW."""
        return self.model_dump(mode="json", exclude=set(NOT_HOW), exclude_none=True)

    def in_split(self, word: str) -> Self:
        """The source of one split: `word` in place of `{split}` in every path, or the folder `word` below it."""
        return self

    @model_validator(mode="after")
    def no_secret_in_an_address(self) -> Self:
        for place in self.places():
            check_address(place)
        return self


class FileSourceSpec(SourceSpec):
    suffixes: ClassVar[tuple[str, ...]]

    path: str | list[str]
    """A file, folder or glob, or several; local, relative to `data.root`, `s3://bucket/key`, or one file each at
    `https://host/file`, without password or query."""

    def named_files(self) -> list[NamedFiles]:
        return [NamedFiles("path", self.path, self.suffixes)]

    def in_split(self, word: str) -> Self:
        if isinstance(self.path, str):
            return self.model_copy(update={"path": _in_split(self.path, word)})
        return self.model_copy(update={"path": [_in_split(path, word) for path in self.path]})


class TextRowsSource(FileSourceSpec):
    """Fields of formats that keep rows as text."""

    max_row_bytes: int = Field(default=16 * 2**20, ge=1024, le=2**30)
    """A longer row is a bad row; so no row, and no value in one, fills the memory."""


class CsvSource(TextRowsSource):
    """Delimited text with a header line; `.gz` is read too. A blank line between rows is a row without values."""

    suffixes = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")

    format: Literal["csv"]
    dtypes: dict[str, Dtype] = {}
    """Types of columns; a value that is none makes a bad row. Other columns are what all their values can be."""
    newlines_in_values: bool = True
    """false: no quoted value holds a line break, so one large file can be read by several tasks."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """One character between cells: `,`, `;`, `|` or a tab."""
    decimal_point: Literal[".", ","] = "."
    """What stands before the fraction of a number; with `,` a file is usually divided by `;`."""
    null_values: list[str] = ["", "NA", "NaN", "nan", "null", "?"]
    """Texts that mean 'no value'."""


class ParquetSource(FileSourceSpec):
    """Parquet files of one schema."""

    suffixes = (".parquet", ".pq")

    format: Literal["parquet"]


class JsonlSource(TextRowsSource):
    """One JSON object a line; `.gz` is read too. A blank line between rows is a row without values."""

    suffixes = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")

    format: Literal["jsonl"]
    dtypes: dict[str, Dtype] = {}
    """Types of fields; a value that is none makes a bad row. In other fields the values of the rarer types do."""


class ArrowSource(FileSourceSpec):
    """Arrow IPC files or streams, and Feather version 2."""

    suffixes = (".arrow", ".arrows", ".feather", ".ipc")

    format: Literal["arrow"]


class LabelsSpec(Spec):
    """A table that names the label of each file."""

    path: str
    """A CSV, JSON lines or Parquet file."""
    file_column: str = "file"
    """Holds names as in the source's column `file`: relative to the folder that `path` names."""
    label_column: str = "label"
    """Column of the file that holds the label."""

    def named(self) -> NamedFiles:
        return NamedFiles("labels", self.path, (".csv", ".jsonl", ".parquet"), is_one=True)


class FolderSource(FileSourceSpec):
    """Fields of formats where each file is a row."""

    labels: LabelsSpec | None = None
    """Unset: the label of a file is the name of the folder it lies in."""

    def named_files(self) -> list[NamedFiles]:
        return [*super().named_files(), *([self.labels.named()] if self.labels else [])]

    def in_split(self, word: str) -> Self:
        source = super().in_split(word)
        if self.labels is None:
            return source
        labels = self.labels.model_copy(update={"path": self.labels.path.replace("{split}", word)})
        return source.model_copy(update={"labels": labels})


class ImagesSource(FolderSource):
    """PNG and JPEG files in folders: columns `image` uint8 [H, W, 3] (or [H, W]), `label`, `file`."""

    suffixes = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")

    format: Literal["images"]
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    """Height and width that every image is resized to; unset: all must have the size of the first one."""
    mode: Literal["RGB", "L"] = "RGB"
    """Colour, or grey with one value a pixel."""


class WavSource(FolderSource):
    """WAV files (PCM) in folders: columns `audio` float32 [samples] in [-1, 1], `label`, `file`.

    Several channels are averaged to one.
    """

    suffixes = (".wav", ".WAV")

    format: Literal["wav"]
    sample_rate: int = Field(ge=1, le=768_000)
    """Samples a second; a file of another rate is a bad row."""
    duration_s: float = Field(gt=0, le=3600)
    """Every row holds this much: longer files are cut at their end, shorter ones filled with zeros."""


class NumpySource(SourceSpec):
    """Arrays of equal length: an array is a column, its first axis are the rows. Object arrays are refused."""

    format: Literal["numpy"]
    path: str | list[str] | None = None
    """`.npz` files, a folder or glob of them; each array in them is a column."""
    arrays: dict[str, str] = {}
    """Instead of `path`: column -> its `.npy` file."""

    def named_files(self) -> list[NamedFiles]:
        archives = [NamedFiles("path", self.path, (".npz",))] if self.path is not None else []
        return [*archives, *(NamedFiles(f"arrays.{name}", p, (".npy",), True) for name, p in self.arrays.items())]

    def in_split(self, word: str) -> Self:
        if self.path is None:
            return self.model_copy(update={"arrays": {name: _in_split(p, word) for name, p in self.arrays.items()}})
        paths = [_in_split(path, word) for path in self.places()]
        return self.model_copy(update={"path": paths[0] if isinstance(self.path, str) else paths})

    @model_validator(mode="after")
    def one_of_path_and_arrays(self) -> Self:
        if (self.path is None) == (not self.arrays):
            raise ValueError("give either path (.npz files) or arrays (column: file.npy)")
        return self


class TextSource(TextRowsSource):
    """Plain UTF-8 text as column `text`; `.gz` is read too."""

    suffixes = (".txt", ".txt.gz", ".md", ".text")

    format: Literal["text"]
    rows: Literal["lines", "paragraphs", "windows"] = "lines"
    """Lines; paragraphs, which blank lines separate; or windows of `window_chars` characters; never blank ones."""
    window_chars: int = Field(default=1024, ge=1, le=2**20)
    """Characters of one window."""
    stride_chars: int | None = Field(default=None, ge=1, le=2**20)
    """Characters from the start of one window to the next; unset: `window_chars`, so that windows do not overlap."""


class IdxSource(SourceSpec):
    """MNIST's own format: one file of images, one of labels, both optionally gzipped."""

    format: Literal["idx"]
    images: str
    """The file of images (IDX, unsigned bytes, 3 dimensions); becomes column `image` [28, 28] for MNIST."""
    labels: str
    """The file of labels (IDX, unsigned bytes, 1 dimension); becomes column `label`."""

    def named_files(self) -> list[NamedFiles]:
        suffixes = ("-ubyte", "-ubyte.gz", ".idx", ".gz")
        return [NamedFiles(name, getattr(self, name), suffixes, is_one=True) for name in ("images", "labels")]

    def in_split(self, word: str) -> Self:
        return self.model_copy(update={"images": _in_split(self.images, word), "labels": _in_split(self.labels, word)})


class SklearnSource(SourceSpec):
    """A small real data set that scikit-learn carries; needs no download."""

    format: Literal["sklearn"]
    dataset: Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]
    """`digits` gives `image` [8, 8] and `label`; the others give one column a feature and `target`."""


Source = Annotated[
    CsvSource
    | ParquetSource
    | JsonlSource
    | ArrowSource
    | ImagesSource
    | WavSource
    | NumpySource
    | TextSource
    | IdxSource
    | SklearnSource,
    Field(discriminator="format"),
]

FORMAT_NAMES: tuple[str, ...] = tuple(
    get_args(variant.model_fields["format"].annotation)[0] for variant in get_args(get_args(Source)[0])
)
