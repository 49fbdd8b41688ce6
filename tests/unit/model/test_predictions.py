"""Answers, apart from what gives them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from raypipe.model.predictions import Predictions


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(0, 3), (5,), (5, 3), (2, 4, 3)])
def test_ordinary_answers_are_finite(dtype: Any, shape: tuple[int, ...]):
    assert Predictions(None, np.ones(shape, dtype)).are_finite()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_very_large_answers_are_finite_and_one_that_is_not_is_found_wherever_it_lies(dtype: Any):
    largest = np.finfo(dtype).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in range(12):
            values = np.full((4, 3), largest, dtype)
            values[::2] = -largest
            assert Predictions(None, values).are_finite()
            for wrong in (np.nan, np.inf, -np.inf):
                for held in (values, np.ones_like(values)):
                    found = held.copy()
                    found.flat[place] = wrong
                    assert not Predictions(None, found).are_finite()
                    assert not Predictions(None, np.asfortranarray(found)).are_finite()
