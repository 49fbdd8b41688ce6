"""The expectations on the data set as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raypipe.data.checks.rule import NUM_FIRST, RowFacts, Rule, between, bounds, is_number, listed
from raypipe.data.profile.drift import ColumnDrift, drift
from raypipe.data.table.columns import ColumnKind
from raypipe.errors import DataError
from raypipe.records import BrokenRow, DataProfile, ExpectationResult
from raypipe.spec.expectations import DriftExpectation

_FAMILIES = {"integer": ("int", "uint"), "float": ("float",), "number": ("int", "uint", "float")}


class Unique(Rule):
    """No two rows agree in all its columns; rows that agree meet in one task (duplicates.py)."""

    key = True

    def judge_rows(self, facts: RowFacts) -> list[ExpectationResult]:
        parts = facts.duplicates[self.index]
        num_broken = sum(part.num_broken for part in parts)
        first: list[BrokenRow] = []
        for repeat in sorted(repeat for part in parts for repeat in part.first)[:NUM_FIRST]:
            source, row_number = facts.place(repeat.block, repeat.position)
            kept_source, kept = facts.place(repeat.kept_block, repeat.kept_position)
            text = f"repeats row {kept}" + (f" of {kept_source}" if kept_source != source else "")
            first.append(BrokenRow(row_number=row_number, source=source, found=text))
        return [
            self.result(
                " + ".join(f"'{name}'" for name in self.spec.columns) + " is unique",
                not num_broken,
                self.spec.columns,
                num_checked=sum(part.num_checked for part in parts),
                num_broken=num_broken,
                first=tuple(first),
            )
        ]


class DType(Rule):
    """Its columns are read as a type."""

    def check_column(self, name: str, kind: ColumnKind, is_required: bool) -> None:
        """Any column may be looked at: that it is of another type is what `judge_rows` tells."""

    def judge_rows(self, facts: RowFacts) -> list[ExpectationResult]:
        results: list[ExpectationResult] = []
        for name in self.spec.columns:
            kind = facts.kinds[name]
            prefixes = _FAMILIES.get(self.spec.dtype)
            fits = kind.dtype.startswith(prefixes) if prefixes else kind.dtype == self.spec.dtype
            fits = fits and not kind.form.startswith("list of list")
            detail = "" if fits else f"the files hold {kind}"
            results.append(self.result(f"'{name}' is of type {self.spec.dtype}", fits, [name], detail=detail))
        return results


class RowCount(Rule):
    """There are so many rows, whatever set the others aside."""

    def judge_count(self, num_rows: int) -> list[ExpectationResult]:
        fits = bool(between(np.array([num_rows]), "int64", self.spec.min, self.spec.max)[0])
        rule = f"the number of rows is {bounds(self.spec.min, self.spec.max)}"
        return [self.result(rule, fits, detail=f"there are {num_rows} rows")]


class Drift(Rule):
    """Columns are distributed as in an earlier data set."""

    def needs(self, kind: ColumnKind) -> str | None:
        if kind.form:
            return "single values"
        return "numbers for metric: ks" if self.spec.metric == "ks" and not is_number(kind) else None

    def judge_drift(
        self, now: DataProfile, baseline: Callable[[DriftExpectation], DataProfile | None]
    ) -> list[ExpectationResult]:
        before = baseline(self.spec)
        moved = drift(now, before) if before is not None else {}
        missing = [name for name in self.spec.reads if before is not None and name not in moved]
        if missing:
            raise DataError(
                f"data.expectations[{self.index}]: drift of '{missing[0]}' against {_named(before)} cannot be "
                "measured: one of the two has no value of it, or they hold text and numbers",
                "leave the column out of the expectation, or name another baseline",
            )
        sizes = {name: self._size(moved[name]) for name in moved if name in (self.spec.columns or moved)}
        known = {name: size for name, size in sizes.items() if size is not None}
        over = sorted((name for name in known if known[name] > self.spec.threshold), key=lambda name: -known[name])
        if before is None:
            detail = "there is no earlier version to compare with"
        elif over:
            listing = ", ".join(f"'{name}' {known[name]:.3g}{_categories(moved[name])}" for name in over)
            detail = f"against {_named(before)}: {listing}"
        else:
            detail = f"against {_named(before)}: at most {max(known.values(), default=0.0):.3g}"
        rule = f"drift ({self.spec.metric}) is at most {self.spec.threshold:g}"
        return [self.result(rule, not over, tuple(known), detail=detail)]

    def _size(self, column: ColumnDrift) -> float | None:
        return getattr(column, self.spec.metric)


def _named(profile: DataProfile | None) -> str:
    return f"{profile.name}@{profile.version}" if profile is not None else "nothing"


def _categories(column: ColumnDrift) -> str:
    if column.ks is not None:  # of numbers they are many and say little
        return ""
    parts = [
        f"{word} {listed(list(values))}" for word, values in (("new", column.new), ("lost", column.lost)) if values
    ]
    return f" ({', '.join(parts)})" if parts else ""
