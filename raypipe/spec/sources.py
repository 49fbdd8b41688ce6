"""Where rows come from: one variant a dataset format."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from raypipe.spec.addresses import check_address
from raypipe.spec.base import Spec
from raypipe.spec.csv_settings import CsvSettings, Dtype
from raypipe.spec.labels import JSON_LINES, PARQUET, FolderLabel, Label, NamedFiles
from raypipe.spec.moments import as_text


def _in_split(path: str, word: str) -> str:
    return path.replace("{split}", word) if "{split}" in path else f"{path.rstrip('/')}/{word}"


Scalar = bool | int | float | str


MIN_BYTES = 8
"""Tokens of the least window where a character may take several."""


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


NOT_HOW = frozenset({"format", "path", "arrays", "images", "labels", "label", "dataset", "columns", "where"})
"""Fields of sources that say which files, columns and rows are read, and not how."""


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

    @property
    def places_text(self) -> str:
        """Its first places, and how many more there are."""
        places = self.places()
        return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")

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
    """Of the names of its files, in small letters."""

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


class CsvSource(TextRowsSource, CsvSettings):
    """Delimited text; `.gz` is read too. A blank line between rows is a row without values. What is not set here is
    recognised where it is certain, told, and kept with the dataset version: batch inference reads alike."""

    suffixes = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")

    format: Literal["csv"]

    @model_validator(mode="after")
    def cells_have_names(self) -> Self:
        if self.header is False and self.columns is None:
            raise ValueError("header: false needs the names of all cells, in order, in columns")
        if self.header == []:
            raise ValueError("header: give the name of every cell, true or false")
        return self


class ParquetSource(FileSourceSpec):
    """Parquet files of one schema."""

    suffixes = PARQUET

    format: Literal["parquet"]


class JsonlSource(TextRowsSource):
    """One JSON object a line; `.gz` is read too. A blank line between rows is a row without values."""

    suffixes = JSON_LINES

    format: Literal["jsonl"]
    dtypes: dict[str, Dtype] = {}
    """Types of fields; a value that is none makes a bad row. In other fields the values of the rarer types do."""


class ArrowSource(FileSourceSpec):
    """Arrow IPC files or streams, and Feather version 2."""

    suffixes = (".arrow", ".arrows", ".feather", ".ipc")

    format: Literal["arrow"]


class FolderSource(FileSourceSpec):
    """Fields of formats where each file is a row."""

    decoded: ClassVar[str]
    """The column of what a file holds; it alone is a feature where nothing else is said."""

    label: Label = FolderLabel.model_validate({"from": "folder"})
    """Where the label comes from, and other columns with it: `{from: filename, regex: '^([0-9])_'}`, `{path:
    labels.csv}`, `{from: sidecar}`. Unset: the name of the folder that a file lies in."""

    def named_files(self) -> list[NamedFiles]:
        return [*super().named_files(), *self.label.named(self.path, self.suffixes)]

    def in_split(self, word: str) -> Self:
        source = super().in_split(word)
        return source.model_copy(update={"label": self.label.in_split(word)})


class ImagesSource(FolderSource):
    """Pictures in folders (PNG, JPEG, WebP, TIFF, the first frame of a GIF): columns `image`, `label`, `file`.

    They are turned as their EXIF orientation says. What else they hold and lose is told when they are read.
    """

    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff")
    decoded = "image"

    format: Literal["images"]
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    """Height and width that every image is resized to; unset: all must have the size of the first one."""
    mode: Literal["RGB", "L", "RGBA", "L16"] = "RGB"
    """What `image` is. RGB: colour, uint8 [H, W, 3]. L: grey, uint8 [H, W]. RGBA: with transparency, uint8 [H, W, 4].
    L16: grey of 16 bits, uint16 [H, W], where white is 65535; files of 16 bits a pixel are read in this mode alone."""
    transparency: Literal["drop", "white", "black"] = "drop"
    """For modes without it: colours of transparent pixels as the file has them, or white or black put under them."""

    @model_validator(mode="after")
    def transparency_is_kept_or_not(self) -> Self:
        if self.mode == "RGBA" and self.transparency != "drop":
            raise ValueError(f"mode: RGBA keeps transparency; leave `transparency: {self.transparency}` out")
        return self


class SoundSource(FolderSource):
    """Recordings in folders (WAV; FLAC, OGG and MP3 with `raypipe[sound]`): `audio` float32 [samples], `label`, `file`.

    Whole numbers become [-1, 1), floats stay as they are. What is changed of recordings is told when they are read.
    """

    suffixes = (".wav", ".flac", ".ogg", ".mp3")
    decoded = "audio"

    format: Literal["sound", "wav"]
    """`wav` is an older name of it."""
    sample_rate: int = Field(ge=1, le=768_000)
    """Samples a second of every row; recordings of another rate are resampled. What lies below 0.82 of the half of the
    lower rate stays as it is, what lies above the half of the new one is 90 dB down."""
    duration_s: float = Field(gt=0, le=3600)
    """Every row holds this much: longer recordings are cut, shorter ones filled with zeros."""
    align: Literal["start", "center", "end"] = "start"
    """Which part of a longer recording is kept, and where in its row a shorter one lies."""
    channel: Literal["mean"] | Annotated[int, Field(ge=1, le=1024)] | None = None
    """The mean of all channels, or the number of one, from 1. Unset: the mean, and more than two channels are a bad
    row."""

    @model_validator(mode="before")
    @classmethod
    def has_one_name(cls, given: Any) -> Any:
        fields = cast("dict[str, Any]", given if isinstance(given, dict) else {})
        return {**fields, "format": "sound"} if fields.get("format") == "wav" else cast("Any", given)

    @property
    def num_samples(self) -> int:
        """Of every row."""
        return max(1, round(self.sample_rate * self.duration_s))


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


class TextWindowsSource(FileSourceSpec):
    """UTF-8 text for a language model, in windows: columns `text` and `position`, from 0 at the start of each file to
    below 1. `.gz` is read too."""

    suffixes = (".txt", ".txt.gz", ".md", ".text")

    format: Literal["text_windows"]
    context_length: int = Field(default=128, ge=2, le=2**16)
    """The most tokens that the network looks back on. A window has one more, which is predicted. Of characters, each
    of a file is predicted in one window, but for its first, and fewer than this at its end. Windows of other tokens
    hold whole characters and words, as many as fit; all but the first token of each are predicted."""
    tokenizer: Literal["char", "byte", "bpe"] = "char"
    """`char`: Unicode code points, those that train holds. `byte`: the 256 bytes of UTF-8, so that none is unknown.
    `bpe`: these, and byte pairs merged within words, learned from train (Sennrich et al. 2016); none is unknown."""
    max_vocabulary: int | None = Field(default=None, ge=258, le=2**20)
    """With `bpe`: all ids are below this; 258 of them are there before the first merge."""
    merges: list[tuple[int, int]] | None = None
    """What `bpe` learned: pairs of ids that became one, in order; filled in when the data is prepared."""

    @model_validator(mode="after")
    def vocabulary_fits_the_tokenizer(self) -> Self:
        if self.tokenizer == "bpe" and self.max_vocabulary is None:
            raise ValueError("tokenizer: bpe needs max_vocabulary, e.g. 1024")
        if self.tokenizer != "bpe" and (self.max_vocabulary is not None or self.merges is not None):
            raise ValueError(
                f"max_vocabulary and merges are for tokenizer: bpe, found {self.tokenizer}; leave them out"
            )
        if self.tokenizer != "char" and self.context_length < MIN_BYTES:
            raise ValueError(
                f"context_length: found {self.context_length}; with tokenizer: {self.tokenizer} it must be {MIN_BYTES} "
                "or more, as a character may take 4 tokens"
            )
        return self

    @model_serializer(mode="wrap")
    def unset_is_left_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Versions that were made before there were tokenizers keep their names."""
        unset = {"tokenizer": "char", "max_vocabulary": None, "merges": None}
        return {name: value for name, value in write(self).items() if name not in unset or value != unset[name]}


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
    | SoundSource
    | NumpySource
    | TextSource
    | TextWindowsSource
    | IdxSource
    | SklearnSource,
    Field(discriminator="format"),
]

FORMAT_NAMES: tuple[str, ...] = tuple(
    get_args(variant.model_fields["format"].annotation)[0] for variant in get_args(get_args(Source)[0])
)
