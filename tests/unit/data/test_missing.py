"""Missing values to values: the same as scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from raypipe.errors import DataError
from raypipe.records import Column
from tests.unit.data.transforms import CITIES, GAPPY, GAPS, exact, fit_one

HOLES = CITIES.copy()
HOLES[np.random.default_rng(1).random(500) < 0.2] = None


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_impute_of_numbers_equals_scikit_learn(strategy):
    fitted = fit_one(GAPPY, GAPS, {"kind": "impute", "columns": ["x"], "strategy": strategy})
    expected = SimpleImputer(strategy=strategy).fit_transform(GAPS[:, None])
    np.testing.assert_allclose(exact(fitted, GAPPY, GAPS), expected, atol=1e-12)


def test_impute_then_one_hot_of_text_equals_scikit_learn():
    column = Column(name="city", dtype="string", nullable=True)
    fitted = fit_one(
        column,
        HOLES,
        {"kind": "impute", "columns": ["city"], "strategy": "most_frequent"},
        {"kind": "one_hot", "columns": ["city"]},
    )
    imputer: Any = SimpleImputer(strategy="most_frequent").set_params(missing_values=None)
    expected = OneHotEncoder(sparse_output=False).fit_transform(imputer.fit_transform(HOLES[:, None]))
    assert (exact(fitted, column, HOLES) == expected).all()


def test_impute_constant_fills_what_it_was_told():
    number = fit_one(GAPPY, GAPS, {"kind": "impute", "columns": ["x"], "strategy": "constant", "value": -1.0})
    assert (exact(number, GAPPY, GAPS)[np.isnan(GAPS)] == -1.0).all()


def test_impute_with_nothing_to_learn_from_is_refused():
    with pytest.raises(DataError, match="no value of column 'x' in the train split"):
        fit_one(GAPPY, np.full(500, np.nan), {"kind": "impute", "columns": ["x"]})
