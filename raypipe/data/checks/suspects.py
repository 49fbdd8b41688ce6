"""Columns that are no features: row numbers, which are left out, and those that only look like features.

These count the rows, hardly ever repeat, or tell the target by themselves: judged by the sample that the profile keeps
anyway, so nothing is read again.  n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks.warned import MIN_ROWS, warning
from raypipe.data.profile.meaning import counts_rows, names_rows
from raypipe.data.profile.parts import ColumnPart, ProfilePart
from raypipe.data.table.row_hash import Values
from raypipe.records import ColumnProfile, DataProfile, DataWarning
from raypipe.spec.data import DataSpec

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

MIN_CLASS_ROWS = 10
"""As few rows as the second most frequent class must have, that its place among the others is no accident."""

COMPARED_ROWS, MIN_COMPARED_ROWS, COMPARED_VALUES = 4000, 500, 2_000_000
"""Rows in which features are compared with the target, fewer where there are many features: a second in all."""

AS_CATEGORIES = ("one_hot", "ordinal", "hashing", "cross")
"""Transforms that make a category of each different text."""

NEARLY_UNIQUE = 0.95
"""Share of different texts from which on they are no categories."""

MAX_UNTOLD = {"classification": 0.01, "regression": 0.001}
"""How much of the target, as a share of what chance would leave open, a column that tells it may leave open."""


LEAVE_OUT = "leave it out of data.features"


def left_out(names: Sequence[str]) -> list[str]:
    """A line for each column of row numbers (DataSpec.index_columns), which is left out."""
    why = "holds the number or name of each row and no data: left out; to use it,"
    return [
        f"column '{name}' {why} name it in data.features"
        if name
        else f"a column without a name {why} give it one in the file"
        for name in names
    ]


def suspects(
    described: DataProfile, whole: ProfilePart, spec: DataSpec, features: tuple[str, ...]
) -> list[DataWarning]:
    """A warning for each feature that should probably be none.

    Args:
        whole: the profile of all rows, with its sample; described: the same, finished.
    """
    if whole.num_rows < MIN_ROWS:
        return []
    profiles = {column.name: column for column in described.columns}
    constant = [name for name in features if is_constant(profiles[name])]
    warned = [_constant(constant, profiles)] if constant else []
    categories = {name for t in spec.transforms if t.kind in AS_CATEGORIES for name in t.columns}
    rows = _compared(whole.copies, max(MIN_COMPARED_ROWS, min(COMPARED_ROWS, COMPARED_VALUES // len(features))))
    targets = {} if spec.task == "multi_label" else {t: _numbers(whole.columns[t].sample, rows) for t in spec.targets}
    for name in features:
        column, profile = whole.columns[name], profiles[name]
        if column.sample is None:
            continue
        if counts_rows(profile):
            finding = f"counts the rows ({profile.min:.0f} to {profile.max:.0f}, each once)"
            why = "a model learns the order of the file from it; "
            warned.append(warning("row_number", [name], finding, f"{why}{LEAVE_OUT}, unless it means something"))
        elif name in categories and (different := _nearly_unique(column)):
            finding = (
                f"holds text that hardly ever repeats ({different} different ones in {len(column.sample)} rows), but "
                "is encoded as a category: no new row will hold a known one"
            )
            warned.append(warning("identifier", [name], finding, f"{LEAVE_OUT}, or encode it with a tokens transform"))
        elif names_rows(profile):
            share = (profile.num_different or 0) / max(1, profile.counted)
            finding = f"looks like the name of a row: {share:.0%} of {profile.counted} values are different"
            remedy = f"{LEAVE_OUT}, and name it in data.split.key if it tells which rows are the same"
            warned.append(warning("identifier", [name], finding, remedy))
        values = _numbers(column.sample, rows)
        for target, known in targets.items():
            left = None if known is None or name == target else left_open(values, known, spec.task)
            if left is not None and left <= MAX_UNTOLD[spec.task]:
                finding = f"alone tells the target '{target}' (all but {left:.2%} of it, by {len(rows)} rows)"
                warned.append(warning("leak", [name], finding, f"if it is not known before the target is, {LEAVE_OUT}"))
    return warned


def is_constant(column: ColumnProfile) -> bool:
    """Whether all rows hold one value, all of an array alike."""
    return not column.nulls and column.count > 0 and (column.distinct == 1 or column.min == column.max is not None)


def _constant(names: Sequence[str], profiles: dict[str, ColumnProfile]) -> DataWarning:
    first = profiles[names[0]]
    value = first.top[0].value if first.top else first.min
    finding = f"holds {value!r} in all {first.count} rows" if len(names) == 1 else "hold one value each in all rows"
    return warning(
        "constant",
        names,
        finding,
        f"a model learns nothing from {'it' if len(names) == 1 else 'them'}; "
        f"leave {'it' if len(names) == 1 else 'them'} out of data.features",
    )


def left_open(feature: np.ndarray | None, target: np.ndarray, task: str) -> float | None:
    """How much the target still differs between rows that lie next to each other by the feature, as a share of what it
    would by chance; None where too little is known.

    Where most rows share their value with another one, only rows of the same value are compared; else all neighbours,
    and each class may begin once.

    Args:
        feature: float64 or int64 [n], NaN where there is none, in an order that has nothing to do with the values.
        target: float64 or int64 [n]; classes as their numbers.
    """
    if feature is None:
        return None
    there = ~(np.isnan(feature) | np.isnan(target))
    feature, target = feature[there], target[there]
    order = np.argsort(feature, kind="stable")
    feature, target = feature[order], target[order]
    same = feature[1:] == feature[:-1]
    are_same = bool(len(same)) and same.mean() >= 0.5
    pairs = same if are_same else np.ones(len(same), bool)
    if pairs.sum() < MIN_ROWS / 2 or len(target) < MIN_ROWS or feature[0] == feature[-1]:
        return None
    if task == "regression":
        chance = 2 * float(np.var(target))
        open_now = float(np.square(np.diff(target)[pairs]).mean())
    else:
        rows = np.sort(np.unique(target, return_counts=True)[1])[::-1]
        if len(rows) < 2 or rows[1] < MIN_CLASS_ROWS:
            return None
        chance = 1 - float(np.square(rows / rows.sum()).sum())
        changes = int((np.diff(target) != 0)[pairs].sum())
        open_now = max(0, changes - (0 if are_same else len(rows) - 1)) / int(pairs.sum())
    return open_now / chance if chance > 0 else None


def _nearly_unique(column: ColumnPart) -> int:
    """How many different texts the sample holds, if hardly two are the same; else 0."""
    if isinstance(column.sample, np.ndarray) or column.sample is None:
        return 0
    different = int(pc.count_distinct(column.sample).as_py())
    return different if different >= NEARLY_UNIQUE * max(MIN_ROWS, len(column.sample)) else 0


def _compared(copies: np.ndarray, most: int) -> np.ndarray:
    """Rows of the sample, at most so many, in random order: what chance would take out of all rows, copies too."""
    random = np.random.default_rng(0)
    num_rows = min(most, int(copies.sum()))
    taken = random.multivariate_hypergeometric(copies, num_rows, method="marginals")
    return random.permutation(np.repeat(np.arange(len(copies)), taken))


def _numbers(values: Values | None, rows: np.ndarray) -> np.ndarray | None:
    """Values of some rows as float64 [n], missing ones NaN; of text the place among all different ones."""
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[rows].astype(np.float64)
    text = values.take(pa.array(rows))
    place = pc.rank(text, tiebreaker="dense").to_numpy().astype(np.float64)
    return np.where(text.is_null().to_numpy(zero_copy_only=False), np.nan, place)
