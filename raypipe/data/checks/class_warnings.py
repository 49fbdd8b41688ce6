"""Classes that look like a quantity, are written in two ways, or have too few rows."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from raypipe.data.checks.classes import quantity_note
from raypipe.data.checks.warned import MAX_NAMED, MIN_ROWS, warning
from raypipe.data.table.label_sets import separator_note
from raypipe.records import DataProfile, DataWarning
from raypipe.spec.data import DataSpec

FEW_ROWS = 10
"""Train rows of a class below which a model hardly learns it, and test rows of it tell next to nothing."""


MAX_COMPARED = 1000
"""Of more classes the names are not compared."""

RARE, MANY, LIKE = 2, 10, 0.8
"""A class of so few rows may be another one of so many misspelt, where their names are so much alike (difflib)."""


def no_classes(labels: Mapping[Any, int], target: str, separator: str | None = None) -> list[DataWarning]:
    """The warning that class labels look like a quantity, where they do; or labels of a set like several, divided by
    another sign than the separator."""
    note = quantity_note(labels, target) if separator is None else separator_note(labels, target, separator)
    return [DataWarning(kind="no_class", columns=(target,), text=note)] if note else []


def spellings(
    described: DataProfile, labels: Mapping[Any, int], spec: DataSpec, names: Collection[str]
) -> list[DataWarning]:
    """A warning for the target, and each encoded category, with values that differ only in case or blanks.

    Args:
        labels: classification: class -> rows, of all rows.
        names: features that are encoded as categories.
    """
    counted: dict[str, Mapping[Any, int]] = {}
    if spec.task == "classification":
        counted = dict.fromkeys(spec.targets, labels)
    for column in described.columns:
        if column.name in names and column.dtype == "string":
            counted[column.name] = {top.value: top.count for top in column.top}
    warned: list[DataWarning] = []
    for name, counts in counted.items():
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for value in counts:
            if isinstance(value, str):
                alike[_folded(value)].append(value)
        several = [sorted(values, key=lambda value: (-counts[value], value)) for values in alike.values()]
        several = [values for values in several if len(values) > 1]
        if not several:
            continue
        shown = "; ".join(", ".join(f"{v!r} ({counts[v]} rows)" for v in values) for values in several[:MAX_NAMED])
        what = "classes" if name in spec.targets else "categories"
        finding = f"has {what} that differ only in case or blanks: {shown}"
        remedy = (
            "write them alike; until then data.expectations: {kind: in_set, ..., on_fail: quarantine} sets aside rows "
            "with any other spelling than those it names"
        )
        warned.append(warning("spelling", [name], finding, remedy, "the target" if name in spec.targets else "column"))
    return warned


def misspelt(labels: Mapping[Any, int], target: str) -> list[DataWarning]:
    """The warning that a class of a row or two is written nearly like one of many more, where some are.

    Args:
        labels: class -> rows, of all rows.
    """
    many = [label for label, rows in labels.items() if isinstance(label, str) and rows >= MANY]
    rare = [label for label, rows in labels.items() if isinstance(label, str) and rows <= RARE]
    if len(labels) > MAX_COMPARED:
        return []
    near = {label: difflib.get_close_matches(label, many, 1, LIKE) for label in rare}
    found = [
        f"{label!r} ({labels[label]} rows) like {like[0]!r} ({labels[like[0]]})"
        for label, like in near.items()
        if like and _folded(like[0]) != _folded(label)  # else `spellings` tells it
    ]
    if not found:
        return []
    finding = f"has classes of a row or two that are written nearly like others: {'; '.join(found[:MAX_NAMED])}"
    return [warning("spelling", [target], finding, "those that are misspelt, correct in the file", "the target")]


def _folded(value: str) -> str:
    """The value without its case and the number of its blanks."""
    return " ".join(value.casefold().split())


def few_rows(labels: Mapping[str, Mapping[Any, int]], target: str) -> list[DataWarning]:
    """The warning that classes have too few rows to be learned, or to be tested, where some do.

    Args:
        labels: split -> class -> rows.
    """
    sizes = {split: sum(rows.values()) for split, rows in labels.items()}
    splits = [split for split, size in sizes.items() if size]
    if sum(sizes.values()) < MIN_ROWS:
        return []
    classes = sorted(
        {label for rows in labels.values() for label in rows},
        key=lambda each: (labels["train"].get(each, 0), str(each)),
    )
    rare = [c for c in classes if labels["train"].get(c, 0) < FEW_ROWS or any(not labels[s].get(c, 0) for s in splits)]
    if not rare:
        return []
    shown = "; ".join(f"{c!r}: " + ", ".join(f"{labels[s].get(c, 0)} in {s}" for s in splits) for c in rare[:MAX_NAMED])
    more = f"; and {len(rare) - MAX_NAMED} more classes" if len(rare) > MAX_NAMED else ""
    finding = f"has {len(rare)} of {len(classes)} classes with too few rows ({shown}{more})"
    remedy = (
        "give more rows of them, or leave them out with data.source.where; data.split: {kind: stratified} gives each "
        "split its share, train.class_weights: balanced counts classes alike"
    )
    return [warning("few_rows", [target], finding, remedy, "the target")]
