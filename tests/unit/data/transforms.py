"""Columns of 500 rows, and transforms fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from raypipe.data.transforms import FittedTransforms
from raypipe.records import Column
from raypipe.spec.transforms import Transform
from raypipe.testing.fakes import fit_columns

_RANDOM = np.random.default_rng(0)

X = Column(name="x", dtype="float64")
NUMBERS = _RANDOM.normal(50.0, 3.0, 500)

GAPPY = Column(name="x", dtype="float64", nullable=True)
GAPS = np.where(_RANDOM.random(500) < 0.2, np.nan, _RANDOM.integers(0, 5, 500).astype(float))

CITY = Column(name="city", dtype="string")
CITIES = np.array(["Bonn", "Köln", "Aachen", "10"], object)[_RANDOM.integers(0, 4, 500)]

IMAGE = Column(name="image", dtype="uint8", shape=(4, 4))

TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)


def transforms(*specs: Mapping[str, Any]) -> list[Any]:
    """The transforms of data.transforms."""
    return [TRANSFORM.validate_python(spec) for spec in specs]


def fit_one(
    column: Column, values: np.ndarray, *specs: Mapping[str, Any], cuts: Sequence[int] = (100, 333)
) -> FittedTransforms:
    """Transforms fitted on one column, whose rows lie in shards cut at `cuts`."""
    shards = [{column.name: part} for part in np.split(values, list(cuts))]
    return fit_columns(transforms(*specs), [column], shards)


def exact(fitted: FittedTransforms, column: Column, values: Any) -> np.ndarray:
    """What the model reads of one column, before the cast to float32."""
    return fitted.apply_exact({column.name: values}, [column])
