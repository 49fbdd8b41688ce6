"""What a kind of transform is: class functions fit it on train, an instance applies what was fitted.

Numbers are computed in float64, except for tensors of small integers or float32, which stay in float32; text is an
Arrow array, so that whole columns are encoded at once.  B rows, K categories, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import text_lists
from raypipe.data.table.problems import NeedsNumbers
from raypipe.errors import DataError
from raypipe.records import Column

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

FLOAT32_TENSORS = ("uint8", "int8", "uint16", "int16", "float32")

MAX_CATEGORIES = 50_000
"""Different values of a column that a transform may keep a list of: it goes with the dataset and the model, and one
process puts it together."""

MAX_CATEGORY_CHARS = 1000

LISTLESS = {
    "impute": "use strategy: constant, or median or mean for numbers",
    "cross": "set `num_buckets`, which keeps no list",
}
"""Kind -> how it does without a list of values; the others have `hashing` beside them."""

OF_PROSE = ("tokens", "pretrained_tokens", "ngrams")
"""Kinds that read a text as one, and not as a category."""

Values = np.ndarray | pa.Array
"""One column of B rows: numbers [B, *shape] in numpy (missing: NaN), text [B] in Arrow (missing: null).

A joint kind reads an Arrow struct array, one field a column."""

State = dict[str, Any]
"""`kind`, `columns` (name -> what was fitted), and the transform's own settings; joint kinds also `reads`."""

Fitted = dict[str, Any]
"""What was fitted for one column; JSON-able, without NaN or infinity."""


class TransformKind(ABC):
    """One kind of transform; `spec` is its variant in spec/transforms.py, `name` the column for messages.

    Args:
        state: the transform's own settings.
        fitted: what `finish` gave.
    """

    joint: ClassVar[bool] = False
    """Reads all its columns together and gives one more part after all features, instead of changing each."""

    fills: ClassVar[bool] = False
    """Puts `fitted["fill"]` where a value is missing, and leaves every other value as it is."""

    distinct: ClassVar[bool] = False
    """`partial` gives the distinct values as a set, by which alone `apply` refuses rows."""

    by_value: ClassVar[bool] = False
    """What a number becomes depends on nothing but the number, so that what bytes become can be looked up."""

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        self.state, self.fitted, self.name = state, fitted, name

    takes_lists: ClassVar[bool] = False
    """Whether it takes columns of several texts a row, which come as an Arrow list array [B]."""

    @staticmethod
    def needs_rows(spec: Any) -> bool:
        """Whether fitting reads rows; otherwise `finish` gets no partial."""
        return False

    @staticmethod
    def refuses(spec: Any) -> bool:
        """Whether `apply` may refuse a value that is there."""
        return False

    @staticmethod
    def refuses_of_train(spec: Any) -> bool:
        """Whether `apply` may refuse a value that it was fitted on, so that train must be tried as well."""
        return False

    @staticmethod
    def enough_rows(spec: Any) -> int | None:
        """Train rows that are enough to fit it; None reads all."""
        return None

    @staticmethod
    @abstractmethod
    def check(spec: Any, column: Column) -> Column:
        """What the column is after the transform: dtype (`string` or a number) and shape (-1: known once it is fitted).

        Raises:
            DataError: the transform does not fit such a column; no row was read.
        """

    @staticmethod
    def partial(spec: Any, values: Values, name: str) -> Any:
        """What the rows of one shard contribute; small next to them. Missing values are skipped, or refused."""
        return None

    @staticmethod
    def combine(spec: Any, first: Any, second: Any, name: str) -> Any:
        """One partial for the rows of two, the shards of the first before those of the second; it does not grow
        without end, however many follow.

        Raises:
            DataError: the column holds more than a list of its values may.
        """
        raise NotImplementedError(f"{spec.kind} needs no rows")

    @staticmethod
    def finish(spec: Any, partial: Any, name: str) -> Fitted:
        """What the partial of all train rows fits; None is that of no rows.

        Raises:
            DataError: there is nothing to fit on.
        """
        return {}

    @abstractmethod
    def apply(self, values: Values) -> Values:
        """Every row for itself, whatever its neighbours; the input stays as it is.

        Raises:
            DataError: a value it does not take, named.
        """

    def constants(self) -> tuple[float, ...] | None:
        """What `compute` takes beside single float64 numbers to give what `apply` gives, so that several columns are
        computed at once; None where there is no such thing."""
        return None

    @staticmethod
    def compute(values: np.ndarray, *constants: Any) -> np.ndarray:
        """Sums, products, quotients and comparisons alone: they are the same to the bit however many are computed at
        once, which logarithms and sines are not. Refuses no value."""
        raise NotImplementedError

    def of_few(self, values: list[Any]) -> np.ndarray | None:
        """What `apply` gives for these raw values of a column that has no transform before, without Arrow; None where
        `apply` has to look at them, or always."""
        return None


class Numeric(TransformKind):
    """A kind that takes numbers of any shape, and leaves the shape as it is."""

    @staticmethod
    def check(spec: Any, column: Column) -> Column:
        need_numbers(spec, column)
        return column


def start(values: Any, column: Column) -> Values:
    """Raw values in the type that is computed with: the column's own, never that of the batch at hand.

    Args:
        values: numpy or Arrow; text as objects (str, missing: None or NaN) or as Arrow strings, encoded or not; lists
            of texts as text_lists.py keeps them.
    """
    if column.dtype != "string":
        return start_numbers(values, computed_as(column))
    text = _text(values, column)
    return text_lists.as_lists(text) if column.is_list else text


def computed_as(column: Column) -> type[np.floating]:
    """The type that a column of numbers is computed in."""
    return np.float32 if column.shape and column.dtype in FLOAT32_TENSORS else np.float64


def start_numbers(values: Any, dtype: type[np.floating]) -> np.ndarray:
    """Raw numbers as `dtype`; always a copy."""
    values = np.asarray(values)
    numbers = values.astype(dtype)
    if values.dtype.kind == "f":
        numbers += 0.0  # -0.0 becomes 0.0, as where files are read
    return numbers


def _text(values: Any, column: Column) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.DictionaryArray):
        return values.cast(pa.string())
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, pa.string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise DataError(f"column '{column.name}' holds a value that is no valid text: {error}") from None


def empty(column: Column) -> Values:
    """No rows of a column."""
    return start(np.empty((0, *column.shape), object if column.dtype == "string" else column.dtype), column)


def together(parts: Sequence[Values], names: Sequence[str]) -> pa.StructArray:
    """Columns as a joint kind reads them."""
    return pa.StructArray.from_arrays([p if isinstance(p, pa.Array) else pa.array(p) for p in parts], list(names))


def is_missing(values: Values) -> np.ndarray:
    """Null or NaN, bool [B, ...]; of a struct: in any of its fields."""
    if isinstance(values, np.ndarray):
        return np.isnan(values)
    if isinstance(values, pa.StructArray):
        return np.logical_or.reduce([is_missing(field) for field in values.flatten()])
    if pa.types.is_floating(values.type):
        return np.isnan(values.to_numpy(zero_copy_only=False))
    return np.asarray(values.is_null()) if values.null_count else np.zeros(len(values), bool)


def some(values: Values, wanted_B: np.ndarray) -> Values:
    """The rows where `wanted_B` (bool [B]) holds."""
    return values[wanted_B] if isinstance(values, np.ndarray) else values.filter(pa.array(wanted_B))


def repeated(values: Values, num: int) -> Values:
    """One row, `num` times."""
    return values.repeat(num, axis=0) if isinstance(values, np.ndarray) else pa.repeat(values[0], num)


def distinct(values: Values) -> Values:
    """Each value once, in no order; missing ones are left out."""
    if isinstance(values, np.ndarray):
        return np.unique(values[~np.isnan(values)])
    return pc.unique(values.drop_null())


def first(values: Values, where_B: np.ndarray) -> Any:
    """The first value where `where_B` (bool [B, ...]) holds, as Python writes it."""
    return some(values, where_B)[:1].tolist()[0]


def refuse_missing(values: Values, name: str) -> None:
    """Raise DataError when a value is missing."""
    if is_missing(values).any():
        raise DataError(f"column '{name}' has a missing value", f"add an `impute` transform before that of '{name}'")


def still_text(column: Column) -> DataError:
    """The error of a text column that no transform encodes."""
    if column.is_list:
        return DataError(
            f"column '{column.name}' holds lists of texts, and no transform makes numbers of it",
            f"add a bag_of_words transform for '{column.name}', or leave it out of data.features",
        )
    return NeedsNumbers(
        f"column '{column.name}' holds text, and no transform makes numbers of it",
        f"add a one_hot, ordinal, hashing, ngrams or tokens transform for '{column.name}', or leave it out of "
        "data.features",
        column.name,
    )


def refuse_too_many(spec: Any, values: Any, name: str) -> None:
    """Raise DataError where a column holds more different values, or longer texts, than a list of them may.

    Args:
        values: each once, in any collection; the length of texts is looked at where they are in Arrow.
    """
    if len(values) > MAX_CATEGORIES:
        what = f"more than {MAX_CATEGORIES:,} different values"
    elif isinstance(values, pa.Array) and _longest(values) > MAX_CATEGORY_CHARS:
        what = f"a text of more than {MAX_CATEGORY_CHARS:,} characters"
    else:
        return
    raise DataError(
        f"data.transforms: {spec.kind} keeps a list of the values of column '{name}', which holds {what}",
        LISTLESS.get(
            spec.kind, f"use a `hashing` transform for '{name}', which keeps no list, or leave the column out"
        ),
    )


def _longest(values: pa.Array) -> int:
    return pc.max(pc.utf8_length(values)).as_py() or 0 if pa.types.is_string(values.type) else 0


def nothing_to_fit(spec: Any, name: str) -> DataError:
    """The error of a column without a value in train."""
    return DataError(
        f"data.transforms: {spec.kind} finds no value of column '{name}' in the train split",
        "leave the column out, or impute it with strategy: constant",
    )


# --- what `check` asks of a column -----------------------------------------------------------------------------------


def need_numbers(spec: Any, column: Column) -> None:
    """Raise DataError unless the column holds numbers."""
    if column.dtype == "string":
        raise NeedsNumbers(
            f"data.transforms: {spec.kind} needs numbers, but column '{column.name}' holds text",
            f"use one_hot or ordinal for '{column.name}', or correct the values that are no numbers",
            column.name,
        )


def need_text(spec: Any, column: Column) -> None:
    """Raise DataError unless the column holds one text in each row."""
    if column.dtype != "string":
        raise DataError(
            f"data.transforms: {spec.kind} needs text, but column '{column.name}' holds {column.dtype}"
            f"{' in arrays' if column.shape else ''}",
            f"use standardize or bucketize for '{column.name}', or leave it as it is",
        )
    need_single(spec, column)
    need_filled(spec, column)


def need_single(spec: Any, column: Column) -> None:
    """Raise DataError unless the column holds one value a row."""
    if column.shape:
        shape = "" if -1 in column.shape else f" of shape {list(column.shape)}"
        raise DataError(
            f"data.transforms: {spec.kind} works on single values, but column '{column.name}' holds arrays{shape} "
            "at this place",
            "use scale, standardize or min_max for arrays, or put it before what makes arrays of the column",
        )


def need_one_text(spec: Any, column: Column) -> None:
    """Raise DataError where the column holds several texts a row."""
    if column.is_list:
        raise DataError(
            f"data.transforms: {spec.kind} works on single values, but column '{column.name}' holds lists of texts",
            f"use bag_of_words for '{column.name}'",
        )


def need_filled(spec: Any, column: Column) -> None:
    """Raise DataError where values may be missing that the transform refuses."""
    if column.nullable:
        raise DataError(
            f"data.transforms: {spec.kind} takes no missing value, but column '{column.name}' may have them at this "
            "place",
            f"put the `impute` transform of '{column.name}' before its {spec.kind}",
        )


def numbers(column: Column, shape: tuple[int, ...] = ()) -> Column:
    """The column as numbers of one shape, none missing."""
    return column.model_copy(update={"dtype": "float64", "shape": shape, "nullable": False, "is_list": False})
