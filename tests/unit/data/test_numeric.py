"""Numbers to numbers: the same as scikit-learn."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, StandardScaler

from raypipe.errors import DataError
from raypipe.records import Column
from tests.unit.data.transforms import GAPPY, GAPS, IMAGE, NUMBERS, X, exact, fit_one

RANDOM = np.random.default_rng(1)


def test_standardize_equals_scikit_learn():
    fitted = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]})
    np.testing.assert_allclose(exact(fitted, X, NUMBERS), StandardScaler().fit_transform(NUMBERS[:, None]), atol=1e-12)


def test_standardize_of_a_constant_column_only_centres_it():
    values = np.full(500, 0.1)
    fitted = fit_one(X, values, {"kind": "standardize", "columns": ["x"]})
    np.testing.assert_allclose(exact(fitted, X, values + 2), 2.0)


def test_standardize_of_a_vector_works_by_feature_and_equals_scikit_learn():
    column = Column(name="v", dtype="float64", shape=(3,))
    values = RANDOM.normal([0, 5, -3], [1, 10, 0.1], (500, 3))
    fitted = fit_one(column, values, {"kind": "standardize", "columns": ["v"]})
    np.testing.assert_allclose(exact(fitted, column, values), StandardScaler().fit_transform(values), atol=1e-12)


def test_standardize_of_an_image_has_one_mean_over_all_pixels():
    pixels = RANDOM.integers(0, 256, (500, 4, 4), np.uint8)
    fitted = fit_one(IMAGE, pixels, {"kind": "standardize", "columns": ["image"]})
    done = fitted.apply({"image": pixels}, [IMAGE])
    assert done.shape == (500, 4, 4) and done.dtype == np.float32
    np.testing.assert_allclose([done.mean(), done.std()], [0, 1], atol=1e-5)


SCALERS = [
    ({"kind": "standardize"}, StandardScaler()),
    ({"kind": "min_max"}, MinMaxScaler()),
    ({"kind": "min_max", "feature_range": [-2, 5]}, MinMaxScaler(feature_range=(-2, 5))),
    ({"kind": "robust"}, RobustScaler()),
    ({"kind": "robust", "quantile_range": [0.1, 0.7]}, RobustScaler(quantile_range=(10.0, 70.0))),
]


@pytest.mark.parametrize("values", [NUMBERS, GAPS, np.full(500, 0.1)], ids=["all there", "gaps", "constant"])
@pytest.mark.parametrize(("spec", "scaler"), SCALERS, ids=lambda part: str(part))
def test_scaling_equals_scikit_learn_with_and_without_gaps(spec, scaler, values):
    fitted = fit_one(GAPPY, values, {**spec, "columns": ["x"]})
    np.testing.assert_allclose(fitted.column(values, GAPPY)[:, None], scaler.fit_transform(values[:, None]), atol=1e-12)
    new = np.array([-1e3, 0.0, 1e3])
    np.testing.assert_allclose(fitted.column(new, GAPPY)[:, None], scaler.transform(new[:, None]), rtol=1e-12)


def test_min_max_of_a_vector_works_by_feature_and_equals_scikit_learn():
    column = Column(name="v", dtype="float64", shape=(3,))
    values = RANDOM.normal([0, 5, -3], [1, 10, 0.1], (500, 3))
    fitted = fit_one(column, values, {"kind": "min_max", "columns": ["v"]})
    np.testing.assert_allclose(exact(fitted, column, values), MinMaxScaler().fit_transform(values), atol=1e-12)


@pytest.mark.parametrize("output", ["one_hot", "index"])
@pytest.mark.parametrize("values", [NUMBERS, RANDOM.integers(0, 5, 500)], ids=["distinct", "repeated"])
def test_bucketize_by_quantile_equals_scikit_learn(values, output):
    fitted = fit_one(X, values, {"kind": "bucketize", "columns": ["x"], "num_buckets": 4, "output": output})
    encode = {"one_hot": "onehot-dense", "index": "ordinal"}[output]
    bins: Any = KBinsDiscretizer(4, encode=encode, strategy="quantile", quantile_method="linear")
    new = np.concatenate([values, [-1e9, 1e9]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where values repeat and buckets are fewer
        expected = bins.fit(values[:, None]).transform(new[:, None])
    assert (exact(fitted, X, new) == expected).all()


def test_bucketize_by_boundaries_puts_a_boundary_into_the_interval_above_it():
    spec = {"kind": "bucketize", "columns": ["x"], "boundaries": [0, 10], "output": "index"}
    fitted = fit_one(X, NUMBERS, spec)
    assert exact(fitted, X, np.array([-0.1, 0.0, 9.9, 10.0, 1e9])).ravel().tolist() == [0, 1, 1, 2, 2]


def test_clip_by_quantiles_ends_at_those_of_train():
    fitted = fit_one(GAPPY, GAPS, {"kind": "clip", "columns": ["x"], "quantile_range": [0.2, 0.9]})
    low, high = np.nanquantile(GAPS, [0.2, 0.9])
    expected = np.clip([-9.0, 2.0, 9.0], low, high)
    np.testing.assert_allclose(fitted.column(np.array([-9.0, 2.0, 9.0]), GAPPY), expected, atol=1e-12)


def test_clip_with_one_end_leaves_the_other_open():
    fitted = fit_one(X, NUMBERS, {"kind": "clip", "columns": ["x"], "min": 0})
    assert exact(fitted, X, np.array([-5.0, 1e9])).ravel().tolist() == [0, 1e9]


@pytest.mark.parametrize("offset", [1.0, 0.5])
def test_log_is_the_natural_logarithm_of_x_plus_offset(offset):
    fitted = fit_one(X, NUMBERS, {"kind": "log", "columns": ["x"], "offset": offset})
    expected = [math.log(value + offset) for value in NUMBERS]
    np.testing.assert_allclose(exact(fitted, X, NUMBERS).ravel(), expected, rtol=1e-14)


def test_log_of_too_small_a_value_is_refused_by_column_and_value_in_train_and_later():
    spec = {"kind": "log", "columns": ["x"], "offset": 2}
    with pytest.raises(DataError, match="'x' holds -2; log with offset 2 takes values above -2"):
        fit_one(X, np.append(NUMBERS, -2.0), spec)
    with pytest.raises(DataError, match="'x' holds -3"):
        exact(fit_one(X, NUMBERS, spec), X, np.array([1.0, -3.0]))
