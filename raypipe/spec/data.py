"""Where rows come from, what they must hold, how they are split and transformed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec

Task = Literal["classification", "regression"]


class SourceSpec(Spec):
    """Fields every source has."""

    columns: list[str] | None = Field(default=None, min_length=1)
    """Columns to read; unset reads all."""


class FileSourceSpec(SourceSpec):
    path: str | list[str]
    """A file, folder or glob, or several; local, relative to `data.root`, or `s3://bucket/key`."""


class CsvSource(FileSourceSpec):
    """Delimited text with a header line; `.gz` is read too."""

    format: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    null_values: list[str] = ["", "NA", "NaN", "nan", "null", "?"]
    """Texts that mean 'no value'."""


class ParquetSource(FileSourceSpec):
    """Parquet files of one schema."""

    format: Literal["parquet"]


class JsonlSource(FileSourceSpec):
    """One JSON object a line; `.gz` is read too."""

    format: Literal["jsonl"]


class IdxSource(SourceSpec):
    """MNIST's own format: one file of images, one of labels, both optionally gzipped."""

    format: Literal["idx"]
    images: str
    """The file of images (IDX, unsigned bytes, 3 dimensions); becomes column `image` [28, 28] for MNIST."""
    labels: str
    """The file of labels (IDX, unsigned bytes, 1 dimension); becomes column `label`."""


class SklearnSource(SourceSpec):
    """A small real data set that scikit-learn carries; needs no download."""

    format: Literal["sklearn"]
    dataset: Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]
    """`digits` gives `image` [8, 8] and `label`; the others give one column a feature and `target`."""


Source = Annotated[CsvSource | ParquetSource | JsonlSource | IdxSource | SklearnSource, Field(discriminator="format")]


class SplitSpec(Spec):
    """How rows are divided: by a hash of the row, so that the same row lands in the same split forever."""

    val_frac: float = Field(default=0.1, ge=0, lt=1)
    test_frac: float = Field(default=0.2, ge=0, lt=1)
    key: list[str] | None = Field(default=None, min_length=1)
    """Columns that identify a row (rows with equal keys stay together); unset uses the whole row."""
    salt: str = ""
    """Change it to get another division of the same rows."""

    @model_validator(mode="after")
    def train_keeps_rows(self) -> Self:
        if self.val_frac + self.test_frac >= 1:
            raise ValueError(
                f"val_frac={self.val_frac} + test_frac={self.test_frac} leaves no rows for train; keep the sum under 1"
            )
        return self


class TransformSpec(Spec):
    columns: list[str] = Field(min_length=1)
    """Feature columns it changes, each by itself."""


class ScaleTransform(TransformSpec):
    """x -> x * factor + offset; fitted on nothing. Pixels to [0, 1]: factor 0.00392156862745098 (1/255)."""

    kind: Literal["scale"]
    factor: float = 1.0
    offset: float = 0.0


class StandardizeTransform(TransformSpec):
    """x -> (x - mean) / std of the train split (population std; a constant column is only centred)."""

    kind: Literal["standardize"]


class ImputeTransform(TransformSpec):
    """Fill missing values with the train split's mean, its most frequent value, or a constant."""

    kind: Literal["impute"]
    strategy: Literal["mean", "most_frequent", "constant"] = "mean"
    value: float | str | None = None
    """The constant, for strategy `constant`."""

    @model_validator(mode="after")
    def constant_has_value(self) -> Self:
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError("`value` goes with strategy: constant, and only with it")
        return self


class OneHotTransform(TransformSpec):
    """One column a category of the train split, in sorted order."""

    kind: Literal["one_hot"]
    unknown: Literal["error", "ignore"] = "error"
    """A category not seen in train: refuse the row, or give it all zeros."""


class OrdinalTransform(TransformSpec):
    """The category's index in the train split's sorted categories."""

    kind: Literal["ordinal"]
    unknown: Literal["error", "ignore"] = "error"
    """A category not seen in train: refuse the row, or give it -1."""


Transform = Annotated[
    ScaleTransform | StandardizeTransform | ImputeTransform | OneHotTransform | OrdinalTransform,
    Field(discriminator="kind"),
]


class BadRowsSpec(Spec):
    """What happens to rows that break the schema (null or NaN without `impute`, infinite, wrong shape, no target)."""

    max_frac: float = Field(default=0.0, ge=0, le=1)
    """Bad rows up to this share of all rows are written aside with the reason; more stop the run. 0 allows none."""


class DataSpec(Spec):
    """One dataset: files in, an immutable dataset version out."""

    root: str | None = None
    """Folder, `s3://` or `https://` prefix that relative paths start from; unset: the pipeline file's folder."""

    source: Source
    test_source: Source | None = None
    """A ready-made test split; then `split.test_frac` must be 0."""

    target: str
    """The column to predict."""
    task: Task = "classification"
    features: list[str] | None = Field(default=None, min_length=1)
    """Columns the model sees, in this order; unset: all but the target and the split key."""

    split: SplitSpec = SplitSpec()
    transforms: list[Transform] = []
    """Applied in this order; fitted on the train split only."""
    bad_rows: BadRowsSpec = BadRowsSpec()
    rows_per_shard: int = Field(default=100_000, ge=1)
    """Rows a stored shard holds at most."""
    read_parallelism: int | None = Field(default=None, ge=1)
    """Blocks Ray Data reads into; unset lets Ray choose. Never changes the result."""

    @model_validator(mode="before")
    @classmethod
    def ready_made_test_split(cls, values: Any) -> Any:
        """With `test_source`, `split.test_frac` defaults to 0 instead of 0.2."""
        if not isinstance(values, dict):
            return values
        fields = cast("dict[str, Any]", values)
        split: Any = fields.get("split") or {}
        if fields.get("test_source") is None or not isinstance(split, dict) or "test_frac" in split:
            return fields
        return {**fields, "split": {**cast("dict[str, Any]", split), "test_frac": 0.0}}

    @model_validator(mode="after")
    def test_split_once(self) -> Self:
        if self.test_source is not None and self.split.test_frac > 0:
            raise ValueError(
                f"test_source is the test split, so split.test_frac={self.split.test_frac} must be 0 or left out"
            )
        if self.features is not None and self.target in self.features:
            raise ValueError(f"the target '{self.target}' must not be one of the features")
        if self.features is not None:
            stray = sorted({c for t in self.transforms for c in t.columns} - set(self.features))
            if stray:
                raise ValueError(f"transforms name {stray}, which are not among the features {self.features}")
        return self
