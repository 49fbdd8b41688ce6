"""Columns that are no features: row numbers, which are left out, and those that only look like features.

These count the rows, hardly ever repeat, or tell the target by themselves: judged by the sample that the profile keeps
anyway, so nothing is read again.  n rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks.schema import BlockTypes, Schema
from raypipe.data.profile.parts import ColumnPart, ProfilePart
from raypipe.data.table.row_hash import Values
from raypipe.spec.data import DataSpec

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

MIN_ROWS = 50
"""Fewer rows tell nothing."""

MIN_CLASS_ROWS = 10
"""As few rows as the second most frequent class must have, that its place among the others is no accident."""

COMPARED_ROWS, MIN_COMPARED_ROWS, COMPARED_VALUES = 4000, 500, 2_000_000
"""Rows in which features are compared with the target, fewer where there are many features: a second in all."""

AS_CATEGORIES = ("one_hot", "ordinal", "hashing", "cross")
"""Transforms that make a category of each different text."""

NEARLY_UNIQUE = 0.95
"""Share of different texts from which on they are no categories."""

COUNTING = 0.9
"""Share of the whole numbers between a column's smallest and largest that it must hold, each once."""

MAX_UNTOLD = {"classification": 0.01, "regression": 0.001}
"""How much of the target, as a share of what chance would leave open, a column that tells it may leave open."""


def left_out(names: Sequence[str]) -> list[str]:
    """A line for each column of row numbers (DataSpec.index_columns), which is left out."""
    why = "holds the number or name of each row and no data: left out; to use it,"
    return [
        f"column '{name}' {why} name it in data.features"
        if name
        else f"a column without a name {why} give it one in the file"
        for name in names
    ]


def lost_zeros(profiles: Sequence[BlockTypes], schema: Schema) -> list[str]:
    """A line for each feature, target, or column of the split whose leading zeros were lost as it was read."""
    with_zeros: dict[str, str] = {}
    for profile in reversed(profiles):
        with_zeros.update(profile.leading_zeros)
    lines: list[str] = []
    for name, column in schema.columns.items():
        if name in with_zeros and column.dtype != "string":
            what = "the target" if name == schema.target else "column"
            lines.append(
                f"{what} '{name}' is written with leading zeros ('{with_zeros[name]}') but read as numbers "
                f"({int(with_zeros[name])}), in requests and answers too; to keep what is written, declare it as text: "
                f"data.source.dtypes: {{{json.dumps(name)}: string}}"
            )
    return lines


def suspects(whole: ProfilePart, spec: DataSpec, features: tuple[str, ...]) -> list[str]:
    """A line for each feature that should probably be none.

    Args:
        whole: the profile of all rows, with its sample.
    """
    lines: list[str] = []
    categories = {name for t in spec.transforms if t.kind in AS_CATEGORIES for name in t.columns}
    rows = _compared(whole.copies, max(MIN_COMPARED_ROWS, min(COMPARED_ROWS, COMPARED_VALUES // len(features))))
    target = _numbers(whole.columns[spec.target].sample, rows)
    for name in features:
        column = whole.columns[name]
        if column.sample is None or whole.num_rows < MIN_ROWS:
            continue
        if counts_rows(column):
            lines.append(
                f"column '{name}' counts the rows ({column.min:.0f} to {column.max:.0f}, each once): a model learns "
                "the order of the file from it; leave it out of data.features, unless it means something"
            )
        if name in categories and (different := _nearly_unique(column)):
            lines.append(
                f"column '{name}' holds text that hardly ever repeats ({different} different ones in "
                f"{len(column.sample)} rows), but is encoded as a category: no new row will hold a known one; leave it "
                "out of data.features, or encode it with a tokens transform"
            )
        if target is not None and tells(_numbers(column.sample, rows), target, spec.task):
            lines.append(
                f"column '{name}' alone tells the target '{spec.target}': if it is not known before the target is, "
                "leave it out of data.features"
            )
    return lines


def counts_rows(column: ColumnPart) -> bool:
    """Whether the column holds whole numbers, each once, with hardly a gap between them."""
    sample = column.sample
    if not isinstance(sample, np.ndarray) or sample.dtype.kind not in "iuf" or column.min is None or column.infinite:
        return False
    there = sample[~np.isnan(sample)] if sample.dtype.kind == "f" else sample
    num_values = column.count - column.nulls
    is_dense = num_values <= column.max - column.min + 1 <= num_values / COUNTING
    return bool(is_dense and (there == np.floor(there)).all() and len(np.unique(there)) == len(there))


def tells(feature: np.ndarray | None, target: np.ndarray, task: str) -> bool:
    """Whether rows that lie next to each other by the feature have the same target, or nearly so.

    Where most rows share their value with another one, only rows of the same value are compared; else all neighbours,
    and each class may begin once.

    Args:
        feature: float64 or int64 [n], NaN where there is none, in an order that has nothing to do with the values.
        target: float64 or int64 [n]; classes as their numbers.
    """
    if feature is None:
        return False
    there = ~(np.isnan(feature) | np.isnan(target))
    feature, target = feature[there], target[there]
    order = np.argsort(feature, kind="stable")
    feature, target = feature[order], target[order]
    same = feature[1:] == feature[:-1]
    are_same = bool(len(same)) and same.mean() >= 0.5
    pairs = same if are_same else np.ones(len(same), bool)
    if pairs.sum() < MIN_ROWS / 2 or len(target) < MIN_ROWS or feature[0] == feature[-1]:
        return False
    if task == "regression":
        chance = 2 * float(np.var(target))
        open_now = float(np.square(np.diff(target)[pairs]).mean())
    else:
        rows = np.sort(np.unique(target, return_counts=True)[1])[::-1]
        if len(rows) < 2 or rows[1] < MIN_CLASS_ROWS:
            return False
        chance = 1 - float(np.square(rows / rows.sum()).sum())
        changes = int((np.diff(target) != 0)[pairs].sum())
        open_now = max(0, changes - (0 if are_same else len(rows) - 1)) / int(pairs.sum())
    return chance > 0 and open_now <= MAX_UNTOLD[task] * chance


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
