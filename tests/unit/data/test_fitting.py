"""Transforms are fitted on train, in as few passes over it as their order allows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from raypipe.data.transforms import FittedTransforms, statistics
from raypipe.data.transforms.fitting import fit, may_refuse, partials
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.testing.fakes import fit_columns
from tests.unit.data.transforms import CITIES, CITY, GAPPY, GAPS, IMAGE, NUMBERS, X, exact, fit_one, transforms


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
    monkeypatch.setattr(statistics, "MAX_EXACT", 120)  # fewer than there are rows
    shards = [{"x": part} for part in np.split(GAPS, [50, 100, 250])]
    specs = [{"kind": "impute", "columns": ["x"], "strategy": "median"}, {"kind": "robust", "columns": ["x"]}]
    fitted, num_passes = counted(specs, [GAPPY], shards, knows_rows_before=knows_rows_before)
    assert num_passes == 1
    sample = GAPS[:220]  # the third shard gives its first 120 rows
    impute, robust = (state["columns"]["x"] for state in fitted.state())
    assert impute == {"fill": np.nanmedian(sample), "num_sampled": int((~np.isnan(sample)).sum())}
    low, median, high = np.quantile(np.where(np.isnan(sample), impute["fill"], sample), [0.25, 0.5, 0.75])
    assert robust == {"median": median, "width": high - low, "num_sampled": 220}


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


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 500), max_size=4))
def test_fit_over_any_shards_agrees_to_rounding(cuts):
    whole = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]}, cuts=())
    cut = fit_one(X, NUMBERS, {"kind": "standardize", "columns": ["x"]}, cuts=tuple(sorted(cuts)))
    for key in ("mean", "std"):
        np.testing.assert_allclose(
            cut.state()[0]["columns"]["x"][key], whole.state()[0]["columns"]["x"][key], rtol=1e-12
        )


IMPUTE_CITY = {"kind": "impute", "columns": ["city"], "strategy": "most_frequent"}
HOT_CITY = {"kind": "one_hot", "columns": ["city"]}


@pytest.mark.parametrize(("specs", "last"), [([HOT_CITY], 0), ([IMPUTE_CITY, HOT_CITY], None)])
def test_categories_of_encoded_text_are_those_that_rows_have(specs, last):
    plain = pa.array(["b", "a", "b", "a" if last == 0 else None])
    index = pa.array([2, 0, 2, last], pa.int8())
    encoded = pa.DictionaryArray.from_arrays(index, pa.array(["a", "x", "b"]))
    found = [partials(FittedTransforms(()), transforms(*specs), {"city": form}, [CITY]) for form in (plain, encoded)]
    assert found[0] == found[1]
    assert found[1][-1]["city"].found == {"a", "b"} and found[1][-1]["city"].num_rows == 4


def test_missing_value_among_encoded_text_is_refused():
    encoded = pa.array(["a", None]).dictionary_encode()
    with pytest.raises(DataError, match="column 'city' has a missing value"):
        partials(FittedTransforms(()), transforms(HOT_CITY), {"city": encoded}, [CITY])
