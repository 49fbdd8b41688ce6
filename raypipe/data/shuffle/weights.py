"""How much the rows of a version count, and what must hold of that as a whole; rows were checked as they came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raypipe.data.checks.schema import Schema
from raypipe.data.shuffle.written import WrittenShards
from raypipe.errors import DataError
from raypipe.records import RowWeights, Value

TEACHES = {"train": "learned from", "val": "validated on", "test": "judged by"}


def row_weights(written: WrittenShards, schema: Schema, classes: Sequence[Value] | None) -> RowWeights | None:
    """None where all rows count alike.

    Raises:
        DataError: no row of a split counts, or no train row of a class; or weights too large to be added up.
    """
    column = schema.weight
    if column is None:
        return None
    sums: dict[str, float] = {}
    for split, of_labels in written.weights.items():
        total = sum(of_labels.values())
        num_rows = written.sizes[split]
        if not math.isfinite(total):
            raise DataError(
                f"data.weight: the numbers of '{column}' in {split} add up to more than float64 holds",
                "give them in another unit: only their proportions count",
            )
        if num_rows and not total:
            raise DataError(
                f"data.weight: '{column}' is 0 in all {num_rows} rows of {split}, so none is {TEACHES[split]}",
                "give rows that count a weight above 0, divide the rows otherwise (data.split), or leave data.weight "
                "out",
            )
        if num_rows:
            sums[split] = total
    return RowWeights(column=column, sums=sums, of_classes=_of_classes(written.weights["train"], schema, classes))


def _of_classes(
    of_labels: dict[Any, float], schema: Schema, classes: Sequence[Value] | None
) -> tuple[float, ...] | None:
    if classes is None or schema.task != "classification":
        return None
    for label in classes:
        if not of_labels[label]:
            raise DataError(
                f"data.weight: '{schema.weight}' is 0 in every train row of class {label!r} of target "
                f"'{schema.target}', so nobody would learn it",
                "give rows of it a weight above 0, or leave them out (data.source.where)",
            )
    return tuple(of_labels[label] for label in classes)
