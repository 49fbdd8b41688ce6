"""Sounds at another rate: a windowed sinc, one output after another in an order that the sizes alone decide.

N outputs, P phases.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

ZERO_CROSSINGS = 32
"""Of the sinc on each side, counted at the lower of the two rates."""

BETA = 8.96
"""Kaiser's window with it keeps what lies beyond the transition 90 dB down.  Source: Kaiser 1974."""

ROLLOFF = 0.91
"""The transition is centred on this part of the lower Nyquist frequency, and ends at that: what is below 0.82 of it
stays as it is."""

MAX_WEIGHTS = 2**20
"""Of all phases: 8 MiB, made in a twentieth of a second. Rates that need more have no small ratio, as no pair of usual
rates has: 11,025 and 192,000 need a sixth of it."""

MAX_TAPS = 2**12
"""Of one phase, each a pass over the outputs: rates that are 64 times lower, where 192,000 and 8,000 are 24."""

MAX_KEPT = 8
"""Pairs of rates whose weights are kept."""

AT_ONCE = 4096
"""Outputs that are computed together: they stay in the processor's cache."""


class NoSmallRatio(ValueError):
    """Two rates between which nothing is resampled."""


def ratio(rate: int, new_rate: int) -> tuple[int, int]:
    """Up and down: the new rate is rate * up / down, in whole numbers without a common part.

    Raises:
        NoSmallRatio: a recording of few bytes would take long, and much memory.
    """
    common = math.gcd(rate, new_rate)
    up, down = new_rate // common, rate // common
    num_taps = 2 * _reach(up, down)
    if num_taps > MAX_TAPS or up * num_taps > MAX_WEIGHTS:
        raise NoSmallRatio(f"{rate} and {new_rate} samples a second have no small ratio")
    return up, down


def num_after(num_samples: int, up: int, down: int) -> int:
    """How many samples a sound has afterwards."""
    return -(-num_samples * up // down)


def span(first: int, stop: int, up: int, down: int) -> tuple[int, int]:
    """The samples before that outputs `first` to `stop` are made of; may begin below 0 and end beyond the sound."""
    if up == down:
        return first, stop
    reach = _reach(up, down)
    return first * down // up - reach + 1, (stop - 1) * down // up + reach + 1


def resampled(samples: np.ndarray, first: int, stop: int, up: int, down: int) -> np.ndarray:
    """Outputs `first` to `stop`.

    Args:
        samples: float64, those of `span(first, stop, up, down)`.
    Returns:
        float64 [N].
    """
    if up == down:
        return samples
    weight_TP = np.ascontiguousarray(weights(up, down).T)
    place_N = np.arange(first, stop, dtype=np.int64) * down
    phase_N, start_N = place_N % up, place_N // up - first * down // up
    total_N = np.zeros(stop - first)
    for begin in range(0, stop - first, AT_ONCE):
        here = slice(begin, begin + AT_ONCE)
        total_n, phase_n, start_n = total_N[here], phase_N[here], start_N[here]
        for tap, weight_P in enumerate(weight_TP):
            total_n += np.take(samples, start_n + tap) * weight_P[phase_n]
    return total_N


@lru_cache(maxsize=MAX_KEPT)
def weights(up: int, down: int) -> np.ndarray:
    """float64 [P, taps]: of the samples around each phase p / up of the time between two samples."""
    reach, low = _reach(up, down), min(1.0, up / down)
    time = np.arange(up)[:, None] / up - np.arange(1 - reach, reach + 1)
    inside = np.clip(1.0 - (time * low / ZERO_CROSSINGS) ** 2, 0.0, None)
    window = np.where(inside > 0, np.i0(BETA * np.sqrt(inside)) / np.i0(BETA), 0.0)
    return ROLLOFF * low * np.sinc(ROLLOFF * low * time) * window


def _reach(up: int, down: int) -> int:
    """Samples before and after a moment that count there."""
    return -(-ZERO_CROSSINGS * max(up, down) // up)
