"""Areas under curves from histograms, against scikit-learn's from all rows, within the bound that the module states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from raypipe.model.ranking import MAX_COUNTS, OCTAVES, bins_of, bins_per_octave, histograms, pr_auc, roc_auc
from tests.conftest import examples

PROBABILITY: Any = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1e-30, 2**-33, 0.5, 1 - 2**-24, 1.0]))
EPS = 1e-9


def bounds(negative_N: NDArray[np.int64], positive_N: NDArray[np.int64]) -> tuple[float, float, float]:
    """How far ROC-AUC may be off; the least and the greatest PR-AUC of rows in these bins."""
    num_negative, num_positive = int(negative_N.sum()), int(positive_N.sum())
    least = greatest = hits = false = 0.0
    for negative, positive in zip(negative_N[::-1].tolist(), positive_N[::-1].tolist(), strict=True):
        if positive:
            # least: the negative rows of a bin come first; greatest: last, after all positive ones at once
            worst = [(hits + i) / (hits + i + false + negative) for i in range(1, positive + 1)]
            least += sum(worst) / num_positive
            greatest += positive / num_positive * (hits + positive) / (hits + positive + false)
        hits, false = hits + positive, false + negative
    return float((negative_N * positive_N).sum()) / (2 * num_negative * num_positive), least, greatest


def check(is_positive_B: NDArray[np.bool_], given_B: NDArray[np.float32], per_octave: int) -> tuple[float, float]:
    ((negative_N, positive_N),) = histograms(is_positive_B[:, None], given_B[:, None], per_octave)
    off, least, greatest = bounds(negative_N, positive_N)
    area, exact = roc_auc(negative_N, positive_N), float(roc_auc_score(is_positive_B, given_B))
    assert abs(area - exact) <= off + EPS
    precision, exact_precision = pr_auc(negative_N, positive_N), float(average_precision_score(is_positive_B, given_B))
    for each in (precision, exact_precision):
        assert least - EPS <= each <= greatest + EPS
    return area - exact, precision - exact_precision


@settings(max_examples=examples(40))
@given(arrays(np.float32, 40, elements=PROBABILITY), arrays(np.bool_, 40), st.sampled_from([1, 4, 256]))
def test_areas_of_any_rows_are_within_the_stated_bound(given_B: Any, is_positive_B: Any, per_octave: int):
    is_positive_B[:2] = True, False
    check(is_positive_B, given_B, per_octave)


@pytest.mark.parametrize("positive_frac", [0.5, 0.01])
@pytest.mark.parametrize("sharpness", [0.5, 3.0, 20.0])
def test_areas_of_a_model_s_probabilities_are_exact_to_three_digits(positive_frac: float, sharpness: float):
    random = np.random.default_rng(0)
    is_positive_B = random.random(20_000) < positive_frac
    logit_B = sharpness * (random.normal(size=20_000) + 1.5 * is_positive_B) + np.log(positive_frac)
    given_B = (1 / (1 + np.exp(-logit_B))).astype(np.float32)
    area_off, precision_off = check(is_positive_B, given_B, bins_per_octave(1))
    assert abs(area_off) < 5e-4 and abs(precision_off) < 2e-3


@given(arrays(np.float32, 50, elements=PROBABILITY), st.sampled_from([1, 16, 256]))
def test_bins_rise_with_the_probability(given_B: Any, per_octave: int):
    bins_B = bins_of(np.sort(given_B), per_octave)
    assert (np.diff(bins_B) >= 0).all()
    assert bins_B.min() >= 0 and bins_B.max() < 2 * OCTAVES * per_octave


def test_bins_tell_small_probabilities_and_those_near_one_apart():
    for given_2 in ([1e-8, 1.02e-8], [0.001, 0.00101], [0.3, 0.302], [0.6, 0.602], [0.999, 0.99902]):
        low, high = bins_of(np.array(given_2), 256)
        assert low < high


def test_ranking_of_equal_probabilities_is_a_coin():
    ((negative_N, positive_N),) = histograms(np.array([[True], [False], [False]]), np.full((3, 1), 0.4), 4)
    assert roc_auc(negative_N, positive_N) == 0.5 and pr_auc(negative_N, positive_N) == pytest.approx(1 / 3)


def test_ranking_without_positive_or_negative_rows_is_not_a_number():
    none_N, some_N = np.zeros(4, np.int64), np.arange(4)
    assert np.isnan(roc_auc(none_N, some_N)) and np.isnan(roc_auc(some_N, none_N)) and np.isnan(pr_auc(some_N, none_N))


@pytest.mark.parametrize("num_histograms", [1, 10, 100, 256])
def test_histograms_of_any_number_of_classes_stay_small(num_histograms: int):
    assert bins_per_octave(num_histograms) >= 8
    assert num_histograms * 2 * 2 * OCTAVES * bins_per_octave(num_histograms) <= MAX_COUNTS
