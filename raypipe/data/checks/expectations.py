"""What rows and columns must hold beyond the schema: looked at block by block.

`violations` is given the rows of a block, and says which of them break what; judging.py puts the blocks together.  So
the outcome does not depend on how the rows were cut into blocks.  B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.columns import NUMBERS, Kind
from raypipe.data.table.hashing import Values
from raypipe.data.table.problems import NeedsNumbers, Problems
from raypipe.errors import DataError, did_you_mean
from raypipe.spec.expectations import (
    DriftExpectation,
    DTypeExpectation,
    Expectation,
    InSetExpectation,
    LengthExpectation,
    MatchesExpectation,
    NotNullExpectation,
    RangeExpectation,
    RowExpectation,
)

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

NUM_FIRST = 5
"""Rows shown of those that break an expectation."""

SHOWN_TEXT = 60


@dataclass(frozen=True)
class Violation:
    """One expectation on one column of a block.

    Attributes:
        index: position in data.expectations.
        rows: bool [B], those that break it.
        num_checked: rows that had a value to look at.
        reason: for the rows that are kept aside.
    """

    index: int
    column: str
    rows: np.ndarray
    num_checked: int
    reason: str


@dataclass(frozen=True)
class Tally:
    """What is left of a Violation for the driver; `first`: position in the block and value, at most NUM_FIRST."""

    index: int
    column: str
    num_checked: int
    num_broken: int
    first: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class BlockTallies:
    """All tallies of one block; num_rows counts bad rows too, so that rows can be numbered as in the files."""

    num_rows: int
    tallies: tuple[Tally, ...]
    source: str = "source"


def columns_of(expectations: Iterable[Expectation]) -> tuple[str, ...]:
    """Every column an expectation names; they must be read though they may be no features."""
    named = [getattr(expectation, "columns", None) or [] for expectation in expectations]
    return tuple(dict.fromkeys(column for columns in named for column in columns))


def refuse_unknown(expectations: Sequence[Expectation], there: Sequence[str]) -> None:
    """Raise DataError when expectations name columns that are not there; tells all."""
    problems = Problems()
    for index, expectation in enumerate(expectations):
        for name in getattr(expectation, "columns", None) or []:
            if name not in there:
                problems.add(
                    DataError(
                        f"data.expectations[{index}] ({expectation.kind}): column '{name}' is not there"
                        f"{did_you_mean(name, there)}; the columns are {list(there)[:50]}",
                        "correct the name, or add it to data.source.columns",
                    )
                )
    problems.refuse()


def refuse_undescribed(expectations: Sequence[Expectation], described: Sequence[str]) -> None:
    """Raise DataError when drift is asked for of a column that no profile is kept of."""
    for index, expectation in enumerate(expectations):
        if isinstance(expectation, DriftExpectation):
            for name in expectation.columns or []:
                if name not in described:
                    raise DataError(
                        f"data.expectations[{index}] (drift): column '{name}' is no feature and not the target, so no "
                        f"profile is kept of it, only of {list(described)[:50]}",
                        "leave it out of the expectation, or make it a feature",
                    )


def check_columns(expectations: Sequence[Expectation], kinds: Mapping[str, Kind], required: Iterable[str]) -> None:
    """See that every expectation fits its columns; reads no rows.

    Args:
        kinds: column -> what the files hold; all columns are there (refuse_unknown).
        required: columns whose arrays the schema checks (features, target, split key).
    Raises:
        DataError: a column is of a type the expectation cannot look at, or a pattern is not RE2; tells all.
    """
    required = set(required)
    problems = Problems()
    for index, expectation in enumerate(expectations):
        for name in getattr(expectation, "columns", None) or []:
            with problems.collected():
                _check_kind(index, expectation, name, kinds[name], name in required)
        if isinstance(expectation, MatchesExpectation):
            with problems.collected():
                _check_regex(index, expectation)
    problems.refuse()


def violations(
    values: Mapping[str, Values], expectations: Sequence[Expectation], good: np.ndarray | None = None
) -> list[Violation]:
    """Which rows of a block break which expectation on single rows.

    Args:
        values: column -> values [B, *shape]; missing numbers are NaN, missing text is null.
        good: bool [B], rows to look at; the others are bad already.
    """
    found: list[Violation] = []
    for index, expectation in enumerate(expectations):
        if not isinstance(expectation, RowExpectation):
            continue
        for name in expectation.columns:
            there = _present(values[name])
            if isinstance(expectation, NotNullExpectation):
                looked_at, broken = np.ones(len(there), bool), ~there
            else:
                looked_at, broken = there, there & ~_keeps(values[name], expectation)
            if good is not None:
                looked_at, broken = looked_at & good, broken & good
            found.append(Violation(index, name, broken, int(looked_at.sum()), f"'{name}' {_broken(expectation)}"))
    return found


def bad_reasons(found: Iterable[Violation], expectations: Sequence[Expectation]) -> list[tuple[np.ndarray, str]]:
    """The rows that `on_fail: quarantine` makes bad rows, and why; as in validate.Reasons."""
    return [(v.rows, v.reason) for v in found if expectations[v.index].on_fail == "quarantine"]


def tallies(found: Iterable[Violation], values: Mapping[str, Values]) -> tuple[Tally, ...]:
    """What the driver needs of the violations of a block."""
    counted: list[Tally] = []
    for v in found:
        positions = np.flatnonzero(v.rows)
        first = tuple((int(p), _shown(values[v.column], int(p))) for p in positions[:NUM_FIRST])
        counted.append(Tally(v.index, v.column, v.num_checked, len(positions), first))
    return tuple(counted)


# --- one expectation -------------------------------------------------------------------------------------------------


def _present(values: Any) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        return np.asarray(values.is_valid())
    if values.dtype.kind != "f":
        return np.ones(len(values), bool)
    missing = np.isnan(_flat(values)).any(axis=1) if values.ndim > 1 else np.isnan(values)
    return np.logical_not(missing)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _keeps(values: Values, expectation: RowExpectation) -> np.ndarray:
    """Bool [B]; anything where the value is missing."""
    if isinstance(expectation, RangeExpectation):
        return _in_range(values, expectation)
    if isinstance(expectation, InSetExpectation):
        if isinstance(values, np.ndarray):
            return np.isin(values, np.array(expectation.values))
        return np.asarray(pc.is_in(values, pa.array(expectation.values, pa.string())))
    if isinstance(expectation, MatchesExpectation):
        pattern = _whole(expectation)
        return np.asarray(_of_text(values, lambda texts: pc.match_substring_regex(texts, pattern)).fill_null(True))
    assert isinstance(expectation, LengthExpectation)
    if isinstance(values, np.ndarray):
        length = np.full(len(values), values.shape[1])
    else:
        length = _of_text(values, pc.utf8_length).fill_null(0).to_numpy(zero_copy_only=False)
    return between(length, expectation.min, expectation.max)


def _of_text(values: Any, look: Callable[[pa.Array], Any]) -> Any:
    """What `look` sees in each text; in encoded ones, each distinct text is looked at once."""
    if not isinstance(values, pa.DictionaryArray):
        return look(values)
    return look(values.dictionary).take(values.indices)


def _in_range(values: Any, expectation: RangeExpectation) -> np.ndarray:
    fits = between(values, expectation.min, expectation.max, expectation.inclusive)
    return np.logical_and.reduce(_flat(fits), axis=1) if fits.ndim > 1 else fits


def between(values: np.ndarray, low: float | None, high: float | None, inclusive: bool = True) -> np.ndarray:
    """Whether each value is inside the bounds, of which one may be None."""
    fits = np.ones(values.shape, bool)
    if low is not None:
        fits &= values >= low if inclusive else values > low
    if high is not None:
        fits &= values <= high if inclusive else values < high
    return fits


def _whole(expectation: MatchesExpectation) -> str:
    """The pattern, tied to the first and the last character."""
    return rf"\A(?:{expectation.regex})\z"


def _shown(values: Any, position: int) -> str:
    """A value for people, shortened; a missing one is `nothing`."""
    if not isinstance(values, np.ndarray):
        begun = _of_text(values.slice(position, 1), lambda t: pc.utf8_slice_codeunits(t, 0, SHOWN_TEXT + 1))
        text = begun[0].as_py()
        if text is None:
            return "nothing"
        return repr(text) if len(text) <= SHOWN_TEXT else repr(text[:SHOWN_TEXT]) + "..."
    value = values[position]
    if value.ndim:
        return f"an array with values from {value.min()} to {value.max()}"
    return "nothing" if value != value else str(value.item())


def bounds(low: float | None, high: float | None, inclusive: bool = True) -> str:
    """Two bounds in words; one of them may be None."""
    if low is not None and high is not None:
        return f"between {low} and {high}" + ("" if inclusive else ", both excluded")
    if low is not None:
        return f"{'at least' if inclusive else 'more than'} {low}"
    return f"{'at most' if inclusive else 'less than'} {high}"


def rule(expectation: RowExpectation) -> str:
    """What each value must do, to follow its column's name."""
    if isinstance(expectation, NotNullExpectation):
        return "has a value"
    if isinstance(expectation, RangeExpectation):
        return f"is {bounds(expectation.min, expectation.max, expectation.inclusive)}"
    if isinstance(expectation, InSetExpectation):
        return f"is one of {listed(expectation.values)}"
    if isinstance(expectation, MatchesExpectation):
        return f"matches {listed(expectation.regex)}"
    return f"has a length {bounds(expectation.min, expectation.max)}"


def _broken(expectation: RowExpectation) -> str:
    """The reason of a bad row, to follow its column's name."""
    if isinstance(expectation, NotNullExpectation):
        return "is missing"
    verb, rest = rule(expectation).split(" ", 1)
    return {"is": "is not", "matches": "does not match", "has": "does not have"}[verb] + f" {rest}"


def listed(value: Any) -> str:
    """For a message, shortened."""
    text = repr(value)
    return text if len(text) <= 2 * SHOWN_TEXT else text[: 2 * SHOWN_TEXT] + "..."


# --- does it fit its column? -----------------------------------------------------------------------------------------


def _check_kind(index: int, expectation: Expectation, name: str, kind: Kind, is_required: bool) -> None:
    if kind.dtype == "null" or isinstance(expectation, DTypeExpectation):
        return
    is_text, is_number = kind.dtype == "string", kind.dtype in NUMBERS
    wanted: str | None = None
    if isinstance(expectation, RangeExpectation) and not is_number:
        wanted = "numbers"
    elif isinstance(expectation, MatchesExpectation) and not (is_text and not kind.form):
        wanted = "text"
    elif isinstance(expectation, LengthExpectation) and not (is_text or kind.form):
        wanted = "text or arrays"
    elif isinstance(expectation, (InSetExpectation, DriftExpectation)) and kind.form:
        wanted = "single values"
    elif isinstance(expectation, InSetExpectation):
        odd = [value for value in expectation.values if not _may_equal(value, kind)]
        wanted = f"values like {odd[0]!r}" if odd else None
    elif isinstance(expectation, DriftExpectation) and expectation.metric == "ks" and not is_number:
        wanted = "numbers for metric: ks"
    if wanted is not None:
        message = f"data.expectations[{index}]: {expectation.kind} needs {wanted}, but column '{name}' holds {kind}"
        hint = "correct the expectation, or the values that give the column this type"
        is_stray = is_text and not kind.form and wanted.startswith("numbers")
        raise NeedsNumbers(message, hint, name) if is_stray else DataError(message, hint)
    if kind.form and not is_required:
        raise DataError(
            f"data.expectations[{index}]: {expectation.kind} on '{name}', which holds {kind} and is no feature; only "
            "arrays that are features are looked at",
            f"add '{name}' to data.features, or leave the expectation out",
        )


def _may_equal(value: Any, kind: Kind) -> bool:
    if isinstance(value, str):
        return kind.dtype == "string"
    return kind.dtype == "bool" if isinstance(value, bool) else kind.dtype in NUMBERS


def _check_regex(index: int, expectation: MatchesExpectation) -> None:
    try:
        pc.match_substring_regex(pa.array([""]), _whole(expectation))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"data.expectations[{index}]: the regex {listed(expectation.regex)} is not one of RE2: {error}",
            "write it without look-ahead, look-behind and references to groups: https://github.com/google/re2/wiki/Syntax",
        ) from None
