"""What a kind of expectation is: it looks at its columns block by block, and judges what all blocks found.

So the outcome does not depend on how the rows were cut into blocks.  To add a kind: a variant in
spec/expectations.py, a `Rule` in row_rules.py or set_rules.py, and a line in expectations.KINDS.  B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from raypipe.data.table.columns import NUMBERS, ColumnKind, Values
from raypipe.data.table.comparing import is_ordered
from raypipe.data.table.problems import NeedsNumbers
from raypipe.errors import DataError
from raypipe.records import BrokenRow, DataProfile, ExpectationResult
from raypipe.spec.expectations import DriftExpectation

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
class ColumnTally:
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
    tallies: tuple[ColumnTally, ...]
    source: str = "source"


@dataclass
class ColumnTotal:
    """The tallies of one expectation on one column, over all blocks."""

    num_checked: int = 0
    num_broken: int = 0
    first: list[BrokenRow] = field(default_factory=list)


class RowFacts:
    """What the rows of all blocks told, each tally looked at once.

    Attributes:
        kinds: column -> what the files hold.
        duplicates: position of each `unique` expectation -> a duplicates.Duplicates for each part of the hash range.
    """

    def __init__(
        self,
        blocks: Sequence[BlockTallies],
        kinds: Mapping[str, ColumnKind],
        duplicates: Mapping[int, Sequence[Any]],
    ) -> None:
        self.kinds, self.duplicates = kinds, duplicates
        self._sources = [block.source for block in blocks]
        self._starts: list[int] = []
        self._totals: dict[tuple[int, str], ColumnTotal] = {}
        rows_before: dict[str, int] = {}
        for number, block in enumerate(blocks):
            self._starts.append(rows_before.get(block.source, 0))
            rows_before[block.source] = self._starts[-1] + block.num_rows
            for tally in block.tallies:
                self._add(tally, number)

    def _add(self, tally: ColumnTally, block: int) -> None:
        total = self._totals.setdefault((tally.index, tally.column), ColumnTotal())
        total.num_checked += tally.num_checked
        total.num_broken += tally.num_broken
        for position, value in tally.first[: NUM_FIRST - len(total.first)]:
            source, row_number = self.place(block, position)
            total.first.append(BrokenRow(row_number=row_number, source=source, found=value))

    def place(self, block: int, position: int) -> tuple[str, int]:
        """The source of a row, and its number from 1 there; each source counts by itself."""
        return self._sources[block], self._starts[block] + position + 1

    def total(self, index: int, column: str) -> ColumnTotal:
        """Of one expectation on one column."""
        return self._totals.get((index, column), ColumnTotal())


class Rule:
    """One expectation of the file, `spec`; each kind overrides what it looks at, and one of the three `judge_`."""

    key: ClassVar[bool] = False
    """Whether rows that agree in its columns have to meet."""

    def __init__(self, index: int, spec: Any) -> None:
        self.index, self.spec = index, spec

    def needs(self, kind: ColumnKind) -> str | None:
        """What a column must hold where it holds something else; None where it fits."""
        return None

    def check_column(self, name: str, kind: ColumnKind, is_required: bool) -> None:
        """See that the expectation fits a column that has values; reads no rows.

        Args:
            is_required: whether the schema checks its arrays (features, target, split key).
        Raises:
            DataError: it does not.
        """
        needed = self.needs(kind)
        if needed is not None:
            message = (
                f"data.expectations[{self.index}]: {self.spec.kind} needs {needed}, but column '{name}' holds {kind}"
            )
            hint = "correct the expectation, or the values that give the column this type"
            is_stray = kind == ColumnKind("string") and needed.startswith("numbers")
            raise NeedsNumbers(message, hint, name) if is_stray else DataError(message, hint)
        if kind.form and not is_required:
            raise DataError(
                f"data.expectations[{self.index}]: {self.spec.kind} on '{name}', which holds {kind} and is no feature; "
                "only arrays that are features are looked at",
                f"add '{name}' to data.features, or leave the expectation out",
            )

    def check(self) -> None:
        """See that the expectation can be looked at; raises DataError."""

    def violations(
        self, values: Mapping[str, Values], dtypes: Mapping[str, str], good: np.ndarray | None
    ) -> Iterable[Violation]:
        """Which rows of a block break it, column by column; see expectations.violations."""
        return ()

    def judge_rows(self, facts: RowFacts) -> list[ExpectationResult]:
        """Whether it holds by what the rows of the files are."""
        return []

    def judge_count(self, num_rows: int) -> list[ExpectationResult]:
        """Whether it holds by the number of rows that are stored."""
        return []

    def judge_drift(
        self, now: DataProfile, baseline: Callable[[DriftExpectation], DataProfile | None]
    ) -> list[ExpectationResult]:
        """Whether it holds by the profile of the rows that are stored, beside an earlier one."""
        return []

    def result(self, rule: str, passed: bool, columns: Sequence[str] = (), **fields: Any) -> ExpectationResult:
        """The verdict. Raises nothing: who stops the run is verdicts.refuse_broken."""
        return ExpectationResult(
            index=self.index,
            kind=self.spec.kind,
            columns=tuple(columns),
            rule=rule,
            on_fail=self.spec.on_fail,
            passed=passed,
            **fields,
        )


def is_number(kind: ColumnKind) -> bool:
    """Whether a column holds numbers, single or in arrays."""
    return kind.dtype in NUMBERS


def between(values: Values, dtype: str, low: float | None, high: float | None, inclusive: bool = True) -> np.ndarray:
    """Whether each value is inside the bounds, of which one may be None; of arrays [B, *shape]."""
    fits = np.ones(values.shape if isinstance(values, np.ndarray) else len(values), bool)
    if low is not None:
        fits &= is_ordered(values, dtype, ">=" if inclusive else ">", low)
    if high is not None:
        fits &= is_ordered(values, dtype, "<=" if inclusive else "<", high)
    return fits


def bounds(low: float | None, high: float | None, inclusive: bool = True) -> str:
    """Two bounds in words; one of them may be None."""
    if low is not None and high is not None:
        return f"between {low} and {high}" + ("" if inclusive else ", both excluded")
    if low is not None:
        return f"{'at least' if inclusive else 'more than'} {low}"
    return f"{'at most' if inclusive else 'less than'} {high}"


def listed(value: Any) -> str:
    """For a message, shortened."""
    text = repr(value)
    return text if len(text) <= 2 * SHOWN_TEXT else text[: 2 * SHOWN_TEXT] + "..."
