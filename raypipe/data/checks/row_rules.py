"""The expectations that one row alone keeps or breaks.  A row without a value breaks none but not_null.

B rows of a block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks.rule import RowFacts, Rule, Violation, between, bounds, is_number, listed
from raypipe.data.table.columns import ColumnKind, Values, flat, present
from raypipe.data.table.comparing import family, is_one_of
from raypipe.data.table.fits import family_of
from raypipe.errors import DataError
from raypipe.records import ExpectationResult

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


class RowRule(Rule):
    """An expectation on each row, for each of its columns by itself."""

    verbs: ClassVar[tuple[str, str]] = ("is", "is not")
    """How its rule begins, and how that reads where it is broken."""

    @property
    @abstractmethod
    def asks(self) -> str:
        """What each value must be or have, to follow the verb."""

    @abstractmethod
    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        """Bool [B]; anything where the value is missing.

        Args:
            values: [B, *shape], as examine.exact_values gives them.
            dtype: the type the files hold.
        """

    def violations(
        self, values: Mapping[str, Values], dtypes: Mapping[str, str], good: np.ndarray | None
    ) -> Iterable[Violation]:
        for name in self.spec.columns:
            looked_at = present(values[name])
            broken = looked_at & ~self.keeps(values[name], dtypes[name])
            if good is not None:
                looked_at, broken = looked_at & good, broken & good
            yield Violation(self.index, name, broken, int(looked_at.sum()), self.reason(name))

    def reason(self, name: str) -> str:
        """Why a row is bad."""
        return f"'{name}' {self.verbs[1]} {self.asks}"

    def advice(self, num_checked: int, num_broken: int) -> str:
        """A guess at what is wrong with the expectation itself; empty where there is none."""
        return ""

    def judge_rows(self, facts: RowFacts) -> list[ExpectationResult]:
        results: list[ExpectationResult] = []
        for name in self.spec.columns:
            total = facts.total(self.index, name)
            results.append(
                self.result(
                    f"'{name}' {self.verbs[0]} {self.asks}",
                    not total.num_broken,
                    [name],
                    num_checked=total.num_checked,
                    num_broken=total.num_broken,
                    first=tuple(total.first),
                    detail=self.advice(total.num_checked, total.num_broken),
                )
            )
        return results


class NotNull(RowRule):
    verbs = ("has", "is")

    @property
    def asks(self) -> str:
        return "a value"

    def reason(self, name: str) -> str:
        return f"'{name}' is missing"

    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        return present(values)

    def violations(
        self, values: Mapping[str, Values], dtypes: Mapping[str, str], good: np.ndarray | None
    ) -> Iterable[Violation]:
        for name in self.spec.columns:
            there = present(values[name])
            looked_at = np.ones(len(there), bool) if good is None else good
            yield Violation(self.index, name, looked_at & ~there, int(looked_at.sum()), self.reason(name))


class Range(RowRule):
    @property
    def asks(self) -> str:
        return bounds(self.spec.min, self.spec.max, self.spec.inclusive)

    def needs(self, kind: ColumnKind) -> str | None:
        return None if is_number(kind) else "numbers"

    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        fits = between(values, dtype, self.spec.min, self.spec.max, self.spec.inclusive)
        return np.logical_and.reduce(flat(fits), axis=1) if fits.ndim > 1 else fits


class InSet(RowRule):
    @property
    def asks(self) -> str:
        return f"one of {listed(self.spec.values)}"

    def needs(self, kind: ColumnKind) -> str | None:
        if kind.form:
            return "single values"
        odd = [value for value in self.spec.values if family(value) != family_of(kind.dtype)]
        return f"values like {odd[0]!r}" if odd else None

    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        return is_one_of(values, dtype, self.spec.values)


class Matches(RowRule):
    verbs = ("matches", "does not match")

    @property
    def asks(self) -> str:
        return listed(self.spec.regex)

    @property
    def _pattern(self) -> str:
        """Tied to the first and the last character."""
        return rf"\A(?:{self.spec.regex})\z"

    def check(self) -> None:
        try:
            pc.match_substring_regex(pa.array([""]), self._pattern)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"data.expectations[{self.index}]: the regex {listed(self.spec.regex)} is not one of RE2: {error}",
                "write it without look-ahead, look-behind and references to groups: "
                "https://github.com/google/re2/wiki/Syntax",
            ) from None

    def needs(self, kind: ColumnKind) -> str | None:
        return None if kind == ColumnKind("string") else "text"

    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        return np.asarray(of_text(values, lambda texts: pc.match_substring_regex(texts, self._pattern)).fill_null(True))

    def advice(self, num_checked: int, num_broken: int) -> str:
        is_wrong = num_broken and num_broken == num_checked
        return "no row matches, so the pattern itself is probably wrong" if is_wrong else ""


class Length(RowRule):
    verbs = ("has a length", "does not have a length")

    @property
    def asks(self) -> str:
        return bounds(self.spec.min, self.spec.max)

    def needs(self, kind: ColumnKind) -> str | None:
        return None if kind == ColumnKind("string") or (kind.form and kind.dtype != "string") else "text or arrays"

    def keeps(self, values: Values, dtype: str) -> np.ndarray:
        if isinstance(values, np.ndarray):
            length = np.full(len(values), values.shape[1])
        else:
            length = of_text(values, pc.utf8_length).fill_null(0).to_numpy(zero_copy_only=False)
        return between(length, "int64", self.spec.min, self.spec.max)


def of_text(values: Any, look: Callable[[pa.Array], Any]) -> Any:
    """What `look` sees in each text; in encoded ones, each distinct text is looked at once."""
    if not isinstance(values, pa.DictionaryArray):
        return look(values)
    return look(values.dictionary).take(values.indices)
