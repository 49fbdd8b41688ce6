"""What is done to feature columns: one variant a transform; those of texts are in text_transforms.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.text_transforms import (
    BagOfWordsTransform,
    NgramsTransform,
    PretrainedTokensTransform,
    TokensTransform,
)
from raypipe.spec.transform_spec import TransformSpec, rises

Unknown = Literal["error", "ignore"]
Output = Literal["one_hot", "index"]
Frac = Annotated[float, Field(ge=0, le=1)]

DatePart = Literal["year", "quarter", "month", "day", "day_of_year", "weekday", "hour", "minute", "second"]

DateUnit = Literal[
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "days",
    "yyyymm",
    "yyyymmdd",
    "yyyymmddhh",
    "yyyymmddhhmm",
    "yyyymmddhhmmss",
]


class ScaleTransform(TransformSpec):
    """x -> x * factor + offset; fitted on nothing. Pixels to [0, 1]: factor 0.00392156862745098 (1/255)."""

    kind: Literal["scale"]
    factor: float = 1.0
    """What each value is multiplied by."""
    offset: float = 0.0
    """What is added after that."""


class StandardizeTransform(TransformSpec):
    """x -> (x - mean) / std of the train split (population std; a constant column is only centred)."""

    kind: Literal["standardize"]


class MinMaxTransform(TransformSpec):
    """The train split's smallest and largest value become the ends of `feature_range`; other splits may go beyond."""

    kind: Literal["min_max"]
    feature_range: tuple[float, float] = (0.0, 1.0)
    """What the least and the greatest value of train become."""

    @model_validator(mode="after")
    def range_rises(self) -> Self:
        return rises(self, "feature_range", self.feature_range)


class RobustTransform(TransformSpec):
    """x -> (x - median) / (upper quantile - lower quantile) of the train split: outliers hardly count."""

    kind: Literal["robust"]
    quantile_range: tuple[Frac, Frac] = (0.25, 0.75)
    """Fractions of the train rows."""

    @model_validator(mode="after")
    def range_rises(self) -> Self:
        return rises(self, "quantile_range", self.quantile_range)


class ClipTransform(TransformSpec):
    """x -> the nearest value between two ends, given as constants or as quantiles of the train split."""

    kind: Literal["clip"]
    min: float | None = None
    """The lower end; unset leaves small values as they are."""
    max: float | None = None
    """The upper end; unset leaves large values as they are."""
    quantile_range: tuple[Frac, Frac] | None = None
    """Both ends as fractions of the train rows, e.g. [0.01, 0.99]."""

    @model_validator(mode="after")
    def ends_are_given_once(self) -> Self:
        constants = [end for end in (self.min, self.max) if end is not None]
        if bool(constants) == (self.quantile_range is not None):
            raise ValueError("give either `min` and/or `max`, or `quantile_range`")
        return rises(self, "quantile_range" if self.quantile_range else "min, max", self.quantile_range or constants)


class LogTransform(TransformSpec):
    """x -> natural logarithm of (x + offset); a value of -offset or less is refused."""

    kind: Literal["log"]
    offset: float = 1.0
    """1 suits counts and amounts that may be 0."""


class ImputeTransform(TransformSpec):
    """Fill missing values with the train split's mean, median or most frequent value, or with a constant."""

    kind: Literal["impute"]
    strategy: Literal["mean", "median", "most_frequent", "constant"] = "mean"
    """What a missing value becomes."""
    value: float | str | None = None
    """The constant, for strategy `constant`."""

    @model_validator(mode="after")
    def constant_has_value(self) -> Self:
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError("`value` goes with strategy: constant, and only with it")
        return self


class BucketizeTransform(TransformSpec):
    """A number -> which interval it lies in; a boundary belongs to the interval above it."""

    kind: Literal["bucketize"]
    boundaries: list[float] | None = Field(default=None, min_length=1)
    """Rising; n of them make n + 1 buckets, the first and the last open-ended."""
    num_buckets: int | None = Field(default=None, ge=2)
    """Instead of `boundaries`: this many buckets with equally many train rows each (fewer where values repeat)."""
    output: Output = "one_hot"
    """One column a bucket, or one column with its index from 0."""

    @model_validator(mode="after")
    def buckets_are_given_once(self) -> Self:
        if (self.boundaries is None) == (self.num_buckets is None):
            raise ValueError("give either `boundaries` or `num_buckets`")
        return rises(self, "boundaries", self.boundaries or [])


class OneHotTransform(TransformSpec):
    """One column a category of the train split, in sorted order."""

    kind: Literal["one_hot"]
    unknown: Unknown = "error"
    """A category not seen in train: refuse the row, or give it all zeros. Unset: data.policy.unknown_categories."""


class OrdinalTransform(TransformSpec):
    """The category's index in the train split's sorted categories, or in an order of your own."""

    kind: Literal["ordinal"]
    categories: list[str] | list[float] | None = Field(default=None, min_length=1)
    """All categories in their order, e.g. [low, medium, high]; unset: those of the train split, sorted."""
    unknown: Unknown = "error"
    """Any other category: refuse the row, or give it -1. Unset: data.policy.unknown_categories."""

    @model_validator(mode="after")
    def categories_once(self) -> Self:
        if self.categories is not None and len(set(self.categories)) < len(self.categories):
            raise ValueError(f"categories {self.categories} names one twice")
        return self


class HashingTransform(TransformSpec):
    """A text or number -> one of `num_buckets` by a stable hash; fitted on nothing, so no value is unknown."""

    kind: Literal["hashing"]
    num_buckets: int = Field(ge=2, le=2**24)
    """How many numbers the values are spread over."""
    salt: str = ""
    """Another salt, another assignment."""
    output: Output = "one_hot"
    """One column a bucket, or one column with its index from 0."""


class DatePartsTransform(TransformSpec):
    """A date or time in UTC -> one column a part.

    Reads ISO 8601 text (`2024-03-01`, `2024-03-01T12:30:00+02:00`; without a zone it is UTC) or numbers.
    """

    kind: Literal["date_parts"]
    unit: DateUnit | None = None
    """What a number is: a count since 1970, or a date spelled as digits (20240517 is yyyymmdd; text of digits is read
    too). Unset: seconds since 1970, and a number that may well be something else is refused: one within a year of 1970,
    or of a year before 1900 or after 2100."""
    parts: list[DatePart] = Field(default=["year", "month", "day", "weekday"], min_length=1)
    """Weekday 0 is Monday; the others count as a calendar does."""
    cyclical: bool = False
    """Every part but the year as sine and cosine of its place in its cycle: December lies beside January."""


Channels = Literal["last", "first"]


class ResizeTransform(TransformSpec):
    """An image [H, W] or [H, W, C] -> another height and width: bilinear, smoothed where it shrinks as Pillow does."""

    kind: Literal["resize"]
    height: int = Field(ge=1, le=2**14)
    """Pixels."""
    width: int = Field(ge=1, le=2**14)
    """Pixels."""
    channels: Channels = "last"
    """`first` for images [C, H, W]."""


class NormalizeTransform(TransformSpec):
    """An image -> (x - mean) / std, by channel; [H, W] has one."""

    kind: Literal["normalize"]
    mean: list[float] | None = Field(default=None, min_length=1)
    """One a channel, in units of what comes in (0 to 255, or what a `scale` before it made of them); unset: those of
    all pixels of the train split."""
    std: list[Annotated[float, Field(gt=0)]] | None = Field(default=None, min_length=1)
    """Divided by, for each channel."""
    channels: Channels = "last"
    """`first` for images [C, H, W]."""

    @model_validator(mode="after")
    def mean_goes_with_std(self) -> Self:
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std are given together, one value a channel each, or both left out")
        return self


class ChannelsFirstTransform(TransformSpec):
    """An image [H, W, C] -> [C, H, W], which convolutions (model.kind: cnn) read."""

    kind: Literal["channels_first"]


class LogMelTransform(TransformSpec):
    """A sound [num_samples] -> the logarithm of its power in mel bands [num_mels, num_frames].

    Frame i begins at sample i * hop_samples, and all frames lie within the sound; each goes through a Hann window.
    """

    kind: Literal["log_mel"]
    sample_rate: int = Field(ge=1)
    """Samples a second."""
    window_samples: int = Field(default=400, ge=2, le=2**16)
    """Samples a frame, and length of its Fourier transform."""
    hop_samples: int = Field(default=160, ge=1)
    """Samples from one frame to the next."""
    num_mels: int = Field(default=64, ge=1, le=4096)
    """Bands of the mel scale, the height of the result."""
    low_hz: float = Field(default=0.0, ge=0)
    """Where the lowest band begins."""
    high_hz: float | None = Field(default=None, gt=0)
    """Where the highest band ends; unset: half the sample rate."""
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """`slaney`: linear below 1 kHz, bands of equal area. `htk`: logarithmic throughout, bands of equal height."""
    output: Literal["log", "db"] = "log"
    """Natural logarithm, or decibels (10 log10)."""
    floor: float = Field(default=1e-10, gt=0)
    """Less power counts as this."""

    @model_validator(mode="after")
    def bands_lie_below_half_the_rate(self) -> Self:
        high = self.sample_rate / 2 if self.high_hz is None else self.high_hz
        if high > self.sample_rate / 2:
            raise ValueError(f"high_hz: found {high:g}; must not exceed half the sample rate, {self.sample_rate / 2:g}")
        return rises(self, "low_hz, high_hz", [self.low_hz, high])


class LevelTransform(TransformSpec):
    """A sound [num_samples] -> the same at one level, each recording by itself: loud and soft ones become alike.

    Silence stays silence. Put it before `log_mel`.
    """

    kind: Literal["level"]
    measure: Literal["rms", "peak"] = "rms"
    """What is brought to `target_db`: the root of the mean square of a recording's samples, or its largest one."""
    target_db: float = Field(default=-20.0, ge=-120, le=60)
    """Decibels below 1.0: -20 is 0.1. With `rms`, peaks may go beyond 1; nothing is cut."""
    floor_db: float = Field(default=-80.0, ge=-200, le=60)
    """A recording below this is taken to be at it, so that what is next to silence is not made loud."""


class CrossTransform(TransformSpec):
    """Several columns together -> one more categorical feature, after all others: each combination is a category."""

    kind: Literal["cross"]
    columns: list[str] = Field(min_length=2)
    """Single values each, read as they are at this place in the list of transforms."""
    num_buckets: int | None = Field(default=None, ge=2, le=2**24)
    """Combinations are hashed into this many; unset: those of the train split are the categories, sorted."""
    salt: str = ""
    """Another salt, another assignment to buckets."""
    output: Output = "one_hot"
    """One column a category, or one column with its index from 0."""
    unknown: Unknown = "error"
    """A combination not seen in train: refuse the row, or give it all zeros (index: -1).
    Unset: data.policy.unknown_categories."""
    keep: bool = True
    """Whether the crossed columns stay features of their own; text then needs a transform that encodes it."""


Transform = Annotated[
    ScaleTransform
    | StandardizeTransform
    | MinMaxTransform
    | RobustTransform
    | ClipTransform
    | LogTransform
    | ImputeTransform
    | BucketizeTransform
    | OneHotTransform
    | OrdinalTransform
    | HashingTransform
    | DatePartsTransform
    | TokensTransform
    | BagOfWordsTransform
    | PretrainedTokensTransform
    | NgramsTransform
    | ResizeTransform
    | NormalizeTransform
    | ChannelsFirstTransform
    | LogMelTransform
    | LevelTransform
    | CrossTransform,
    Field(discriminator="kind"),
]

WITH_UNKNOWN = frozenset(
    get_args(variant.model_fields["kind"].annotation)[0]
    for variant in get_args(get_args(Transform)[0])
    if "unknown" in variant.model_fields
)
"""Kinds that may meet a category that train has not."""


def with_unknown(transform: Any, unknown: Any) -> Any:
    """A transform as a user wrote it, with `unknown` where its kind has the field and it was left out."""
    if isinstance(transform, TransformSpec):
        left_out = "unknown" in type(transform).model_fields and "unknown" not in transform.model_fields_set
        return transform.model_copy(update={"unknown": unknown}) if left_out else transform
    if not isinstance(transform, dict):
        return transform
    fields = cast("dict[str, Any]", transform)
    return {"unknown": unknown, **fields} if fields.get("kind") in WITH_UNKNOWN else fields
