"""What rows and columns must hold beyond the schema: what the shuffle asks of all kinds of expectation together.

`violations` is given the rows of a block, and says which of them break what; verdicts.py judges what all blocks found.
B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute

from raypipe.data.checks.row_rules import InSet, Length, Matches, NotNull, Range, of_text
from raypipe.data.checks.rule import NUM_FIRST, SHOWN_TEXT, ColumnTally, Rule, Violation
from raypipe.data.checks.set_rules import Drift, DType, RowCount, Unique
from raypipe.data.table.columns import ColumnKind, Values, is_text
from raypipe.data.table.problems import Problems
from raypipe.errors import DataError, did_you_mean
from raypipe.spec.expectations import Expectation

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

KINDS: dict[str, type[Rule]] = {
    "not_null": NotNull,
    "unique": Unique,
    "range": Range,
    "in_set": InSet,
    "matches": Matches,
    "length": Length,
    "dtype": DType,
    "row_count": RowCount,
    "drift": Drift,
}


def rules(expectations: Iterable[Expectation]) -> list[Rule]:
    """Each expectation with what it does."""
    return [KINDS[expectation.kind](index, expectation) for index, expectation in enumerate(expectations)]


def columns_of(expectations: Iterable[Expectation]) -> tuple[str, ...]:
    """Every column an expectation names; they must be read though they may be no features."""
    return tuple(dict.fromkeys(column for expectation in expectations for column in expectation.reads))


def keys_of(expectations: Iterable[Expectation]) -> dict[int, tuple[str, ...]]:
    """Position of each expectation for which rows that agree have to meet -> the columns they agree in."""
    return {rule.index: rule.spec.reads for rule in rules(expectations) if rule.key}


def refuse_unknown(expectations: Sequence[Expectation], there: Sequence[str]) -> None:
    """Raise DataError when expectations name columns that are not there; tells all."""
    problems = Problems()
    for index, expectation in enumerate(expectations):
        for name in expectation.reads:
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
        for name in expectation.reads if expectation.kind == "drift" else ():
            if name not in described:
                raise DataError(
                    f"data.expectations[{index}] (drift): column '{name}' is no feature and not the target, so no "
                    f"profile is kept of it, only of {list(described)[:50]}",
                    "leave it out of the expectation, or make it a feature",
                )


def check_columns(
    expectations: Sequence[Expectation], kinds: Mapping[str, ColumnKind], required: Iterable[str]
) -> None:
    """See that every expectation fits its columns; reads no rows.

    Args:
        kinds: column -> what the files hold; all columns are there (refuse_unknown).
        required: columns whose arrays the schema checks (features, target, split key).
    Raises:
        DataError: a column is of a type the expectation cannot look at, or a pattern is not RE2; tells all.
    """
    required = set(required)
    problems = Problems()
    for rule in rules(expectations):
        for name in rule.spec.reads:
            if kinds[name].dtype != "null":
                with problems.collected():
                    rule.check_column(name, kinds[name], name in required)
        with problems.collected():
            rule.check()
    problems.refuse()


def violations(
    values: Mapping[str, Values],
    dtypes: Mapping[str, str],
    expectations: Sequence[Expectation],
    good: np.ndarray | None = None,
) -> list[Violation]:
    """Which rows of a block break which expectation on single rows.

    Args:
        values: column -> values [B, *shape] as examine.exact_values gives them.
        dtypes: column -> the type the files hold.
        good: bool [B], rows to look at; the others are bad already.
    """
    return [violation for rule in rules(expectations) for violation in rule.violations(values, dtypes, good)]


def bad_reasons(broken: Iterable[Violation], expectations: Sequence[Expectation]) -> list[tuple[np.ndarray, str]]:
    """The rows that `on_fail: quarantine` makes bad rows, and why; as in examine.Reasons."""
    return [(v.rows, v.reason) for v in broken if expectations[v.index].on_fail == "quarantine"]


def tallies(broken: Iterable[Violation], values: Mapping[str, Values]) -> tuple[ColumnTally, ...]:
    """What the driver needs of the violations of a block."""
    counted: list[ColumnTally] = []
    for violation in broken:
        positions = np.flatnonzero(violation.rows)
        first = tuple((int(p), _shown(values[violation.column], int(p))) for p in positions[:NUM_FIRST])
        counted.append(ColumnTally(violation.index, violation.column, violation.num_checked, len(positions), first))
    return tuple(counted)


def _shown(values: Any, position: int) -> str:
    """A value for people, shortened; a missing one is `nothing`."""
    if isinstance(values, np.ndarray):
        value = values[position]
        if value.ndim:
            return f"an array with values from {value.min()} to {value.max()}"
        return "nothing" if value != value else str(value.item())
    if not is_text(values.type):
        number = values[position].as_py()
        return "nothing" if number is None else str(number)
    begun = of_text(values.slice(position, 1), lambda texts: pc.utf8_slice_codeunits(texts, 0, SHOWN_TEXT + 1))
    text = begun[0].as_py()
    if text is None:
        return "nothing"
    return repr(text) if len(text) <= SHOWN_TEXT else repr(text[:SHOWN_TEXT]) + "..."
