"""Splits that differ in what their columns hold: a model is tested on other rows than it learns from.

Splits drawn from the same rows differ by chance alone; looked at are those that files, folders, a column or the time
say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raypipe.data.checks.warned import MIN_ROWS, listed, warning
from raypipe.data.profile.drift import ColumnDrift, column_drift
from raypipe.records import ColumnProfile, DataWarning
from raypipe.spec.data import DataSpec

SHIFTED = 0.25
"""Population stability index from which on rules of thumb call it a shift."""

FAR = 0.15
"""Distance of two distributions, or of two shares of missing values, that is worth a word."""

BY_CHANCE = 1e-6
"""How probable a difference must be by chance, at most, in all columns together."""

ARRAY_SHIFT = 0.5
"""Of arrays: difference of the means, in standard deviations of train."""

FEW_VALUES = 10
"""Numbers with fewer different values are told by their shares, not by their median."""


def looks_at(spec: DataSpec) -> bool:
    """Whether the splits could differ in more than chance."""
    is_drawn = spec.split.kind in ("hash", "stratified", "grouped")
    return not is_drawn or spec.val_source is not None or spec.test_source is not None


def differences(
    splits: Mapping[str, Sequence[ColumnProfile]], features: Sequence[str], targets: Sequence[str]
) -> list[DataWarning]:
    """A warning for each column that is distributed otherwise in val or test than in train.

    Args:
        splits: split -> the profile of its columns.
    """
    warned: list[DataWarning] = []
    train = {column.name: column for column in splits.get("train", ())}
    for split in ("test", "val"):
        there = {column.name: column for column in splits.get(split, ())}
        told = {warned_column for each in warned for warned_column in each.columns}
        for name in (*features, *targets):
            if name in train and name in there and name not in told:
                finding = _difference(train[name], there[name], split, BY_CHANCE / (len(features) + len(targets)))
                if finding:
                    remedy = (
                        f"if train should hold rows like those of {split}, name all files in data.source and let "
                        "data.split divide them"
                    ) + ("" if name in targets else "; else leave it out of data.features")
                    noun = "the target" if name in targets else "column"
                    warned.append(warning("split_drift", [name], finding, remedy, noun))
    return warned


def _difference(train: ColumnProfile, other: ColumnProfile, split: str, by_chance: float) -> str:
    """What differs, with figures; empty where nothing does."""
    fewest = min(train.count, other.count) if train.shape else min(train.counted, other.counted)
    if train.shape != other.shape or fewest < MIN_ROWS or (train.dtype == "string") != (other.dtype == "string"):
        return ""
    if train.shape:
        return _array_difference(train, other, split)
    drift = column_drift(other, train)
    if abs(drift.null_change) >= FAR:
        shares = f"{train.nulls / train.count:.0%} of the rows of train, in {other.nulls / other.count:.0%} of {split}"
        return f"is missing in {shares}"
    # Kolmogorov and Smirnov: how far two samples of one distribution come apart by chance.
    noise = math.sqrt(math.log(2 / by_chance) / 2 * (1 / train.counted + 1 / other.counted))
    far = max(drift.ks or 0.0, drift.share_change)
    if drift.psi < SHIFTED or far < max(FAR, noise):
        return ""
    return f"is distributed otherwise in {split} than in train ({_figures(train, other, drift, split)})"


def _array_difference(train: ColumnProfile, other: ColumnProfile, split: str) -> str:
    if train.mean is None or other.mean is None or not train.std:
        return ""
    if abs(other.mean - train.mean) < ARRAY_SHIFT * train.std:
        return ""
    return f"has the mean {other.mean:g} in {split}, {train.mean:g} in train (deviation {train.std:g})"


def _figures(train: ColumnProfile, other: ColumnProfile, drift: ColumnDrift, split: str) -> str:
    psi = f"stability index {drift.psi:.2f}"
    is_counted = max(train.distinct or FEW_VALUES, other.distinct or FEW_VALUES) < FEW_VALUES
    if train.quantiles and other.quantiles and not is_counted:
        return f"{psi}; the median is {other.quantiles['0.5']:g} there, {train.quantiles['0.5']:g} in train"
    before, now = ({top.value: top.count / each.counted for top in each.top} for each in (train, other))
    moved = sorted({*before, *now}, key=lambda value: -abs(before.get(value, 0) - now.get(value, 0)))[:3]
    shares = ", ".join(f"{listed([value])} {now.get(value, 0):.0%} after {before.get(value, 0):.0%}" for value in moved)
    return f"{psi}; shares in {split} and train: {shares}"
