"""n-grams against scikit-learn's own vectorizers, and what does not go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.utils import murmurhash3_32

from raypipe.data.transforms import FittedTransforms, ngrams
from raypipe.data.transforms.murmur import murmur32
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import Transform
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples

TEXT = Column(name="text", dtype="string")
TRAIN = np.array(
    [
        "The cat sat on the mat.",
        "A dog;  a naïve dog\tand THE cat",
        "",
        "日本語 mat 123 a_b x",
        "the the the dog",
        "İzmir ẞ ﬁ",
    ]
    * 3
    + ["cat and dog and mouse"] * 2,
    object,
)
THEIR_NORM: dict[str, Any] = {"l2": "l2", "l1": "l1", "none": None}
NEW = np.array(["the unknown cat", "", "dog dog mouse 日本語", "!!", "i̇zmir and the THE"], object)


def made(*shards: np.ndarray, **fields: Any) -> FittedTransforms:
    spec = TypeAdapter(Transform).validate_python({"kind": "ngrams", "columns": ["text"], **fields})
    return fit_columns([spec], [TEXT], [{"text": shard} for shard in shards])


def features(fitted: FittedTransforms, text: np.ndarray) -> np.ndarray:
    return fitted.apply_exact({"text": text}, (TEXT,))


@pytest.mark.parametrize(
    ("analyzer", "sizes"), [("word", (1, 2)), ("word", (2, 3)), ("char", (1, 3)), ("char_wb", (2, 4))]
)
@pytest.mark.parametrize("norm", ["l2", "l1", "none"])
@pytest.mark.parametrize("sublinear", [False, True])
def test_tf_idf_equals_scikit_learns(analyzer: str, sizes: tuple[int, int], norm: str, sublinear: bool):
    fields = {
        "analyzer": analyzer,
        "ngram_range": sizes,
        "norm": norm,
        "sublinear": sublinear,
        "lowercase": not sublinear,
    }
    theirs = TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=sizes,
        norm=THEIR_NORM[norm],
        sublinear_tf=sublinear,
        lowercase=not sublinear,
        min_df=2,
        max_df=0.8,
    ).fit(TRAIN)
    ours = made(TRAIN[:7], TRAIN[7:7], TRAIN[7:], min_rows=2, max_rows_frac=0.8, max_features=50_000, **fields)
    (state,) = ours.state()
    assert state["columns"]["text"]["vocabulary"] == theirs.get_feature_names_out().tolist()
    for text in (TRAIN, NEW):
        expected: Any = theirs.transform(text)
        assert np.abs(features(ours, text) - expected.toarray()).max() <= 1e-12


@pytest.mark.parametrize("weight", ["count", "binary"])
def test_counts_of_the_most_frequent_equal_scikit_learns(weight: str):
    theirs = CountVectorizer(max_features=4, binary=weight == "binary").fit(TRAIN)
    ours = made(TRAIN, max_features=4, weight=weight, norm="none")
    expected: Any = theirs.transform(NEW)
    assert np.array_equal(features(ours, NEW), expected.toarray())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("analyzer", "sizes"), [("word", (1, 2)), ("char_wb", (3, 5))])
@pytest.mark.parametrize("norm", ["l2", "l1", "none"])
def test_hashed_counts_equal_scikit_learns(signed: bool, analyzer: str, sizes: tuple[int, int], norm: str):
    theirs = HashingVectorizer(
        n_features=37,
        alternate_sign=signed,
        analyzer=analyzer,
        ngram_range=sizes,
        norm=THEIR_NORM[norm],
    )
    ours = made(num_buckets=37, signed=signed, analyzer=analyzer, ngram_range=sizes, norm=norm, weight="count")
    expected: Any = theirs.transform(TRAIN)
    assert np.abs(features(ours, TRAIN) - expected.toarray()).max() <= 1e-12
    assert not ours.state()[0]["columns"]["text"]


def test_hashed_tf_idf_equals_scikit_learns_two_steps():
    hashing = HashingVectorizer(n_features=64, alternate_sign=False, norm=THEIR_NORM["none"])
    theirs = TfidfTransformer().fit(hashing.transform(TRAIN))
    ours = made(TRAIN[:4], TRAIN[4:], num_buckets=64)
    expected: Any = theirs.transform(hashing.transform(NEW))
    assert np.abs(features(ours, NEW) - expected.toarray()).max() <= 1e-12


@settings(max_examples=examples(40))
@given(st.lists(st.text(max_size=40), max_size=20))
def test_hash_is_murmurs(texts: list[str]):
    texts = [text for text in texts if text.isprintable()]
    assert murmur32(texts).tolist() == [murmurhash3_32(text.encode()) for text in texts]


def test_hash_of_long_texts_beside_short_ones_is_murmurs():
    texts = ["a" * 70_001, "b", "", "c" * 64, "d" * 65, "é" * 33, "ee"] * 2
    assert murmur32(texts).tolist() == [murmurhash3_32(text.encode()) for text in texts]


def test_of_many_ngrams_the_most_frequent_are_kept_and_what_was_left_out_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ngrams, "MAX_COUNTED", 4)
    text = np.array([f"common usual word{i} word{i}x" for i in range(20)], object)
    (state,) = made(text[:11], text[11:], max_features=2, weight="count").state()
    assert state["columns"]["text"]["vocabulary"] == ["common", "usual"]
    assert 1 <= state["columns"]["text"]["max_missed"] <= 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either `max_features`"),
        ({"max_features": 3, "num_buckets": 4}, "give either `max_features`"),
        ({"max_features": 3, "ngram_range": [3, 2]}, "the first must not exceed the second"),
        ({"max_features": 3, "signed": True}, "signed goes with num_buckets"),
        ({"num_buckets": 3, "min_rows": 2}, "with num_buckets there is none"),
        ({"max_features": 3, "weight": "binary", "sublinear": True}, "sublinear changes counts"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        made(TRAIN, **fields)


def test_text_without_one_word_is_nothing_to_fit_and_numbers_are_no_text():
    with pytest.raises(DataError, match="ngrams keeps no n-gram of column 'text'"):
        made(np.array(["", "a !"], object), max_features=5)
    spec = TypeAdapter(Transform).validate_python({"kind": "ngrams", "columns": ["x"], "max_features": 5})
    with pytest.raises(DataError, match="ngrams needs text, but column 'x' holds float64"):
        fit_columns([spec], [Column(name="x", dtype="float64")], [{"x": np.zeros(3)}])


@pytest.mark.parametrize(
    ("texts", "fields", "message"),
    [
        (
            ["a b", "c d"],
            {},
            "begins with 1, and none of the 2 texts of train has so many words of two letters or more",
        ),
        (
            ["one two", "one"],
            {"ngram_range": [3, 4]},
            "begins with 3, and none of the 2 texts of train has so many words",
        ),
        (
            ["cat sat", "cat ran"],
            {"min_rows": 2, "max_rows_frac": 0.5},
            "of 3 different ones in 2 texts of train each is in 1 to 2 texts ('cat'), and min_rows: 2, "
            "max_rows_frac: 0.5 leave none",
        ),
    ],
)
def test_texts_of_which_no_ngram_is_kept_are_refused_with_what_they_hold(
    texts: list[str], fields: dict[str, Any], message: str
):
    with pytest.raises(DataError) as caught:
        made(np.array(texts, object), max_features=5, **fields)
    assert message in caught.value.message


@pytest.mark.parametrize("fields", [{"max_features": 5, "weight": "count"}, {"num_buckets": 8}])
def test_no_rows_at_all_are_nothing_to_fit(fields: dict[str, Any]):
    with pytest.raises(DataError, match="ngrams finds no value of column 'text' in the train split"):
        made(**fields)


@pytest.mark.parametrize("weight", ["tf_idf", "count", "binary"])
@pytest.mark.parametrize("size", [{"max_features": 9}, {"num_buckets": 9}])
@pytest.mark.parametrize("norm", ["l2", "l1", "none"])
def test_text_without_a_known_ngram_is_all_zeros(weight: str, size: dict[str, int], norm: str):
    empty = features(made(TRAIN, weight=weight, norm=norm, **size), np.array(["", " ", "!"], object))
    assert empty.shape == (3, 9) and not empty.any()
