"""Classes to tell apart: how they are divided, which are too small for it, and what a gate asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.draft.written import flow, some
from raypipe.errors import SpecError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "holdout"),
}
"""What columns and folders of ready-made splits hold."""

TRAIN_FRAC = 0.65
VAL_FRAC, TEST_FRAC = 0.15, 0.2

MIN_CLASS_ROWS = 3
"""One for each split."""

LEARNED = 0.25
"""How much of the way from always the same answer to no mistake a model must go, at least."""

STRATIFIED = (
    f"split: {flow({'kind': 'stratified', 'val_frac': VAL_FRAC, 'test_frac': TEST_FRAC})} # each class in its share"
)


def rare_of(counts: Mapping[Any, int], whose: str, what: str, otherwise: str) -> dict[Any, int]:
    """Classes that are too small to be divided -> how many rows or files they have.

    Raises:
        SpecError: no two classes are left.
    """
    rare = {label: num for label, num in counts.items() if num < MIN_CLASS_ROWS}
    if len(counts) - len(rare) < 2:
        raise SpecError(
            f"{whose} has {len(counts)} classes, and {len(counts) - len(rare)} with {MIN_CLASS_ROWS} {what} or more: "
            f"one is needed to train, one to validate and one to test ({_counted(rare)})",
            f"give more {what} of each class, or {otherwise}",
        )
    return rare


def without(column: str, rare: Mapping[Any, int]) -> dict[str, Any]:
    """The condition of data.source.where that leaves classes out."""
    return {"column": column, "op": "not_in", "value": list(rare)}


def rare_line(rare: Mapping[Any, int]) -> str:
    """The comment on classes that are left out."""
    return f"# left out, as too few to be in train, val and test: {_counted(rare)}"


def _counted(counts: Mapping[Any, int]) -> str:
    return some([f"{label} ({num})" for label, num in counts.items()])


def accuracy_gate(most: float) -> str:
    """A line of evaluate.gates, for a target of which the most frequent class has such a share."""
    reason = f"guessed; always the same class: {most:.2f}. Below it, nothing is registered"
    return f"{{metric: accuracy, min: {learned(most):g}}} # {reason}"


def learned(least: float) -> float:
    """What a gate asks for, where always the same answer reaches `least`; never all, which no model would reach."""
    return min(0.9999, round(least + LEARNED * (1 - least), 4))
