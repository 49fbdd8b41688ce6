"""What a network reads of a table: which columns, and what is done to each kind of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.data.profile.meaning import meaning
from raypipe.draft.written import item, some
from raypipe.records import ColumnProfile

ONE_HOT = 12
"""Categories that get a column each; more are embedded."""

MAX_ORDINAL = 1000
"""Categories that are kept by name; more are hashed."""

NUM_BUCKETS = 4096

LEFT_OUT = {
    "no value": "holds no value in any row",
    "one value": "holds one value in all rows",
    "row number": "counts the rows",
    "identifier": "names the rows",
    "text": "holds text that hardly ever repeats, which needs a network of its own",
}
"""Kinds that are no features -> why."""


@dataclass
class Features:
    """Columns of a table by what they are.

    Attributes:
        left_out: why -> columns.
    """

    numbers: list[ColumnProfile] = field(default_factory=list)
    truths: list[ColumnProfile] = field(default_factory=list)
    categories: list[ColumnProfile] = field(default_factory=list)
    dates: list[ColumnProfile] = field(default_factory=list)
    arrays: list[ColumnProfile] = field(default_factory=list)
    texts: list[ColumnProfile] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all that is read, by kind."""
        kinds = (self.numbers, self.truths, self.categories, self.dates, self.arrays, self.texts)
        return [column.name for kind in kinds for column in kind]

    @property
    def is_text(self) -> bool:
        """Whether one text is all that is read."""
        return len(self.texts) == 1

    @property
    def picture(self) -> ColumnProfile | None:
        """The only feature, where it is an array [H, W] or [H, W, C]."""
        is_one = len(self.names) == len(self.arrays) == 1
        return self.arrays[0] if is_one and len(self.arrays[0].shape) in (2, 3) else None


def sort_features(columns: Sequence[ColumnProfile], aside: Sequence[str]) -> Features:
    """All columns but some, by what they are; a text is read where there is nothing else."""
    features = Features()
    kinds = {
        "number": features.numbers,
        "true/false": features.truths,
        "category": features.categories,
        "date": features.dates,
        "array": features.arrays,
        "text": features.texts,
    }
    for column in columns:
        if column.name in aside:
            continue
        kind = meaning(column).kind
        if kind in kinds:
            kinds[kind].append(column)
        else:
            features.left_out.setdefault(LEFT_OUT[kind], []).append(column.name)
    if len(features.names) > 1 and features.texts:
        features.left_out[LEFT_OUT["text"]] = [column.name for column in features.texts]
        features.texts = []
    return features


def transforms(features: Features) -> list[str]:
    """Lines of data.transforms."""
    lines: list[str] = []
    gaps = _with_gaps(features.numbers)
    if gaps:
        lines.append(item({"kind": "impute", "columns": gaps, "strategy": "median"}))
    gaps = _with_gaps([*features.truths, *features.categories, *features.dates])
    if gaps:
        lines.append(item({"kind": "impute", "columns": gaps, "strategy": "most_frequent"}))
    if features.dates:
        parts = ["year", "month", "weekday", *(["hour"] if _has_hours(features.dates) else [])]
        lines.append(item({"kind": "date_parts", "columns": _names(features.dates), "parts": parts, "cyclical": True}))
    if scaled := _names([*features.numbers, *features.dates, *features.arrays]):
        lines.append(item({"kind": "standardize", "columns": scaled}))
    few, ordinal, many = by_size(features.categories)
    if few:
        lines.append(item({"kind": "one_hot", "columns": _names(few)}))
    if ordinal:
        lines.append(item({"kind": "ordinal", "columns": _names(ordinal)}))
    if many:
        hashing = {"kind": "hashing", "columns": _names(many), "num_buckets": NUM_BUCKETS, "output": "index"}
        lines.append(item(hashing, "too many to keep by name"))
    return lines


def embeddings(features: Features) -> dict[str, int]:
    """Column -> how long the vectors of its categories are."""
    _, ordinal, many = by_size(features.categories)
    return {
        **{column.name: min(16, 1 + round((column.distinct or 0) ** 0.5)) for column in ordinal},
        **{column.name: 16 for column in many},
    }


def by_size(
    categories: Sequence[ColumnProfile],
) -> tuple[list[ColumnProfile], list[ColumnProfile], list[ColumnProfile]]:
    """Those with few categories, with more, and with too many to keep by name."""
    few: list[ColumnProfile] = []
    more: list[ColumnProfile] = []
    many: list[ColumnProfile] = []
    for column in categories:
        num = MAX_ORDINAL + 1 if column.distinct is None else column.distinct
        (few if num <= ONE_HOT else more if num <= MAX_ORDINAL else many).append(column)
    return few, more, many


def left_out_lines(features: Features) -> list[str]:
    """Comments that say which columns are no features, and why."""
    return [f"# left out, as each {why}: {some(names)}" for why, names in features.left_out.items()]


def _with_gaps(columns: Sequence[ColumnProfile]) -> list[str]:
    return [column.name for column in columns if column.nulls]


def _names(columns: Sequence[ColumnProfile]) -> list[str]:
    return [column.name for column in columns]


def _has_hours(dates: Sequence[ColumnProfile]) -> bool:
    texts: list[Any] = [top.value for column in dates for top in column.top]
    return any(":" in str(text) for text in texts)
