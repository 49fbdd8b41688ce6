"""Everything that the rows of a version show and that is worth acting on before a model learns from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.data.checks.class_warnings import few_rows, misspelt, no_classes, spellings
from raypipe.data.checks.split_drift import differences
from raypipe.data.checks.suspects import AS_CATEGORIES, suspects
from raypipe.data.checks.tails import long_tail
from raypipe.data.profile.parts import ProfilePart
from raypipe.data.table import label_sets
from raypipe.records import ColumnProfile, DataProfile, DataWarning
from raypipe.spec.data import DataSpec


def warnings_of(
    described: DataProfile,
    whole: ProfilePart,
    splits: Mapping[str, Sequence[ColumnProfile]],
    labels: Mapping[str, Counter[Any]],
    spec: DataSpec,
    features: tuple[str, ...],
) -> Iterator[DataWarning]:
    """What columns, classes and splits show; nothing is read again.

    Args:
        whole: the profile of all rows, with its sample; described: the same, finished.
        splits: split -> its columns, where the splits may differ in more than chance; else empty.
        labels: classification and multi-label: split -> class -> rows.
    """
    if spec.task == "language_model":
        return
    yield from suspects(described, whole, spec, features)
    encoded = {name for transform in spec.transforms if transform.kind in AS_CATEGORIES for name in transform.columns}
    all_labels = sum(labels.values(), Counter[Any]())
    yield from spellings(described, all_labels, spec, encoded)
    (target, *_) = spec.targets
    if spec.task == "classification":
        yield from misspelt(all_labels, target)
        yield from no_classes(all_labels, target) or few_rows(labels, target)
    sets = label_sets.kept(spec)
    if sets is not None and sets.separator is not None:
        yield from no_classes(all_labels, target, sets.separator)
    for name in spec.targets if spec.task == "regression" else ():
        column = described.column(name)
        if column is not None:
            yield from long_tail(column)
    yield from differences(splits, features, spec.targets)
