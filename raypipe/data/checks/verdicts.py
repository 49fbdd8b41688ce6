"""Do the expectations hold? What all blocks found, put together on the driver, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from raypipe.data.checks.duplicates import Duplicates
from raypipe.data.checks.expectations import rules
from raypipe.data.checks.rule import BlockTallies, RowFacts
from raypipe.data.table.columns import ColumnKind
from raypipe.errors import DataError
from raypipe.records import DataProfile, ExpectationResult
from raypipe.spec.expectations import DriftExpectation, Expectation


def judge(
    expectations: Sequence[Expectation],
    blocks: Sequence[BlockTallies],
    kinds: Mapping[str, ColumnKind],
    duplicates: Mapping[int, Sequence[Duplicates]],
) -> tuple[ExpectationResult, ...]:
    """Whether each expectation on the rows of the files holds: one result a column, or one for columns taken together.

    Args:
        blocks: in the order of the files.
        kinds: column -> what the files hold.
        duplicates: position of each `unique` expectation -> what each part of the hash range found.
    """
    facts = RowFacts(blocks, kinds, duplicates)
    return tuple(result for rule in rules(expectations) for result in rule.judge_rows(facts))


def judge_count(expectations: Sequence[Expectation], num_rows: int) -> tuple[ExpectationResult, ...]:
    """Whether so many rows are enough, and not too many: all that are stored, whatever set the others aside."""
    return tuple(result for rule in rules(expectations) for result in rule.judge_count(num_rows))


def judge_drift(
    expectations: Sequence[Expectation],
    profile: DataProfile,
    baseline: Callable[[DriftExpectation], DataProfile | None],
) -> tuple[ExpectationResult, ...]:
    """Whether columns are distributed as before.

    Args:
        profile: of the rows that are stored.
        baseline: the profile an expectation compares with; None where there is none yet.
    """
    return tuple(result for rule in rules(expectations) for result in rule.judge_drift(profile, baseline))


def refuse_broken(results: Iterable[ExpectationResult]) -> None:
    """Raise DataError when an expectation with `on_fail: fail` does not hold; lists all that do not."""
    broken = [result for result in results if not result.passed and result.on_fail == "fail"]
    if broken:
        lines = "".join(f"\n  {line}" for line in map(message, broken))
        raise DataError(
            f"{len(broken)} of data.expectations {'does' if len(broken) == 1 else 'do'} not hold{lines}",
            "correct the data or the expectation; `on_fail: warn` goes on, `quarantine` sets the rows aside",
        )


def warnings(results: Iterable[ExpectationResult]) -> list[str]:
    """A line for each expectation with `on_fail: warn` that does not hold."""
    return [f"expectation: {message(result)}" for result in results if not result.passed and result.on_fail == "warn"]


def notes(results: Iterable[ExpectationResult]) -> list[str]:
    """A line for each expectation with `on_fail: quarantine` that rows break: for a message on too many bad rows."""
    return [message(result) for result in results if not result.passed and result.on_fail == "quarantine"]


def message(result: ExpectationResult) -> str:
    """The rule, which rows break it, and what else was found, in one line."""
    parts = [result.rule]
    if result.num_broken:
        parts.append(f"{result.num_broken} of {result.num_checked} rows break it")
        rows = ((row, "" if row.source == "source" else f"{row.source} ") for row in result.first)
        parts.append(", ".join(f"{where}row {row.row_number}: {row.found}" for row, where in rows))
    if result.detail:
        parts.append(result.detail)
    return "; ".join(parts)
