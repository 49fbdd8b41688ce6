from __future__ import annotations

import json
import math
import re
import warnings
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

from raypipe.data.fitting import fit, may_refuse, partials
from raypipe.data.transforms import FittedTransforms, statistics
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import Transform
from raypipe.testing.fakes import fit_columns

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(50.0, 3.0, 500)
GAPS = np.where(RANDOM.random(500) < 0.2, np.nan, RANDOM.integers(0, 5, 500).astype(float))
CITIES = np.array(["Bonn", "Köln", "Aachen", "10"], object)[RANDOM.integers(0, 4, 500)]
HOLES = CITIES.copy()
HOLES[RANDOM.random(500) < 0.2] = None
X = Column(name="x", dtype="float64")
GAPPY = Column(name="x", dtype="float64", nullable=True)
CITY = Column(name="city", dtype="string")
GOLDEN_BUCKETS = [277, 531, 55, 505]
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


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_impute_of_numbers_equals_scikit_learn(strategy):
    fitted = fit_one(GAPPY, GAPS, {"kind": "impute", "columns": ["x"], "strategy": strategy})
    expected = SimpleImputer(strategy=strategy).fit_transform(GAPS[:, None])
    np.testing.assert_allclose(exact(fitted, GAPPY, GAPS), expected, atol=1e-12)


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


@settings(deadline=None, max_examples=100)
@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60) | st.none())
def test_date_parts_equal_those_of_the_standard_library(when, offset_min):
    zone = None if offset_min is None else timezone(timedelta(minutes=offset_min))
    column = Column(name="t", dtype="string")
    parts = ["year", "quarter", "month", "day", "day_of_year", "weekday", "hour", "minute", "second"]
    fitted = fit_one(column, np.array([], object), {"kind": "date_parts", "columns": ["t"], "parts": parts}, cuts=())
    utc = when.replace(tzinfo=zone or timezone.utc).astimezone(timezone.utc)
    quarter, day_of_year = (utc.month + 2) // 3, utc.timetuple().tm_yday
    expected = [utc.year, quarter, utc.month, utc.day, day_of_year, utc.weekday(), utc.hour, utc.minute, utc.second]
    written = when.replace(tzinfo=zone).isoformat()
    for text in (written, written.replace("T", " ")):
        assert exact(fitted, column, np.array([text], object)).tolist() == [expected]
    seconds = Column(name="t", dtype="int64")
    since_1970 = (utc - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1)
    assert exact(fitted, seconds, np.array([since_1970])).tolist() == [expected]


def test_cyclical_date_parts_lie_on_a_circle():
    column = Column(name="t", dtype="string")
    spec = {"kind": "date_parts", "columns": ["t"], "parts": ["year", "month"], "cyclical": True}
    fitted = fit_one(column, np.array([], object), spec, cuts=())
    done = exact(fitted, column, np.array(["2024-01-31", "2023-12-01", "2024-07-01"], object))
    np.testing.assert_allclose(done[:, 1:], [[0, 1], [-0.5, 0.75**0.5], [0, -1]], atol=1e-12)
    assert done[:, 0].tolist() == [2024, 2023, 2024]


@pytest.mark.parametrize("text", ["", "yesterday", "2024-02-30", "24-01-01", "2024-01-01T25:00:00", "2024-01-01 Paris"])
def test_text_that_is_no_date_is_refused_by_value(text):
    column = Column(name="t", dtype="string")
    days = np.array(["2024-01-01"] * 70 + [text] + ["2024-01-01"] * 29, object)
    with pytest.raises(DataError, match=f"'t' holds {re.escape(repr(text))}, which is no date"):
        fit_one(column, days, {"kind": "date_parts", "columns": ["t"]}, cuts=())


def test_milliseconds_taken_for_seconds_are_refused():
    column = Column(name="t", dtype="int64")
    with pytest.raises(DataError, match=r"(?s)'t' holds 1700000000000;.*milliseconds"):
        fit_one(column, np.array([1_700_000_000_000]), {"kind": "date_parts", "columns": ["t"]}, cuts=())


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


def counted(specs, inputs, shards, **how):
    """What is fitted, and in how many passes."""
    passes = []

    def run(before, group):
        passes.append(group)
        starts = np.cumsum([0, *(len(next(iter(shard.values()))) for shard in shards)])
        return [
            partials(before, group, shard, inputs, rows_before=int(start) if how.get("knows_rows_before") else 0)
            for start, shard in zip(starts, shards, strict=False)
        ]

    return fit(transforms(*specs), inputs, run), len(passes)


AFTER_IMPUTE = [
    ([{"kind": "standardize"}], StandardScaler()),
    ([{"kind": "min_max"}], MinMaxScaler()),
    ([{"kind": "robust"}], RobustScaler()),
    ([{"kind": "one_hot"}], OneHotEncoder(sparse_output=False)),
    (
        [{"kind": "scale", "factor": 2.0}, {"kind": "log", "offset": 3.0}, {"kind": "standardize"}],
        make_pipeline(FunctionTransformer(lambda x: np.log(2 * x + 3)), StandardScaler()),
    ),
]


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
@pytest.mark.parametrize(("specs", "expected"), AFTER_IMPUTE, ids=lambda part: str(part)[:40])
def test_what_follows_impute_is_fitted_in_the_same_pass_and_equals_scikit_learn(specs, expected, strategy):
    specs = [{"kind": "impute", "strategy": strategy}, *specs]
    shards = [{"x": part} for part in np.split(GAPS, [100, 100, 333])]
    fitted, num_passes = counted([{**spec, "columns": ["x"]} for spec in specs], [GAPPY], shards)
    assert num_passes == 1
    filled = SimpleImputer(strategy=strategy).fit_transform(GAPS[:, None])
    np.testing.assert_allclose(exact(fitted, GAPPY, GAPS), expected.fit_transform(filled), atol=1e-12)


def test_passes_are_as_many_as_transforms_of_one_column_wait_for_each_other():
    other = Column(name="y", dtype="float64")
    shards = [{"x": GAPS, "y": NUMBERS, "city": CITIES}]
    impute, standard = {"kind": "impute", "columns": ["x"]}, {"kind": "standardize", "columns": ["x", "y"]}
    hot = {"kind": "one_hot", "columns": ["city"]}
    cross = {"kind": "cross", "columns": ["x", "city"]}
    robust = {"kind": "robust", "columns": ["y", "x"]}
    scale = {"kind": "scale", "columns": ["x", "y"]}
    inputs = [GAPPY, other, CITY]
    assert counted([impute, standard, hot], inputs, shards)[1] == 1
    assert counted([standard, hot, robust], inputs, shards)[1] == 2
    assert counted([impute, standard, robust, hot], inputs, shards)[1] == 2
    assert counted([hot, scale, standard], inputs, shards)[1] == 1
    assert counted([impute, cross, hot, scale, standard], inputs, shards)[1] == 2  # which row lacks x matters
    assert counted([{"kind": "hashing", "columns": ["city"], "num_buckets": 3}, scale], inputs, shards)[1] == 0


def test_transform_cut_over_two_passes_keeps_its_place():
    inputs = [X, Column(name="y", dtype="float64")]
    shards = [{"x": NUMBERS, "y": GAPS}]
    specs = [{"kind": "robust", "columns": ["x"]}, {"kind": "standardize", "columns": ["x", "y"]}]
    fitted, num_passes = counted([*specs, {"kind": "min_max", "columns": ["y"]}], inputs, shards)
    assert num_passes == 2
    assert [state["kind"] for state in fitted.state()] == ["robust", "standardize", "min_max"]
    assert list(fitted.state()[1]["columns"]) == ["x", "y"]
    scaled = StandardScaler().fit_transform(RobustScaler().fit_transform(NUMBERS[:, None]))
    np.testing.assert_allclose(fitted.column(NUMBERS, X)[:, None], scaled, atol=1e-12)
    scaled = MinMaxScaler().fit_transform(StandardScaler().fit_transform(GAPS[:, None]))
    np.testing.assert_allclose(fitted.column(GAPS, inputs[1])[:, None], scaled, atol=1e-12)


@pytest.mark.parametrize("knows_rows_before", [False, True])
def test_quantiles_of_many_rows_come_from_the_first_shards_that_are_enough(monkeypatch, knows_rows_before):
    monkeypatch.setattr(statistics, "MAX_EXACT", 120)
    shards = [{"x": part} for part in np.split(GAPS, [50, 100, 250])]
    specs = [{"kind": "impute", "columns": ["x"], "strategy": "median"}, {"kind": "robust", "columns": ["x"]}]
    fitted, num_passes = counted(specs, [GAPPY], shards, knows_rows_before=knows_rows_before)
    assert num_passes == 1
    sample = GAPS[:220]  # the third shard gives its first 120 rows
    impute, robust = (state["columns"]["x"] for state in fitted.state())
    assert impute == {"fill": np.nanmedian(sample), "num_sampled": int((~np.isnan(sample)).sum())}
    low, median, high = np.quantile(np.where(np.isnan(sample), impute["fill"], sample), [0.25, 0.5, 0.75])
    assert robust == {"median": median, "width": high - low, "num_sampled": 220}


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
        (CITY, {"kind": "log", "columns": ["city"]}, "log needs numbers"),
        (IMAGE, {"kind": "robust", "columns": ["image"]}, "robust works on single values"),
        (GAPPY, {"kind": "one_hot", "columns": ["x"]}, "put the `impute` transform of 'x' before its one_hot"),
        (CITY, {"kind": "ordinal", "columns": ["city"], "categories": [1, 2]}, "do not fit column 'city' of string"),
    ],
)
def test_transform_that_does_not_fit_its_column_is_refused(column, spec, message):
    with pytest.raises(DataError) as caught:
        fit_columns(transforms(spec), [column], [])
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["standardize", "min_max", "robust", "one_hot"])
def test_fit_without_a_train_row_is_refused(kind):
    with pytest.raises(DataError, match="no value of column 'x' in the train split"):
        fit_columns(transforms({"kind": kind, "columns": ["x"]}), [X], [])


def test_impute_with_nothing_to_learn_from_is_refused():
    with pytest.raises(DataError, match="no value of column 'x' in the train split"):
        fit_one(GAPPY, np.full(500, np.nan), {"kind": "impute", "columns": ["x"]})


@pytest.mark.parametrize("first", ["one_hot", "bucketize", "hashing"])
def test_transform_after_one_that_makes_arrays_is_refused_before_any_row_is_read(first):
    spec = {"kind": first, "columns": ["x"], **({} if first == "one_hot" else {"num_buckets": 3})}
    with pytest.raises(DataError, match="ordinal works on single values"):
        fit_columns(transforms(spec, {"kind": "ordinal", "columns": ["x"]}), [X], [])


def test_val_and_test_are_tried_only_where_a_transform_may_refuse_them():
    scale = {"kind": "scale", "columns": ["x"]}
    for spec in ({"kind": "one_hot"}, {"kind": "log"}, {"kind": "date_parts"}):
        assert may_refuse(transforms(scale, {**spec, "columns": ["x"]}))
    ignoring = {"kind": "one_hot", "columns": ["x"], "unknown": "ignore"}
    hashed = {"kind": "cross", "columns": ["x", "y"], "num_buckets": 3}
    assert not may_refuse(transforms(scale, ignoring, hashed))


def test_state_of_a_kind_from_a_newer_raypipe_is_refused_by_name():
    with pytest.raises(DataError, match="a transform 'warp', which this raypipe does not know"):
        FittedTransforms.from_state([{"kind": "warp", "columns": {"x": {}}}])


def test_text_with_half_a_character_is_refused_by_column():
    fitted = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"]})
    with pytest.raises(DataError, match="'city' holds a value that is no valid text"):
        fitted.apply({"city": np.array(["\ud800"], object)}, [CITY])


def test_text_may_come_as_arrow_or_as_objects():
    fitted = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"]})
    chunked = pa.chunked_array([pa.array(CITIES[:7]), pa.array(CITIES[7:])])
    for text in (chunked, chunked.combine_chunks()):
        assert (exact(fitted, CITY, text) == exact(fitted, CITY, CITIES)).all()


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
