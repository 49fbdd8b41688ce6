"""What files tell of how they are written, before they are read: fields of the spec that it leaves open."""

from __future__ import annotations

from typing import Any

from raypipe.data.formats import FORMATS
from raypipe.data.formats.base import Wanted
from raypipe.data.masking import Masking
from raypipe.spec.data import DataSpec
from raypipe.spec.named_columns import named_columns
from raypipe.spec.sources import NOT_HOW, Condition

OF_TEXT = frozenset(
    {"one_hot", "ordinal", "hashing", "cross", "date_parts", "tokens", "bag_of_words", "pretrained_tokens", "ngrams"}
)
"""Kinds of transforms that take texts as they are written."""


def recognise(spec: DataSpec) -> tuple[DataSpec, list[str]]:
    """The spec with what its files tell for certain in its sources, and lines that say what that is.

    Raises:
        DataError: the files need a setting that is not given.
    """
    masking = Masking(spec.masking)
    fields: dict[str, Any] = {}
    lines: list[str] = []
    wanted = wanted_of(spec)
    for field in dict.fromkeys(part.field for part in spec.parts()):
        sources = [part.source for part in spec.parts() if part.field == field]
        first: Any = fields.get("source")
        like = first if first is not None and first.format == sources[0].format else None
        source, of_field = FORMATS[sources[0].format].recognised(sources, spec.root or ".", masking, wanted, like)
        how = {name: value for name, value in source if name not in NOT_HOW}
        fields[field] = getattr(spec, field).model_copy(update=how)
        lines += of_field if field == "source" else [f"data.{field}: {line}" for line in of_field]
    return spec.model_copy(update=fields), lines


def wanted_of(spec: DataSpec) -> Wanted:
    """What the spec wants of columns, as far as it says so by itself.

    A column whose texts it names or encodes stays text: who wrote that wants to meet those texts again.
    """
    chosen_by = [condition for part in spec.parts() for condition in part.source.where]
    names: frozenset[str] | None = None
    if spec.features is not None:
        named = [name for of_place in named_columns(spec).values() for name in of_place]
        names = frozenset([*named, *(condition.column for condition in chosen_by)])
    return Wanted(
        targets=spec.targets,
        names=names,
        as_text=frozenset([*_targets_of_text(spec), *_taken_as_text(spec), *_compared_with_text(spec, chosen_by)]),
        as_numbers=frozenset(n for t in spec.transforms if t.kind == "date_parts" and t.unit for n in t.columns),
    )


def _targets_of_text(spec: DataSpec) -> tuple[str, ...]:
    """Targets whose texts are what the model answers."""
    is_of_numbers = spec.task == "regression" or (spec.task == "multi_label" and not isinstance(spec.target, str))
    return () if is_of_numbers else spec.targets


def _taken_as_text(spec: DataSpec) -> list[str]:
    transforms = [t for t in spec.transforms if t.kind in OF_TEXT or (t.kind == "impute" and isinstance(t.value, str))]
    return [name for transform in transforms for name in transform.columns]


def _compared_with_text(spec: DataSpec, chosen_by: list[Condition]) -> list[str]:
    """Columns of which something else than a transform says which texts they hold."""
    of_split = [*spec.split.reads, *([spec.stratify_by] if spec.stratify_by else [])]
    of_where = [each.column for each in chosen_by if each.op not in ("is_null", "not_null")]
    of_rules = [n for e in spec.expectations if e.kind in ("in_set", "matches", "length", "dtype") for n in e.reads]
    return [*of_split, *of_where, *of_rules]
