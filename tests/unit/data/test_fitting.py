"""Transforms are fitted on train, in as few passes over it as their order allows."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from raypipe.data.transforms import FittedTransforms, counting, statistics
from raypipe.data.transforms.fitting import FirstPass, contributions, fit
from raypipe.data.transforms.passes import may_refuse
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples
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
            contributions(before, group, shard, inputs, rows_before=int(start) if how.get("knows_rows_before") else 0)
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


@settings(max_examples=examples(40))
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
    found = [
        contributions(FittedTransforms(()), transforms(*specs), {"city": form}, [CITY]) for form in (plain, encoded)
    ]
    assert found[0] == found[1]
    assert found[1][-1]["city"].partial == {"a", "b"} and found[1][-1]["city"].num_rows == 4


def test_missing_value_among_encoded_text_is_refused():
    encoded = pa.array(["a", None]).dictionary_encode()
    with pytest.raises(DataError, match="column 'city' has a missing value"):
        contributions(FittedTransforms(()), transforms(HOT_CITY), {"city": encoded}, [CITY])


# --- bounds ----------------------------------------------------------------------------------------------------------

LISTS = [
    ({"kind": "one_hot", "columns": ["city"]}, "use a `hashing` transform for 'city'"),
    ({"kind": "ordinal", "columns": ["city"]}, "use a `hashing` transform for 'city'"),
    ({"kind": "impute", "columns": ["city"], "strategy": "most_frequent"}, "use strategy: constant"),
    ({"kind": "cross", "columns": ["city", "x"], "keep": False}, "set `num_buckets`"),
]


@pytest.fixture(scope="module")
def names() -> pa.Array:
    """A million different ones."""
    return pa.array(np.arange(1_000_000)).cast(pa.string())


@pytest.mark.parametrize(("spec", "hint"), LISTS, ids=lambda part: part["kind"] if isinstance(part, dict) else "")
@pytest.mark.parametrize("num_shards", [1, 40], ids=["in one shard", "only together"])
def test_more_values_than_a_list_may_hold_are_refused_before_they_take_memory(spec, hint, num_shards, names):
    step = len(names) // num_shards
    read = []

    def shards(before, group):
        for start in range(0, len(names), step):
            read.append(start)
            columns = {"city": names[start : start + step], "x": np.zeros(step)}
            yield contributions(before, group, columns, [CITY, X])

    specs = [spec] if spec["kind"] != "impute" else [spec, HOT_CITY]
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            fit(transforms(*specs), [CITY, X], shards)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "holds more than 50,000 different values" in caught.value.message
    assert spec["columns"][0] in caught.value.message and hint in caught.value.hint
    assert len(read) <= 3, "found as soon as the shards so far hold too many"
    assert peak_bytes < 40 * 2**20, "1,000,000 texts alone take 55 MiB as Python holds them"


@pytest.mark.parametrize("spec", [spec for spec, _ in LISTS], ids=lambda spec: spec["kind"])
def test_texts_too_long_to_be_categories_are_refused(spec):
    specs = [spec] if spec["kind"] != "impute" else [spec, HOT_CITY]
    columns = {"city": pa.array(["a", "b" * 1001]), "x": np.zeros(2)}
    with pytest.raises(DataError, match="which holds a text of more than 1,000 characters"):
        fit(transforms(*specs), [CITY, X], lambda before, group: [contributions(before, group, columns, [CITY, X])])


@pytest.mark.thorough
def test_fitting_holds_what_two_shards_contribute_at_most():
    """However many shards there are: 400 here, of which each tells 10,000 categories that are not new."""
    names = pa.array([f"city {i}" for i in range(10_000)])
    seen = []

    def shards(before, group):
        for _ in range(400):
            made = contributions(before, group, {"city": names}, [CITY])
            seen.append(weakref.ref(made[0]["city"]))
            yield made
            del made
            assert sum(ref() is not None for ref in seen) <= 2

    fitted = fit(transforms(HOT_CITY), [CITY], shards)
    assert len(seen) == 400 and len(fitted.state()[0]["columns"]["city"]["categories"]) == 10_000


def test_first_pass_puts_shards_together_as_they_are_written_and_knows_whether_enough_rows_came_before():
    specs = transforms(HOT_CITY, {"kind": "robust", "columns": ["x"]}, {"kind": "min_max", "columns": ["x"]})
    shards = [{"city": np.array([name] * 10, object), "x": np.arange(10.0) + i} for i, name in enumerate("abc")]

    def made(first: FirstPass, shard: dict[str, np.ndarray]):
        return contributions(FittedTransforms(()), first.group, shard, [CITY, X])

    first = FirstPass(specs)
    first.add("train", made(first, shards[0]), 10, 0)
    first.add("test", made(first, shards[1]), 10, 7)
    first.add("val", None, 10, 7)
    first.add("train", made(first, shards[2]), 10, 7)
    assert [transform.kind for transform in first.group] == ["one_hot", "robust"], "min_max waits for robust"
    assert first.train[0]["city"].partial == {"a", "c"} and first.others[0]["city"].partial == {"b"}
    assert first.train[1]["x"].num_rows == 20 and first.was_reckoned
    first.add("train", made(first, shards[1]), 10, 21)
    assert not first.was_reckoned, "it left out rows as if 21 were before it, and there are 20"
    assert first.train[0]["city"].partial == {"a", "b", "c"}


def test_tokens_beyond_those_that_are_kept_are_told_however_shards_are_put_together(monkeypatch):
    monkeypatch.setattr(counting, "MAX_COUNTED", 5)
    spec = {"kind": "tokens", "columns": ["city"], "tokenizer": "word", "max_length": 12, "max_vocabulary": 100}
    shards = [{"city": np.array([f"z z a{i} b{i} c{i} d{i}"], object)} for i in range(30)]
    fitted, _ = counted([spec], [CITY], shards)
    tokens = fitted.state()[0]["columns"]["city"]
    assert tokens["vocabulary"][0] == "z" and len(tokens["vocabulary"]) == counting.MERGED * 5
    assert tokens["max_missed"] == 26, "one in each of the shards whose words were one too many"
