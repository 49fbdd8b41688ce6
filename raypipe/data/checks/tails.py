"""A target whose few large values weigh more in a squared error than all others together."""

from __future__ import annotations

from raypipe.data.checks.warned import warning
from raypipe.records import ColumnProfile, DataWarning

MIN_ROWS = 200
"""Of fewer rows one in a hundred tells nothing."""

LONG = 5.0
"""How many times as far from the median the hundredth value from one end lies as that from the other end. Of a normal
distribution 1, of an exponential one 6, of a log-normal one with deviation 1 ten."""


def long_tail(target: ColumnProfile) -> list[DataWarning]:
    """The warning that a number to predict has a long tail, where it has."""
    quantiles = target.quantiles
    if target.counted < MIN_ROWS or not {"0.01", "0.5", "0.99"} <= quantiles.keys():
        return []
    low, middle, high = quantiles["0.01"], quantiles["0.5"], quantiles["0.99"]
    below, above = middle - low, high - middle
    if max(below, above) < LONG * min(below, above) or min(below, above) <= 0:
        return []
    ends = (
        f"above {high:g}, the largest is {target.max:g}"
        if above > below
        else f"below {low:g}, the least {target.min:g}"
    )
    finding = f"has a long tail: half of its values are below {middle:g}, one in a hundred is {ends}"
    is_positive = target.min is not None and target.min > 0
    by_factors = "train.target_transform: log learns factors instead of differences, and "
    helps = f"{by_factors if is_positive and above > below else ''}train.loss: huber counts its far values less"
    return [warning("long_tail", [target.name], finding, helps, "the target")]
