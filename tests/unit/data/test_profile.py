from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from raypipe.data.profile import parts, profile
from raypipe.data.profile.drift import drift, psi
from raypipe.data.table.row_hash import row_hash
from raypipe.data.table.sums import CHUNK_VALUES, Sums, sums
from raypipe.records import DataProfile

NAN = float("nan")


def as_values(columns):
    return {n: pa.array(v, pa.string()) if isinstance(v, list) else np.asarray(v) for n, v in columns.items()}


def profiled(columns, cuts=(), version="v1"):
    values = as_values(columns)
    row_id = row_hash(values)
    edges = [0, *cuts, len(row_id)]
    found = [parts.part({n: v[a:b] for n, v in values.items()}, row_id[a:b]) for a, b in pairwise(edges)]
    whole = parts.merge(found)
    return DataProfile(name="d", version=version, num_rows=whole.num_rows, columns=profile.finish(whole))


def column(values, **kwargs):
    (found,) = profiled({"a": values}, **kwargs).columns
    return found


def small_sample(monkeypatch, rows=50, distinct=20):
    """Bounds that a few rows go beyond."""
    monkeypatch.setattr(parts, "SAMPLE_ROWS", rows)
    monkeypatch.setattr(parts, "MAX_DISTINCT", distinct)


# --- sums ------------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.floats(-10, 10), st.just(0.0))


def assert_close(found: Sums, values: list[Any]):
    """Mean and deviation of the values, as fractions tell them, to a part in 10**14 of their spread and size."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    unit = Fraction(2) ** 2200  # whose root is a float where the variance is none
    spread = Fraction(math.isqrt(int(variance * unit)), 2**1100)
    assert found.mean is not None and found.std is not None and found.count == len(values)
    size = max(map(abs, exact))
    assert abs(Fraction(found.mean) - mean) <= Fraction(1e-14) * spread + size / 2**53 + Fraction(5e-324)
    assert abs(Fraction(found.std) - spread) <= Fraction(1e-14) * spread + size / 2**52 + Fraction(5e-324)


@given(st.lists(numbers, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_sums_of_floats_are_close_to_those_of_fractions_however_they_are_cut(values, cuts):
    pieces = [sums(piece) for piece in np.split(np.array(values), sorted(cuts))]
    whole = sum(pieces, Sums())
    assert_close(whole, values)
    assert sum(reversed(pieces), Sums()) == sum(pieces[::2], Sums()) + sum(pieces[1::2], Sums()) == whole


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_sums_of_whole_numbers_are_close_to_those_of_python(dtype):
    rng = np.random.default_rng(0)
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = np.concatenate([rng.integers(low, high, 7_000, dtype, endpoint=True), np.array([low, high], dtype)])
    assert_close(sums(values), values.tolist())


@pytest.mark.parametrize("value", [0.1, 2.0**53 + 2, -1e308, 5e-324])
def test_sums_of_equal_values_have_that_mean_and_no_spread(value):
    found = sums(np.full(CHUNK_VALUES + 5, value))
    assert (found.mean, found.std) == (value, 0.0)


@pytest.mark.parametrize("shift", [0.0, 1.6e9, 1e15])
def test_mean_and_std_hold_where_the_usual_formulas_lose_their_digits(shift):
    values = np.random.default_rng(0).normal(size=300_000) + shift
    found = sums(values)
    assert found.mean == pytest.approx(math.fsum(values) / len(values), rel=2**-52, abs=1e-15)
    assert found.std == pytest.approx(np.std(values - shift), rel=1e-13)
    scaler = StandardScaler().fit(values[:, None] - shift)
    (scale,) = np.asarray(scaler.scale_)
    assert found.std == pytest.approx(float(scale), rel=1e-12)


# --- one column ------------------------------------------------------------------------------------------------------


def test_profile_of_numbers_counts_what_is_there():
    found = column(np.array([1.5, NAN, 0.0, -2.0, float("inf"), 1.5]))
    assert (found.count, found.nulls, found.infinite, found.zeros, found.distinct) == (6, 1, 1, 1, 3)
    assert (found.min, found.max, found.mean) == (-2.0, 1.5, 0.25)
    assert [(top.value, top.count) for top in found.top] == [(1.5, 2), (-2.0, 1), (0.0, 1)]
    assert found.is_exact and found.counted == 4


def test_profile_of_text_counts_lengths_and_values():
    found = column(["b", "a", None, "äö", "a"])
    assert found.lengths is not None
    assert (found.lengths.min, found.lengths.max, found.lengths.mean) == (1, 2, 1.25)
    assert [(top.value, top.count) for top in found.top] == [("a", 2), ("b", 1), ("äö", 1)]
    assert (found.count, found.nulls, found.distinct, found.min) == (5, 1, 3, None)


def test_profile_of_arrays_covers_all_their_values():
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    found = column(image)
    assert (found.shape, found.count, found.min, found.max, found.mean) == ((2, 3), 24, 0, 23, 11.5)
    assert found.std == pytest.approx(image.std()) and not found.top and found.histogram is None


@pytest.mark.parametrize("values", [np.array([NAN, NAN]), np.array([], np.int64), [None, None], []])
def test_profile_of_a_column_without_values_is_empty_and_no_error(values):
    found = column(values)
    assert (found.mean, found.min, found.quantiles, found.histogram, found.lengths) == (None, None, {}, None, None)
    assert found.nulls == found.count == len(values) and found.distinct == 0 and not found.top


def test_profile_of_whole_numbers_keeps_them_whole():
    found = column(np.array([2**62 + 1, -(2**62), 5]))
    assert (found.min, found.max) == (-(2**62), 2**62 + 1) and isinstance(found.top[0].value, int)
    narrow = column(np.array([-128, 127, 127], np.int8))
    assert [(top.value, top.count) for top in narrow.top] == [(127, 2), (-128, 1)]


def test_profile_survives_the_largest_floats():
    found = column(np.array([1.7e308, -1.7e308, 5e-324]))
    assert found.histogram is None and found.std == pytest.approx(1.388e308, rel=1e-3)


def test_long_text_is_cut_in_the_profile_and_not_counted():
    found = column(["x" * 100_000, "y"])
    assert found.distinct is None and len(str(found.top[0].value)) == parts.SHOWN_TEXT
    assert found.lengths is not None and found.lengths.max == 100_000


def test_profile_is_the_same_after_it_was_stored():
    whole = profiled({"a": np.array([1, 2, 2]), "b": ["x", None, "y"], "c": np.array([True, False, True])})
    assert DataProfile.model_validate_json(whole.to_json()) == whole


def test_dictionary_encoded_text_has_the_same_profile():
    values = {"a": pa.array(["b", "a", None, "b"] * 5)}
    row_id = row_hash(values)
    encoded = pa.DictionaryArray.from_arrays(
        pa.array([1, 2, None, 1] * 5, pa.int32()), pa.array(["not used", "b", "a"])
    )
    plain, other = parts.part(values, row_id), parts.part({"a": encoded}, row_id)
    assert profile.finish(parts.merge([plain, other])) == profile.finish(parts.merge([plain, plain]))


# --- against second opinions -----------------------------------------------------------------------------------------


def test_quantiles_and_histogram_equal_those_of_numpy():
    values = np.random.default_rng(0).normal(size=5000).round(2)
    found = column(values)
    for q, value in found.quantiles.items():
        assert value == np.quantile(values, float(q), method="inverted_cdf")
    counts, edges = np.histogram(values, 20)
    assert found.histogram is not None
    assert found.histogram.counts == tuple(counts) and found.histogram.edges == pytest.approx(edges)


def test_sample_of_more_rows_than_fit_is_close_to_all_of_them_and_says_so():
    values = np.random.default_rng(0).normal(size=100_000)
    found = column(values)
    assert not found.is_exact and found.counted == parts.SAMPLE_ROWS and found.distinct is None
    for q in ("0.05", "0.5", "0.95"):
        share = (values <= found.quantiles[q]).mean()
        assert share == pytest.approx(float(q), abs=0.02)
    assert found.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-15)


def test_sample_counts_copies_of_a_row_so_that_repeated_rows_do_not_crowd_it():
    values = np.repeat(np.arange(2000.0), 50)
    found = column(values)
    assert found.distinct is None and found.is_exact and found.counted == 100_000
    assert found.quantiles["0.5"] == np.quantile(values, 0.5, method="inverted_cdf")


def test_distinct_values_are_exact_up_to_the_bound_and_unknown_above():
    assert column(np.arange(1000) % 1000 * 1.5).distinct == 1000
    assert column(np.arange(1001) * 1.5).distinct is None
    assert column(np.arange(2000) % 1001).distinct is None
    assert column([f"{i}" for i in range(1001)]).distinct is None
    assert column([None, *(f"{i}" for i in range(1000))]).distinct == 1000, "a missing value is none of them"


# --- any cut ---------------------------------------------------------------------------------------------------------


def assert_same(found: DataProfile, expected: DataProfile):
    """To the bit, but for mean and deviation of values that were summed up in other parts."""
    for one, other in zip(found.columns, expected.columns, strict=True):
        if one.mean is None or one.std is None or other.mean is None or other.std is None:
            assert (one.mean, one.std) == (other.mean, other.std) == (None, None)
        else:
            assert one.mean == pytest.approx(other.mean, rel=1e-12, abs=1e-12 * other.std)
            assert one.std == pytest.approx(other.std, rel=1e-12, abs=1e-12 * abs(other.mean))
        plain = {"mean": None, "std": None}
        assert one.model_copy(update=plain).to_json() == other.model_copy(update=plain).to_json()


rows = st.lists(
    st.tuples(
        st.one_of(st.just(NAN), st.floats(-5, 5), st.sampled_from([-0.0, 0.0, 0.1, 0.2, 1e20, 1e-20, float("inf")])),
        st.integers(-(2**40), 2**40),
        st.integers(0, 5),
        st.one_of(st.none(), st.sampled_from(["a", "b", "x" * 300]), st.text(max_size=3)),
        st.booleans(),
    ),
    min_size=1,
    max_size=80,
)


@given(rows, st.data())
def test_any_cut_into_blocks_gives_an_equal_profile(rows, data):
    floats, wide, narrow, texts, truth = zip(*rows, strict=True)
    columns = {"f": np.array(floats), "w": np.array(wide), "n": np.array(narrow, np.uint8), "t": list(texts)}
    columns |= {"b": np.array(truth), "v": np.array(floats)[:, None] * [1.0, 2.0]}
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    with pytest.MonkeyPatch.context() as patch:
        small_sample(patch, rows=12, distinct=8)
        whole = profiled(columns)
        assert_same(profiled(columns, cuts), whole)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_any_order_of_rows_and_of_merging_gives_an_equal_profile(values, random):
    with pytest.MonkeyPatch.context() as patch:
        small_sample(patch, rows=10, distinct=5)
        shuffled = random.sample(values, len(values))
        cut = len(values) // 2
        assert_same(*(profiled({"a": np.array(v)}, cuts=c) for v, c in ((shuffled, [cut]), (values, ()))))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_profile_agrees_with_a_loop_over_values(values):
    found = column(np.array(values))
    counts = Counter(values)
    assert {top.value: top.count for top in found.top} == counts and found.distinct == len(counts)
    assert [top.count for top in found.top] == sorted(counts.values(), reverse=True)
    ordered = sorted(values)
    assert list(found.grid) == [ordered[max(1, -(-i * len(values) // 200)) - 1] for i in range(201)]


# --- drift -----------------------------------------------------------------------------------------------------------


def scipy_ks(now, before):
    result: Any = scipy.stats.ks_2samp(now, before)
    return result.statistic


def moved(now, before):
    return drift(profiled({"a": now}), profiled({"a": before}))["a"]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.1, 1.0), (0.5, 1.0), (0.0, 2.0)])
def test_ks_and_psi_of_numbers_are_close_to_those_of_the_values(shift, scale):
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=8000), rng.normal(shift, scale, 8000)
    found = moved(now, before)
    assert found.ks == pytest.approx(scipy_ks(now, before), abs=0.011)
    edges = [-np.inf, *np.quantile(before, np.arange(1, 10) / 10), np.inf]
    dumb = 0.0
    for low, high in pairwise(edges):
        a, b = ((low < now) & (now <= high)).mean(), ((low < before) & (before <= high)).mean()
        dumb += (a - b) * math.log(a / b)
    assert found.psi == pytest.approx(dumb, rel=0.1, abs=0.005)


def test_ks_of_few_whole_numbers_counts_ties_as_scipy_does():
    rng = np.random.default_rng(0)
    before, now = rng.integers(0, 4, 5000), rng.integers(0, 3, 5000)
    found = moved(now, before)
    assert found.ks == pytest.approx(scipy_ks(now, before), abs=0.006)
    assert found.lost == (3,) and found.new == ()


def test_psi_of_shares_that_are_all_gone_is_large_and_finite():
    assert psi([1.0, 0.0], [0.0, 1.0]) == pytest.approx(2 * 0.9999 * math.log(10_000), rel=1e-3)
    assert psi([0.5, 0.5], [0.5, 0.5]) == 0


def test_drift_of_categories_names_new_and_lost_ones():
    found = moved(["a"] * 50 + ["c"] * 50, ["a"] * 50 + ["b"] * 50)
    assert (found.new, found.lost, found.share_change, found.ks) == (("c",), ("b",), 0.5, None)
    assert found.psi > 1


def test_equal_data_has_no_drift_whatever_its_type():
    columns = {"n": np.arange(500) % 7, "f": np.random.default_rng(0).normal(size=500), "t": list("abcde") * 100}
    for found in drift(profiled(columns), profiled(columns)).values():
        assert (found.psi, found.share_change, found.null_change) == (0, 0, 0) and found.ks in (0, None)


def test_drift_sees_that_values_went_missing():
    assert moved(np.array([1.0, NAN]), np.array([1.0, 1.0])).null_change == 0.5


def test_columns_that_changed_from_numbers_to_text_are_not_compared():
    now, before = profiled({"a": ["1"], "b": np.array([1])}), profiled({"a": np.array([1]), "c": np.array([1])})
    assert drift(now, before) == {}
