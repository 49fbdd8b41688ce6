"""Targets that are sets of labels: a text with a separator, a list of texts, or a column of true/false for each label.

A set is stored as one text, each label once and in order, so that equal sets are equal rows; columns stay columns.
B rows, K labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.errors import DataError
from raypipe.records import Column, LabelSets
from raypipe.spec.data import DataSpec, LabelSetsSpec

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

USUAL_SEPARATORS = (";", ",", "|", "/", "\t")

OF_LISTS = ";"
"""Separator of stored sets that came as lists, where the file names none."""

TRUE_FALSE = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def stored_column(column: Column, spec: DataSpec) -> Column:
    """What is kept of a target. Raises DataError where it can hold no labels."""
    if isinstance(spec.target, str):
        if column.dtype != "string":
            raise DataError(
                f"the target '{column.name}' holds {column.dtype}; data.task: multi_label needs a text with several "
                "labels, a list of texts, or several columns of true/false",
                "name the columns in data.target, e.g. [is_red, is_blue], or set another data.task",
            )
        return column
    if column.dtype not in TRUE_FALSE:
        raise DataError(
            f"the target '{column.name}' holds {column.dtype}; of several targets of data.task: multi_label each is a "
            "column of true/false (or 1/0)",
            "name columns of true/false, or one column of texts with data.label_sets",
        )
    return column.model_copy(update={"dtype": "bool"})


def kept(spec: DataSpec) -> LabelSets | None:
    """How the sets are stored; None for other tasks."""
    wanted = spec.stored_label_sets
    if wanted is None:
        return None
    separator = (wanted.separator or OF_LISTS) if isinstance(spec.target, str) else None
    return LabelSets(separator=separator, threshold=wanted.threshold)


def as_text(column: pa.ChunkedArray, name: str, wanted: LabelSetsSpec) -> pa.ChunkedArray:
    """Texts or lists of one target as they are stored: labels without blanks around them, each once, in order.

    Raises:
        DataError: nothing says what stands between the labels of a text, or a label of a list holds it.
    """
    separator = wanted.separator or OF_LISTS
    if pa.types.is_list(column.type):
        labels = column.combine_chunks().flatten() if len(column) else pa.array([], pa.string())
        holding = labels.filter(pc.match_substring(labels.cast(pa.string()), separator).fill_null(False))
        if len(holding):
            raise DataError(
                f"the target '{name}' holds the label '{str(holding[0])[:80]}', in which '{separator}' stands, which "
                "divides stored labels",
                "set data.label_sets: {separator: ...} to a text that stands in no label",
            )
        texts = pc.binary_join(column.combine_chunks().cast(pa.list_(pa.string())), separator)
    elif wanted.separator is None and not pa.types.is_null(column.type):
        raise DataError(
            f"nothing says what stands between the labels of a text of the target '{name}'",
            "set data.label_sets: {separator: ';'}, or what it is",
        )
    else:
        texts = column.combine_chunks().cast(pa.string()) if len(column) else pa.array([], pa.string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if wanted.missing == "no_label":
        texts = pc.if_else(pc.is_null(column.combine_chunks()), "", texts)
    encoded = texts.dictionary_encode()
    in_order = [separator.join(sorted(labels_of(text, separator))) for text in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(in_order, pa.string()).take(encoded.indices)])


def labels_of(text: str, separator: str) -> set[str]:
    """The labels in a text."""
    return {label for part in text.split(separator) if (label := part.strip())}


def separator_note(labels: Iterable[Any], target: str, separator: str) -> str:
    """What to say of labels that look like several, divided by another separator; empty where none does."""
    for label in labels:
        other = next((sign for sign in USUAL_SEPARATORS if sign != separator and sign in str(label)), None)
        if other is not None:
            return (
                f"'{target}' holds the label '{str(label)[:80]}': if '{other}' stands between labels, set "
                f"data.label_sets.separator to it; it is '{separator}'"
            )
    return ""


def check_true_false(values: np.ndarray, missing: np.ndarray, name: str) -> None:
    """Raise DataError where a column of whole numbers holds others than 0 and 1."""
    wrong = ~missing & (values != 0) & (values != 1)
    if wrong.any():
        raise DataError(
            f"the target '{name}' holds {values[wrong][0]:g}; of several targets of data.task: multi_label each is a "
            "column of true/false (or 1/0)",
            "correct the column, or set data.task: regression",
        )


def counted(table: pa.Table, targets: Sequence[str], separator: str | None) -> Counter[Any]:
    """Rows of each label."""
    if separator is None:
        return Counter({name: int(pc.sum(table[name].cast(pa.int64())).as_py() or 0) for name in targets})
    counts: Counter[Any] = Counter()
    for pair in table[targets[0]].value_counts().to_pylist():
        for label in labels_of(pair["values"], separator):
            counts[label] += pair["counts"]
    return counts


def encoded(target: Any, classes: Sequence[Any], separator: str | None, name: str) -> np.ndarray:
    """Bool [B, K]: which labels each row has.

    Args:
        target: stored texts [B], objects or in Arrow; or true/false [B, K].
    Raises:
        DataError: a label that is not among the classes.
    """
    if separator is None:
        return np.asarray(target, bool)
    texts = pa.array(target, pa.string()) if isinstance(target, np.ndarray) else target.cast(pa.string())
    found = texts.dictionary_encode()
    place: Mapping[Any, int] = {label: k for k, label in enumerate(classes)}
    sets = np.zeros((len(found.dictionary), len(classes)), bool)
    for row, text in enumerate(found.dictionary.to_pylist()):
        for label in labels_of(text, separator):
            if label not in place:
                raise DataError(f"target '{name}' holds the label {label!r}; the labels are {list(classes)[:50]}")
            sets[row, place[label]] = True
    return sets[found.indices.to_numpy()]
