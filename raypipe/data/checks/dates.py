"""Numbers that are to be dates, and may be other dates than those they are read as: judged by the profile's sample."""

from __future__ import annotations

import numpy as np

from raypipe.data.profile.parts import ProfilePart
from raypipe.data.transforms.dates import refuse_unclear
from raypipe.data.transforms.units import are_ten_digits
from raypipe.spec.data import DataSpec
from raypipe.spec.transforms import DatePartsTransform

MIN_DATES = 5
"""Of fewer numbers it may be chance that all can be read as a date."""


def refuse_unclear_dates(whole: ProfilePart, spec: DataSpec) -> None:
    """Raise DataError where all numbers of a date_parts transform without a unit can be read as spelled dates."""
    done: set[str] = set()
    for transform in spec.transforms:
        for name in transform.columns:
            sample = whole.columns[name].sample if name not in done else None
            if isinstance(transform, DatePartsTransform) and transform.unit is None and isinstance(sample, np.ndarray):
                values = sample.astype(np.float64)
                values = values[~np.isnan(values)]
                is_spelled = len(values) >= MIN_DATES and are_ten_digits(values)
                refuse_unclear(values, np.full(len(values), is_spelled), name)
        done.update(transform.columns if transform.kind != "impute" else ())
