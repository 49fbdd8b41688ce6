"""What rows and columns must hold beyond the schema: one variant a kind of expectation."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec, check_name
from raypipe.spec.moments import as_text
from raypipe.spec.sources import Dtype

DtypeOrFamily = Literal[Dtype, "integer", "float", "number"]
"""A type as it is read, or any of a family: integer, float, number (either)."""


N = TypeVar("N", bound=float)


class Between(Spec, Generic[N]):
    """Something lies between two bounds, of which one may be left open."""

    min: N | None = None
    """Least that is allowed; unset: no bound."""
    max: N | None = None
    """Most that is allowed; unset: no bound."""

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}")
        return self


class AnyExpectation(Spec):
    """What every expectation has."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns it names; they must be read though they may be no features."""
        return tuple(getattr(self, "columns", None) or ())


class ExpectationSpec(AnyExpectation):
    """An expectation on the data set as a whole."""

    on_fail: Literal["fail", "warn"] = "fail"
    """Stop the run, or say so and keep it in the profile."""


class RowExpectationSpec(AnyExpectation):
    """An expectation on each row."""

    columns: list[str] = Field(min_length=1)
    """Columns it holds for, each by itself; they need not be features."""

    on_fail: Literal["fail", "warn", "quarantine"] = "fail"
    """Stop the run, say so and keep it in the profile, or treat the row as a bad row (see `bad_rows`)."""


class NotNullExpectation(RowExpectationSpec):
    """Every row has a value. The other expectations on rows pass over a missing value."""

    kind: Literal["not_null"]


class UniqueExpectation(RowExpectationSpec):
    """No two rows agree in all these columns together; a row that misses one of the values agrees with none.

    Of rows that agree one is right, the one with the smallest hash of all columns that are read, and the others break
    the expectation, so that it does not depend on the order of the files which one stays.
    """

    kind: Literal["unique"]


class RangeExpectation(Between[int | float], RowExpectationSpec):
    """Numbers lie between two bounds; of an array, every value does."""

    kind: Literal["range"]
    inclusive: bool = True
    """Whether the bounds themselves are allowed."""


class InSetExpectation(RowExpectationSpec):
    """Each value is one of a list."""

    kind: Literal["in_set"]
    values: Annotated[list[str | int | float | bool], BeforeValidator(as_text)] = Field(min_length=1)
    """The only values that may appear; compared as those of `where` are."""


class MatchesExpectation(RowExpectationSpec):
    """Each text matches a regular expression as a whole, from its first to its last character.

    Patterns have the RE2 syntax (https://github.com/google/re2/wiki/Syntax), whose search time grows with the text
    alone; look-ahead, look-behind and references to groups are not part of it.
    """

    kind: Literal["matches"]
    regex: str = Field(min_length=1, max_length=10_000)
    """Pattern that the whole text must match."""

    @model_validator(mode="after")
    def regex_is_one(self) -> Self:
        # Two escapes of RE2 that Python's parser does not know are put into its words.
        words = re.sub(r"\\[pP](\{\^?\w+\}|\w)", r"\\w", self.regex).replace(r"\z", r"\Z")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(words)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"regex {self.regex[:80]!r} is not a regular expression: {error}") from None
        return self


class LengthExpectation(Between[NonNegativeInt], RowExpectationSpec):
    """Texts have so many characters, arrays so many values (along their first axis)."""

    kind: Literal["length"]


class DTypeExpectation(ExpectationSpec):
    """The columns are read as this type."""

    kind: Literal["dtype"]
    columns: list[str] = Field(min_length=1)
    """Columns that must have the type."""
    dtype: DtypeOrFamily
    """The type they must have."""


class RowCountExpectation(Between[NonNegativeInt], ExpectationSpec):
    """The data set has so many rows, those left out that are bad or set aside."""

    kind: Literal["row_count"]


class DriftExpectation(ExpectationSpec):
    """Features and target are distributed as in an earlier data set; without an earlier version of its own it holds."""

    kind: Literal["drift"]
    columns: list[str] | None = Field(default=None, min_length=1)
    """Unset: all single values both profiles know."""

    baseline: str | None = None
    """`name` (its latest version) or `name@version`, which must exist; unset: the latest version of this data set."""

    metric: Literal["psi", "ks", "share_change"] = "psi"
    """Population stability index, Kolmogorov-Smirnov distance (numbers only), or the largest change of a bin's or a
    category's share of the rows."""

    threshold: float = Field(default=0.25, gt=0)
    """More than this is drift. Rules of thumb for psi: under 0.1 none, over 0.25 a lot."""

    @model_validator(mode="after")
    def baseline_is_a_name(self) -> Self:
        for part in (self.baseline or "any").split("@", 1):
            check_name(part)
        return self


Expectation = Annotated[
    NotNullExpectation
    | UniqueExpectation
    | RangeExpectation
    | InSetExpectation
    | MatchesExpectation
    | LengthExpectation
    | DTypeExpectation
    | RowCountExpectation
    | DriftExpectation,
    Field(discriminator="kind"),
]
