"""Do the expectations hold? What all blocks found, put together on the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from raypipe.data.checks.duplicates import Duplicates
from raypipe.data.checks.expectations import NUM_FIRST, BlockTallies, between, bounds, listed, rule
from raypipe.data.profile.drift import ColumnDrift, drift
from raypipe.data.table.columns import Kind
from raypipe.errors import DataError
from raypipe.records import BrokenRow, DataProfile, ExpectationResult
from raypipe.spec.expectations import (
    DriftExpectation,
    DTypeExpectation,
    Expectation,
    MatchesExpectation,
    RowCountExpectation,
    RowExpectation,
    UniqueExpectation,
)

_FAMILIES = {"integer": ("int", "uint"), "float": ("float",), "number": ("int", "uint", "float")}


def judge(
    expectations: Sequence[Expectation],
    blocks: Sequence[BlockTallies],
    kinds: Mapping[str, Kind],
    duplicates: Mapping[int, Sequence[Duplicates]],
) -> tuple[ExpectationResult, ...]:
    """Whether each expectation on the rows of the files holds: one result a column, or one for columns taken together.

    Args:
        blocks: in the order of the files.
        kinds: column -> what the files hold.
        duplicates: position of each `unique` expectation -> what each part of the hash range found.
    """
    results: list[ExpectationResult] = []
    for index, expectation in enumerate(expectations):
        if isinstance(expectation, RowExpectation):
            results += [_row_result(index, expectation, name, blocks) for name in expectation.columns]
        elif isinstance(expectation, UniqueExpectation):
            results.append(_unique_result(index, expectation, duplicates[index], blocks))
        elif isinstance(expectation, DTypeExpectation):
            results += [_dtype_result(index, expectation, name, kinds[name]) for name in expectation.columns]
    return tuple(results)


def judge_count(expectations: Sequence[Expectation], num_rows: int) -> tuple[ExpectationResult, ...]:
    """Whether so many rows are enough, and not too many: all that are stored, whatever set the others aside."""
    counts = ((i, e) for i, e in enumerate(expectations) if isinstance(e, RowCountExpectation))
    return tuple(_count_result(index, expectation, num_rows) for index, expectation in counts)


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
    drifts = ((i, e) for i, e in enumerate(expectations) if isinstance(e, DriftExpectation))
    return tuple(_drift_result(index, expectation, profile, baseline(expectation)) for index, expectation in drifts)


def refuse_broken(results: Iterable[ExpectationResult]) -> None:
    """Raise DataError when an expectation with `on_fail: fail` does not hold; lists all that do not."""
    broken = [result for result in results if not result.passed and result.on_fail == "fail"]
    if broken:
        lines = "".join(f"\n  {line}" for line in map(told, broken))
        raise DataError(
            f"{len(broken)} of data.expectations {'does' if len(broken) == 1 else 'do'} not hold{lines}",
            "correct the data or the expectation; `on_fail: warn` goes on, `quarantine` sets the rows aside",
        )


def warnings(results: Iterable[ExpectationResult]) -> list[str]:
    """A line for each expectation with `on_fail: warn` that does not hold."""
    return [f"expectation: {told(result)}" for result in results if not result.passed and result.on_fail == "warn"]


def notes(results: Iterable[ExpectationResult]) -> list[str]:
    """A line for each expectation with `on_fail: quarantine` that rows break: for a message on too many bad rows."""
    return [told(result) for result in results if not result.passed and result.on_fail == "quarantine"]


def told(result: ExpectationResult) -> str:
    """What was found, in one line."""
    parts = [result.rule]
    if result.num_broken:
        parts.append(f"{result.num_broken} of {result.num_checked} rows break it")
        rows = ((row, "" if row.source == "source" else f"{row.source} ") for row in result.first)
        parts.append(", ".join(f"{where}row {row.row_number}: {row.found}" for row, where in rows))
    if result.detail:
        parts.append(result.detail)
    return "; ".join(parts)


# --- one expectation -------------------------------------------------------------------------------------------------


def _dtype_result(index: int, expectation: DTypeExpectation, name: str, kind: Kind) -> ExpectationResult:
    prefixes = _FAMILIES.get(expectation.dtype)
    fits = kind.dtype.startswith(prefixes) if prefixes else kind.dtype == expectation.dtype
    fits = fits and not kind.form.startswith("list of list")
    return ExpectationResult(
        index=index,
        kind=expectation.kind,
        columns=(name,),
        rule=f"'{name}' is of type {expectation.dtype}",
        on_fail=expectation.on_fail,
        passed=fits,
        detail="" if fits else f"the files hold {kind}",
    )


def _row_result(
    index: int, expectation: RowExpectation, name: str, blocks: Sequence[BlockTallies]
) -> ExpectationResult:
    num_checked = num_broken = 0
    first: list[BrokenRow] = []
    number = _row_numbers(blocks)
    for block, found in enumerate(blocks):
        for tally in found.tallies:
            if (tally.index, tally.column) != (index, name):
                continue
            num_checked += tally.num_checked
            num_broken += tally.num_broken
            for position, value in tally.first[: NUM_FIRST - len(first)]:
                first.append(BrokenRow(row_number=number(block, position), source=found.source, found=value))
    hint = ""
    if isinstance(expectation, MatchesExpectation) and num_broken and num_broken == num_checked:
        hint = "no row matches, so the pattern itself is probably wrong"
    return ExpectationResult(
        index=index,
        kind=expectation.kind,
        columns=(name,),
        rule=f"'{name}' {rule(expectation)}",
        on_fail=expectation.on_fail,
        passed=not num_broken,
        num_checked=num_checked,
        num_broken=num_broken,
        first=tuple(first),
        detail=hint,
    )


def _row_numbers(blocks: Sequence[BlockTallies]) -> Callable[[int, int], int]:
    """(block, position in it) -> row number from 1; each source counts by itself."""
    starts: list[int] = []
    seen: dict[str, int] = {}
    for block in blocks:
        starts.append(seen.get(block.source, 0))
        seen[block.source] = starts[-1] + block.num_rows
    return lambda block, position: starts[block] + position + 1


def _unique_result(
    index: int, expectation: UniqueExpectation, parts: Sequence[Duplicates], blocks: Sequence[BlockTallies]
) -> ExpectationResult:
    number = _row_numbers(blocks)
    num_broken = sum(part.num_broken for part in parts)
    first: list[BrokenRow] = []
    for repeat in sorted(repeat for part in parts for repeat in part.first)[:NUM_FIRST]:
        source, kept_source = blocks[repeat.block].source, blocks[repeat.kept_block].source
        kept = number(repeat.kept_block, repeat.kept_position)
        text = f"repeats row {kept}" + (f" of {kept_source}" if kept_source != source else "")
        first.append(BrokenRow(row_number=number(repeat.block, repeat.position), source=source, found=text))
    return ExpectationResult(
        index=index,
        kind=expectation.kind,
        columns=tuple(expectation.columns),
        rule=" + ".join(f"'{name}'" for name in expectation.columns) + " is unique",
        on_fail=expectation.on_fail,
        passed=not num_broken,
        num_checked=sum(part.num_checked for part in parts),
        num_broken=num_broken,
        first=tuple(first),
    )


def _count_result(index: int, expectation: RowCountExpectation, num_rows: int) -> ExpectationResult:
    fits = bool(between(np.array([num_rows]), expectation.min, expectation.max)[0])
    return ExpectationResult(
        index=index,
        kind=expectation.kind,
        columns=(),
        rule=f"the number of rows is {bounds(expectation.min, expectation.max)}",
        on_fail=expectation.on_fail,
        passed=fits,
        detail=f"there are {num_rows} rows",
    )


def _drift_result(
    index: int, expectation: DriftExpectation, now: DataProfile, before: DataProfile | None
) -> ExpectationResult:
    moved = drift(now, before) if before is not None else {}
    missing = [name for name in expectation.columns or () if before is not None and name not in moved]
    if missing:
        raise DataError(
            f"data.expectations[{index}]: drift of '{missing[0]}' against {_named(before)} cannot be measured: one of "
            "the two has no value of it, or they hold text and numbers",
            "leave the column out of the expectation, or name another baseline",
        )
    sizes = {name: _size(found, expectation) for name, found in moved.items() if name in (expectation.columns or moved)}
    known = {name: size for name, size in sizes.items() if size is not None}
    over = sorted((name for name in known if known[name] > expectation.threshold), key=lambda name: -known[name])
    if before is None:
        detail = "there is no earlier version to compare with"
    elif over:
        detail = ", ".join(f"'{name}' {known[name]:.3g}{_categories(moved[name])}" for name in over)
        detail = f"against {_named(before)}: {detail}"
    else:
        detail = f"against {_named(before)}: at most {max(known.values(), default=0.0):.3g}"
    return ExpectationResult(
        index=index,
        kind=expectation.kind,
        columns=tuple(known),
        rule=f"drift ({expectation.metric}) is at most {expectation.threshold:g}",
        on_fail=expectation.on_fail,
        passed=not over,
        detail=detail,
    )


def _size(found: ColumnDrift, expectation: DriftExpectation) -> float | None:
    return getattr(found, expectation.metric)


def _named(profile: DataProfile | None) -> str:
    return f"{profile.name}@{profile.version}" if profile is not None else "nothing"


def _categories(found: ColumnDrift) -> str:
    if found.ks is not None:  # of numbers they are many and say little
        return ""
    parts = [f"{word} {listed(list(values))}" for word, values in (("new", found.new), ("lost", found.lost)) if values]
    return f" ({', '.join(parts)})" if parts else ""
