"""Categories to numbers: the same as scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.testing.fakes import fit_columns
from tests.unit.data.transforms import CITIES, CITY, X, exact, fit_one, transforms

RANDOM = np.random.default_rng(1)

GOLDEN_BUCKETS = [277, 531, 55, 505]


def test_ordinal_in_an_order_of_ones_own_equals_scikit_learn():
    order = ["Köln", "10", "Bonn", "Aachen"]
    fitted = fit_one(CITY, CITIES, {"kind": "ordinal", "columns": ["city"], "categories": order})
    encoder: Any = OrdinalEncoder().set_params(categories=[order])
    expected = encoder.fit_transform(CITIES[:, None])
    assert (exact(fitted, CITY, CITIES) == expected).all()
    number = Column(name="n", dtype="int64")
    fitted = fit_one(number, np.arange(500) % 3, {"kind": "ordinal", "columns": ["n"], "categories": [2, 0, 1]})
    assert exact(fitted, number, np.arange(3)).ravel().tolist() == [1, 2, 0]


def test_hashing_puts_a_value_into_the_same_bucket_forever():
    spec = {"kind": "hashing", "columns": ["city"], "num_buckets": 1000, "output": "index"}
    cities = np.array(["Bonn", "Köln", "", "10"], object)
    assert exact(fit_one(CITY, cities, spec, cuts=()), CITY, cities).ravel().tolist() == GOLDEN_BUCKETS
    salted = exact(fit_one(CITY, cities, {**spec, "salt": "b"}, cuts=()), CITY, cities)
    assert salted.ravel().tolist() != GOLDEN_BUCKETS
    number = Column(name="city", dtype="int64")
    buckets = exact(fit_one(number, np.arange(500), spec), number, np.arange(10_000)).ravel()
    assert len(np.unique(buckets)) == 1000 and np.bincount(buckets.astype(int)).max() < 30


def test_learnt_cross_equals_scikit_learn_on_joined_text():
    numbers = RANDOM.integers(0, 3, 500)
    inputs = [CITY, Column(name="n", dtype="int64")]
    columns = {"city": CITIES, "n": numbers}
    spec = {"kind": "cross", "columns": ["city", "n"], "keep": False}
    fitted = fit_columns(transforms(spec), inputs, [columns])
    joined = np.array([f"{city}/{number}" for city, number in zip(CITIES, numbers, strict=True)], object)
    order = sorted(set(joined), key=lambda text: text.split("/"))
    encoder: Any = OneHotEncoder(sparse_output=False).set_params(categories=[order])
    assert (fitted.apply_exact(columns, inputs) == encoder.fit_transform(joined[:, None])).all()


def test_cross_comes_after_the_features_and_reads_columns_as_they_are_at_its_place():
    inputs = [X, CITY]
    columns = {"x": np.array([1.0, 9.0, 11.0]), "city": np.array(["Bonn", "Bonn", "Köln"], object)}
    fitted = fit_columns(
        transforms(
            {"kind": "bucketize", "columns": ["x"], "boundaries": [5, 10], "output": "index"},
            {"kind": "cross", "columns": ["x", "city"]},
            {"kind": "ordinal", "columns": ["city"]},
            {"kind": "min_max", "columns": ["x"]},
        ),
        inputs,
        [columns],
    )
    assert fitted.state()[1]["columns"] == {"x x city": {"categories": [[0.0, "Bonn"], [1.0, "Bonn"], [2.0, "Köln"]]}}
    assert fitted.apply_exact(columns, inputs).tolist() == [
        [0, 0, 1, 0, 0],
        [0.5, 0, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_cross_of_known_values_in_a_new_combination_is_unknown():
    inputs = [CITY, Column(name="flag", dtype="bool")]
    columns = {"city": np.array(["Bonn", "Köln"], object), "flag": np.array([True, False])}
    new = {"city": columns["city"], "flag": ~columns["flag"]}
    spec = {"kind": "cross", "columns": ["city", "flag"], "keep": False, "output": "index"}
    with pytest.raises(DataError, match=r"'city x flag' holds \('Bonn', 0\.0\), a category that train has not"):
        fit_columns(transforms(spec), inputs, [columns]).apply(new, inputs)
    ignoring = fit_columns(transforms({**spec, "unknown": "ignore"}), inputs, [columns])
    assert ignoring.apply(new, inputs).tolist() == [[-1], [-1]]


@pytest.mark.parametrize("values", [CITIES, RANDOM.integers(-3, 4, 500)], ids=["text", "numbers"])
def test_one_hot_and_ordinal_equal_scikit_learn(values):
    column = CITY if values.dtype == object else Column(name="city", dtype="int64")
    hot = fit_one(column, values, {"kind": "one_hot", "columns": ["city"]})
    ordinal = fit_one(column, values, {"kind": "ordinal", "columns": ["city"]})
    assert (exact(hot, column, values) == OneHotEncoder(sparse_output=False).fit_transform(values[:, None])).all()
    assert (exact(ordinal, column, values) == OrdinalEncoder().fit_transform(values[:, None])).all()


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


def test_missing_category_is_refused_by_column():
    fitted = fit_one(CITY, CITIES, {"kind": "ordinal", "columns": ["city"]})
    with pytest.raises(DataError, match="'city' has a missing value"):
        fitted.apply({"city": np.array([None], object)}, [CITY])
