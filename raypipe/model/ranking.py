"""How well a probability ranks rows, from histograms that add up over ranks: ROC-AUC and PR-AUC.

Rows whose probabilities share a bin count as equal, as rows of equal probability do anyway.  Bins are narrow where
probabilities crowd: each halving of the distance to 0, and to 1, is cut into as many bins as the one before, so that
0.001 is told from 0.0011, and 0.999 from 0.9989.  With S bins a halving, rows that share a bin differ by less than a
part 1/S of their probability, or of what it lacks to 1; below 2^-33, and as near to 1, all are equal.

Error, for P positive and N negative rows of which bin b holds p_b and n_b:
- ROC-AUC is off by at most half the sum of p_b n_b / (P N): the pairs that are not told apart, which count as half
  right.  Where each bin holds at most the part f of either kind of rows, that is at most f / 2.
- PR-AUC is off by at most the sum over bins of p_b / P times the range that the precision can have within the bin.

Shape letters: B rows, K classes, N bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raypipe.model.measures import counted

OCTAVES = 32
"""Halvings of the distance to 0, and to 1."""

MAX_BINS_PER_OCTAVE = 256

MAX_COUNTS = 2**18
"""Of all histograms of one model together: two megabytes travel."""

MAX_CLASSES = 256
"""More classes leave so few bins that nothing could be told."""


def bins_per_octave(num_histograms: int) -> int:
    """As many as MAX_COUNTS allows for so many histograms of positive and negative rows, a power of two."""
    room = MAX_COUNTS // (4 * OCTAVES * max(1, num_histograms))
    return min(MAX_BINS_PER_OCTAVE, 1 << max(0, room.bit_length() - 1))


def bins_of(probabilities: NDArray[np.floating], per_octave: int) -> NDArray[np.int64]:
    """The bin of each probability, of any shape, in [0, 2 * OCTAVES * per_octave); they rise with the probability."""
    above = probabilities >= 0.5
    rest = np.where(above, 1.0 - probabilities, probabilities)  # exact from 0.5 to 1
    half, exponent = np.frexp(np.minimum(rest, np.nextafter(rest.dtype.type(0.5), rest.dtype.type(0))))
    octave = OCTAVES + exponent  # 0.25 to 0.5 is the last
    within = ((half - 0.5) * (2 * per_octave)).astype(np.int64)
    bins = np.where((octave > 0) & (rest > 0), (octave - 1) * per_octave + within, 0)
    return np.where(above, 2 * OCTAVES * per_octave - 1 - bins, bins)


def histograms(
    is_positive_BK: NDArray[np.bool_],
    probabilities_BK: NDArray[np.floating],
    per_octave: int,
    times_B: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Negative and positive rows in each bin, [K, 2, N].

    Args:
        times_B: how often each row counts; None: once.
    """
    num_bins, num_classes = 2 * OCTAVES * per_octave, probabilities_BK.shape[1]
    series_BK = 2 * np.arange(num_classes)[None] + is_positive_BK
    flat = series_BK * num_bins + bins_of(probabilities_BK, per_octave)
    times = None if times_B is None else np.broadcast_to(times_B[:, None], flat.shape)
    counts = counted(flat, times, 2 * num_classes * num_bins)
    return counts.reshape(num_classes, 2, num_bins).astype(np.int64)


def roc_auc(negative_N: NDArray[np.int64], positive_N: NDArray[np.int64]) -> float:
    """Share of pairs of a positive and a negative row in which the positive one has the higher probability, equal ones
    counted half; NaN where either kind has no row."""
    pairs = float(negative_N.sum()) * float(positive_N.sum())
    if not pairs:
        return float("nan")
    below_N = np.cumsum(negative_N) - negative_N
    return float((positive_N * (below_N + negative_N / 2)).sum() / pairs)


def pr_auc(negative_N: NDArray[np.int64], positive_N: NDArray[np.int64]) -> float:
    """Area under precision over recall as a sum of steps, which is average precision: nothing is interpolated, as a
    line between two points promises what no threshold gives. NaN where there is no positive row.

    Source: Davis and Goadrich 2006, "The Relationship Between Precision-Recall and ROC Curves".
    """
    if not positive_N.sum():
        return float("nan")
    hits_N, false_N = np.cumsum(positive_N[::-1]), np.cumsum(negative_N[::-1])
    taken_N = np.maximum(hits_N + false_N, 1)
    return float((positive_N[::-1] * (hits_N / taken_N)).sum() / positive_N.sum())
