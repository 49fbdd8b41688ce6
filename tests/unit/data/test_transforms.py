from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from raypipe.data.fitting import fit_columns
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.data import Transform

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(50.0, 3.0, 500)
GAPS = np.where(RANDOM.random(500) < 0.2, np.nan, RANDOM.integers(0, 5, 500).astype(float))
CITIES = np.array(["Bonn", "Köln", "Aachen", "10"], object)[RANDOM.integers(0, 4, 500)]
HOLES = CITIES.copy()
HOLES[RANDOM.random(500) < 0.2] = None
X = Column(name="x", dtype="float64")
GAPPY = Column(name="x", dtype="float64", nullable=True)
CITY = Column(name="city", dtype="string")
IMAGE = Column(name="image", dtype="uint8", shape=(4, 4))


def transforms(*specs):
    return [TypeAdapter(Transform).validate_python(spec) for spec in specs]


def fit_one(column, values, *specs, cuts=(100, 333)):
    shards = [{column.name: part} for part in np.split(values, list(cuts))]
    return fit_columns(transforms(*specs), [column], shards)


def exact(fitted, column, values):
    return fitted.apply_exact({column.name: values}, [column])


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


@pytest.mark.parametrize("strategy", ["mean", "most_frequent"])
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


@pytest.mark.parametrize("values", [CITIES, RANDOM.integers(-3, 4, 500)], ids=["text", "numbers"])
def test_one_hot_and_ordinal_equal_scikit_learn(values):
    column = CITY if values.dtype == object else Column(name="city", dtype="int64")
    hot = fit_one(column, values, {"kind": "one_hot", "columns": ["city"]})
    ordinal = fit_one(column, values, {"kind": "ordinal", "columns": ["city"]})
    assert (exact(hot, column, values) == OneHotEncoder(sparse_output=False).fit_transform(values[:, None])).all()
    assert (exact(ordinal, column, values) == OrdinalEncoder().fit_transform(values[:, None])).all()


def test_chained_transforms_are_fitted_in_order():
    fitted = fit_one(
        GAPPY,
        GAPS,
        {"kind": "scale", "columns": ["x"], "factor": 2.0, "offset": 1.0},
        {"kind": "impute", "columns": ["x"]},
        {"kind": "standardize", "columns": ["x"]},
    )
    filled = SimpleImputer().fit_transform(GAPS[:, None] * 2 + 1)
    np.testing.assert_allclose(exact(fitted, GAPPY, GAPS), StandardScaler().fit_transform(filled), atol=1e-12)


def test_impute_constant_fills_what_it_was_told():
    number = fit_one(GAPPY, GAPS, {"kind": "impute", "columns": ["x"], "strategy": "constant", "value": -1.0})
    assert (exact(number, GAPPY, GAPS)[np.isnan(GAPS)] == -1.0).all()


def test_unknown_category_is_refused_by_column_and_value():
    fitted = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"]})
    with pytest.raises(DataError, match=r"'city' holds 'Paris'.*Aachen"):
        fitted.apply({"city": np.array(["Bonn", "Paris"], object)}, [CITY])


def test_unknown_category_when_ignored_is_zeros_or_minus_one():
    new = np.array(["Paris", "10"], object)
    hot = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"], "unknown": "ignore"})
    ordinal = fit_one(CITY, CITIES, {"kind": "ordinal", "columns": ["city"], "unknown": "ignore"})
    assert hot.apply({"city": new}, [CITY]).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert ordinal.apply({"city": new}, [CITY]).tolist() == [[-1], [0]]


def test_number_larger_than_all_categories_is_unknown():
    column = Column(name="city", dtype="int64")
    fitted = fit_one(column, np.arange(500) % 3, {"kind": "ordinal", "columns": ["city"], "unknown": "ignore"})
    assert fitted.apply({"city": np.array([99, -1, 2])}, [column]).ravel().tolist() == [-1, -1, 2]


@pytest.mark.parametrize(("value", "found"), [(np.nan, "a missing value"), (np.inf, "inf")])
def test_value_that_is_no_finite_number_is_refused_by_column(value, found):
    with pytest.raises(DataError, match=f"'x' holds {found}"):
        FittedTransforms.from_state([]).apply({"x": np.array([1.0, value])}, [X])


def test_missing_category_is_refused_by_column():
    fitted = fit_one(CITY, CITIES, {"kind": "ordinal", "columns": ["city"]})
    with pytest.raises(DataError, match="'city' has a missing value"):
        fitted.apply({"city": np.array([None], object)}, [CITY])


def test_absent_column_is_refused_by_name():
    with pytest.raises(DataError, match="'x' is missing"):
        FittedTransforms.from_state([]).apply({"y": np.array([1.0])}, [X])


@pytest.mark.parametrize(
    ("column", "spec", "message"),
    [
        (CITY, {"kind": "standardize", "columns": ["city"]}, "standardize needs numbers, but column 'city' holds text"),
        (CITY, {"kind": "impute", "columns": ["city"]}, "impute needs numbers"),
        (IMAGE, {"kind": "one_hot", "columns": ["image"]}, "one_hot works on single values"),
        (X, {"kind": "impute", "columns": ["x"], "strategy": "constant", "value": "?"}, "'?' does not fit"),
        (CITY, {"kind": "impute", "columns": ["city"], "strategy": "most_frequent"}, "no transform makes numbers"),
    ],
)
def test_transform_that_does_not_fit_its_column_is_refused(column, spec, message):
    with pytest.raises(DataError) as caught:
        fit_columns(transforms(spec), [column], [])
    assert message in str(caught.value)


def test_impute_with_nothing_to_learn_from_is_refused():
    with pytest.raises(DataError, match="no value of column 'x' in the train split"):
        fit_one(GAPPY, np.full(500, np.nan), {"kind": "impute", "columns": ["x"]})


def test_state_survives_json():
    fitted = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]})
    again = FittedTransforms.from_state(json.loads(json.dumps(fitted.state())))
    assert (exact(again, X, NUMBERS) == exact(fitted, X, NUMBERS)).all()


def test_image_and_small_numbers_are_computed_in_float32_others_in_float64():
    scale = {"kind": "scale", "columns": ["image", "x"], "factor": 1 / 255}
    fitted = fit_columns(transforms(scale), [IMAGE, X], [])
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert fitted.column(pixels, IMAGE).dtype == np.float32
    assert fitted.column(pixels.astype(np.int64), IMAGE).dtype == np.float32
    assert fitted.column(np.array([1]), X).dtype == np.float64


def test_several_columns_are_joined_in_the_order_of_inputs():
    fitted = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"]})
    columns = {"city": CITIES[:2], "x": np.array([5.0, 6.0]), "image": np.ones((2, 4, 4), np.uint8)}
    done = fitted.apply(columns, [X, IMAGE, CITY])
    assert done.shape == (2, 1 + 16 + 4) and done[:, 0].tolist() == [5.0, 6.0]
    assert fitted.feature_shape([X, IMAGE, CITY]) == (21,)
    assert fitted.feature_shape([IMAGE]) == (4, 4) and fitted.feature_shape([X]) == (1,)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 500), max_size=5))
def test_apply_on_any_partition_equals_apply_on_all_rows(cuts):
    inputs = [GAPPY, CITY]
    columns = {"x": GAPS, "city": CITIES}
    fitted = fit_columns(
        transforms(
            {"kind": "impute", "columns": ["x"]},
            {"kind": "one_hot", "columns": ["city"]},
            {"kind": "standardize", "columns": ["x"]},
        ),
        inputs,
        [columns],
    )
    edges = [0, *sorted(cuts), 500]
    parts = [fitted.apply({n: v[a:b] for n, v in columns.items()}, inputs) for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == fitted.apply(columns, inputs)).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 500), max_size=4))
def test_fit_over_any_shards_agrees_to_rounding(cuts):
    whole = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]}, cuts=())
    cut = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]}, cuts=tuple(sorted(cuts)))
    for key in ("mean", "std"):
        np.testing.assert_allclose(
            cut.state()[0]["columns"]["x"][key], whole.state()[0]["columns"]["x"][key], rtol=1e-12
        )
