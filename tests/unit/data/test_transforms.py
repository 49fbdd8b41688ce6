"""What was fitted, applied to any rows."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples
from tests.unit.data.transforms import CITIES, CITY, GAPPY, GAPS, IMAGE, NUMBERS, X, exact, fit_one, transforms


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "a missing value"), (np.inf, "inf"), (-1e39, r"-1e\+39; .* float32")]
)
def test_value_that_is_no_finite_number_is_refused_by_column(value, found):
    with pytest.raises(DataError, match=f"'x' holds {found}"):
        FittedTransforms.from_state([]).apply({"x": np.array([1.0, value])}, [X])


def test_absent_column_is_refused_by_name():
    with pytest.raises(DataError, match="'x' is missing"):
        FittedTransforms.from_state([]).apply({"y": np.array([1.0])}, [X])


def test_state_of_a_kind_from_a_newer_raypipe_is_refused_by_name():
    with pytest.raises(DataError, match="a transform 'warp', which this raypipe does not know"):
        FittedTransforms.from_state([{"kind": "warp", "columns": {"x": {}}}])


def test_text_with_half_a_character_is_refused_by_column():
    fitted = fit_one(CITY, CITIES, {"kind": "one_hot", "columns": ["city"]})
    with pytest.raises(DataError, match="'city' holds a value that is no valid text"):
        fitted.apply({"city": np.array(["\ud800"], object)}, [CITY])


def test_text_may_come_as_arrow_or_as_objects():
    tokens = {"kind": "tokens", "columns": ["city"], "tokenizer": "word", "max_length": 2, "max_vocabulary": 9}
    fitted = fit_one(CITY, CITIES, tokens)
    chunked = pa.chunked_array([pa.array(CITIES[:7]), pa.array(CITIES[7:])])
    encoded = chunked.dictionary_encode().unify_dictionaries()
    for text in (chunked, chunked.combine_chunks(), encoded, encoded.combine_chunks()):
        assert (exact(fitted, CITY, text) == exact(fitted, CITY, CITIES)).all()
        assert fit_columns(transforms(tokens), [CITY], [{"city": text}]).state() == fitted.state()


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


@settings(max_examples=examples(40))
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
