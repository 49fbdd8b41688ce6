"""Lists of texts as counts, against scikit-learn's CountVectorizer, and lists that teach nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.feature_extraction.text import CountVectorizer

from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import Transform
from raypipe.testing.fakes import fit_columns

TAGS = Column(name="tags", dtype="string", is_list=True)
TRAIN = [["red", "Red", "new"], [], ["red", "日本", "red"], ["new", "a b", "red"], ["a b", 'q"'], ["new"]]
NEW = [["unknown"], [], ["red", "red", "new", "RED"], ['q"', "日本", "日本"]]


def lists(rows: list[list[str]]) -> np.ndarray:
    return np.array([json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows], object)


def made(*shards: list[list[str]], **fields: Any) -> FittedTransforms:
    spec = TypeAdapter(Transform).validate_python({"kind": "bag_of_words", "columns": ["tags"], **fields})
    return fit_columns([spec], [TAGS], [{"tags": lists(shard)} for shard in shards])


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("max_words", [1, 3, 100])
def test_counts_equal_scikit_learns(lowercase: bool, max_words: int):
    def own_words(row: list[str]) -> list[str]:
        return [word.lower() for word in row] if lowercase else row

    words: Any = own_words  # which scikit-learn takes, and its type hint does not
    theirs = CountVectorizer(analyzer=words, max_features=max_words).fit(TRAIN)
    ours = made(TRAIN[:2], [], TRAIN[2:], lowercase=lowercase, max_words=max_words)
    (state,) = ours.state()
    assert state["columns"]["tags"]["vocabulary"] == theirs.get_feature_names_out().tolist()
    for rows in (TRAIN, NEW):
        expected: Any = theirs.transform(rows)
        assert np.array_equal(ours.apply_exact({"tags": lists(rows)}, (TAGS,)), expected.toarray())


@pytest.mark.parametrize("rows", [[[], []], [["x" * 1001]]])
def test_lists_without_a_word_that_is_kept_are_nothing_to_fit(rows: list[list[str]]):
    with pytest.raises(DataError, match="bag_of_words finds no value of column 'tags' in the train split"):
        made(rows)
