"""Class labels: how many there may be, which of them train has, and whether they look like classes at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.data.checks.schema import Schema
from raypipe.errors import DataError
from raypipe.records import Value
from raypipe.spec.labels import FolderLabel
from raypipe.spec.sources import FolderSource, SourceSpec

MAX_CLASSES = 100_000

MANY_CLASSES = 30
"""So many whole numbers with gaps between them are more often a quantity than names of classes."""

OF_FOLDERS = (
    "the label of a file is the folder it lies in, unless data.source.label takes it from names "
    "({from: filename, regex: '^([0-9])_'}), from a table ({path: labels.csv}), or from files beside them "
    "({from: sidecar})"
)


def refuse_no_classes(labels: Mapping[Any, int], target: str) -> None:
    """Raise DataError when a target holds more different values than classes can be."""
    if len(labels) > MAX_CLASSES:
        raise DataError(
            f"target '{target}' holds more than {MAX_CLASSES} different values, which are no classes",
            "set data.task: regression, or correct data.target",
        )


def quantity_note(labels: Mapping[Any, int], target: str) -> str:
    """What to say of class labels that look like a quantity; empty where they do not.

    Args:
        labels: class -> rows, of all rows.
    """
    is_whole = all(isinstance(label, int) and not isinstance(label, bool) for label in labels)
    if not is_whole or len(labels) < MANY_CLASSES or max(labels) - min(labels) + 1 == len(labels):
        return ""
    return (
        f"'{target}' holds {len(labels)} different whole numbers from {min(labels)} to {max(labels)}, each of which is "
        "a class: if it is a quantity, set data.task: regression"
    )


def classes_of(labels: Mapping[str, Counter[Any]], schema: Schema) -> tuple[Value, ...] | None:
    """The labels of train, sorted; None where the task is no classification.

    Args:
        labels: split -> label -> rows.
    Raises:
        DataError: there is only one, or val or test hold a label that train does not.
    """
    if schema.task not in ("classification", "multi_label"):
        return None
    classes = tuple(sorted(labels["train"]))
    if schema.task == "multi_label" and len(schema.targets) > 1:
        classes = schema.targets
    for label in classes:
        if not labels["train"][label]:
            raise DataError(
                f"target '{label}' is false in every row of train; nobody would learn it",
                "leave it out of data.target, give rows of it, or set another data.split.salt",
            )
    every = sum(labels.values(), Counter[Any]())
    note = "" if schema.task == "multi_label" else quantity_note(every, schema.target)
    for name in ("val", "test"):
        for label in sorted(label for label, rows in labels[name].items() if rows and label not in classes):
            raise DataError(
                f"label {label!r} of target '{schema.target}' is in {labels[name][label]} row(s) of {name} but in "
                f"none of train; train has {list(classes)[:20]}",
                note or "give more rows of it, remove them, or set another data.split.salt",
            )
    if not classes:
        raise DataError(
            f"no row of train has a label in target '{schema.target}'; there is nothing to learn",
            "correct data.target, or give rows with labels",
        )
    refuse_one_class(classes, schema, " in train")
    return classes


def refuse_one_class(classes: Sequence[Any], schema: Schema, where: str = "", source: SourceSpec | None = None) -> None:
    """Raise DataError where classes are wanted and there is only one.

    Args:
        where: which rows these are the classes of, for the message.
        source: that the rows are of.
    """
    if schema.task == "classification" and len(classes) == 1:
        is_folder = isinstance(source, FolderSource) and isinstance(source.label, FolderLabel)
        raise DataError(
            f"target '{schema.target}' has one class{where}, {list(classes)}; there is nothing to tell apart",
            OF_FOLDERS if is_folder else "correct data.target, or give rows of other classes",
        )
