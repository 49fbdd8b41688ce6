from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.transforms import FittedTransforms, bpe, counting, text, words
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.text_transforms import TokensTransform
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples

TEXT = Column(name="t", dtype="string")
FOX = np.array(["The quick fox,", "the quick dog.", "the end", ""], object)
SOME_TEXT = st.text(
    st.one_of(st.sampled_from(list("aab  \n_.,1é\u0301日\u00a0\0💡A")), st.characters(codec="utf-8")), max_size=40
)


def fit(values: np.ndarray, cuts: tuple[int, ...] = (), **fields: Any) -> FittedTransforms:
    spec = TokensTransform.model_validate({"kind": "tokens", "columns": ["t"], **fields})
    return fit_columns([spec], [TEXT], [{"t": part} for part in np.split(values, list(cuts))])


def ids(fitted: FittedTransforms, *rows: str) -> list[list[int]]:
    return fitted.apply({"t": np.array(rows, object)}, [TEXT]).astype(int).tolist()


def learnt(fitted: FittedTransforms) -> dict[str, Any]:
    return fitted.state()[0]["columns"]["t"]


def test_char_ids_are_by_frequency_then_code_point_with_padding_and_unknown():
    fitted = fit(np.array(["bbcc", "a"], object), tokenizer="char", max_length=5, max_vocabulary=4)
    assert learnt(fitted) == {"vocabulary": ["b", "c"], "num_sampled": 2, "max_missed": 0}
    assert ids(fitted, "cab", "", "bbbbbbc") == [[3, 1, 2, 0, 0], [0] * 5, [2] * 5]


def test_byte_ids_are_those_of_utf8():
    fitted = fit(FOX, tokenizer="byte", max_length=3)
    assert ids(fitted, "é!", "\0") == [[0xC3 + 2, 0xA9 + 2, 0x21 + 2], [2, 0, 0]]
    assert learnt(fitted) == {}


def test_word_ids_are_by_frequency_then_spelling():
    fitted = fit(FOX, tokenizer="word", max_length=4, max_vocabulary=7, lowercase=True)
    assert learnt(fitted)["vocabulary"] == ["the", "quick", ",", ".", "dog"]
    assert ids(fitted, "THE dog, a fox. the", "naïve") == [[2, 6, 4, 1], [1, 0, 0, 0]]


def test_ids_fit_float32_and_stay_below_max_vocabulary():
    for tokenizer in ("char", "word", "bpe"):
        fitted = fit(FOX, max_length=20, max_vocabulary=260, tokenizer=tokenizer)
        out = fitted.apply({"t": FOX}, [TEXT])
        assert out.dtype == np.float32 and out.shape == (4, 20)
        assert (out == out.astype(np.int64)).all() and out.max() < 260


def kind_of(character: str) -> str:
    if character.isspace() or unicodedata.category(character).startswith("Z"):
        return "space"
    kinds = {"L": "letter", "M": "letter", "N": "digit"}
    return kinds.get(unicodedata.category(character)[0], "sign")


def words_one_by_one(row: str) -> list[str]:
    found: list[str] = []
    goes_on = False
    for character in row:
        is_letter = character == "_" or kind_of(character) in ("letter", "digit")
        if is_letter and goes_on:
            found[-1] += character
        elif kind_of(character) != "space":
            found.append(character)
        goes_on = is_letter
    return found


def pieces_one_by_one(row: str) -> list[str]:
    runs: list[str] = []
    for i, character in enumerate(row):
        if i and kind_of(character) == kind_of(row[i - 1]):
            runs[-1] += character
        else:
            runs.append(character)
    for i in range(len(runs) - 1):
        if runs[i].endswith(" ") and kind_of(runs[i + 1][0]) != "space":
            runs[i], runs[i + 1] = runs[i][:-1], " " + runs[i + 1]
    return [run for run in runs if run]


@settings(max_examples=examples(200))
@given(st.lists(SOME_TEXT, max_size=6))
def test_rows_are_cut_as_one_by_one(rows: list[str]):
    array = pa.array(rows, pa.string())
    cases = [
        (words.characters, lambda row: [ord(character) for character in row]),
        (words.utf8, lambda row: list(row.encode())),
        (words.words, words_one_by_one),
        (words.pieces, pieces_one_by_one),
    ]
    for cut, one_by_one in cases:
        found, row_N = cut(array)
        expected = [(i, token) for i, row in enumerate(rows) for token in one_by_one(row)]
        assert list(zip(row_N.tolist(), found.tolist(), strict=True)) == expected


def naive_learn(spelled: list[list[int]], counts: list[int], num_merges: int, num_base: int) -> list[Any]:
    """All pairs counted anew before each merge."""
    spelled, merges = [list(word) for word in spelled], []
    for _ in range(num_merges):
        totals: Counter[Any] = Counter()
        for word, count in zip(spelled, counts, strict=True):
            for pair in pairwise(word):
                totals[pair] += count
        best = min(totals, key=lambda pair: (-totals[pair], pair), default=None)
        if best is None or totals[best] < 2:
            break
        spelled = [naive_merge(word, best, num_base + len(merges)) for word in spelled]
        merges.append(best)
    return merges


def naive_merge(word: list[int], pair: Any, token: int) -> list[int]:
    for i in range(len(word) - 1):
        if (word[i], word[i + 1]) == tuple(pair):
            return [*word[:i], token, *naive_merge(word[i + 2 :], pair, token)]
    return list(word)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 4)), max_size=12),
    st.integers(0, 12),
)
def test_merges_equal_those_of_counting_all_pairs_anew(counted: list[Any], num_merges: int):
    spelled, counts = [word for word, _ in counted], [count for _, count in counted]
    merges = bpe.learn(spelled, counts, num_merges, 4)
    assert merges == naive_learn(spelled, counts, num_merges, 4)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for word in spelled:
        expected = word
        for rank, pair in enumerate(merges):
            expected = naive_merge(expected, pair, 4 + rank)
        assert bpe.encode(word, ranks, 4) == expected


@settings(max_examples=examples(50))
@given(st.lists(SOME_TEXT, min_size=1, max_size=5))
def test_bpe_tokens_spell_the_text_and_none_is_unknown(rows: list[str]):
    fitted = fit(np.array([*rows, "aab aab"], object), tokenizer="bpe", max_length=200, max_vocabulary=270)
    spelling = [bytes([i]) for i in range(256)]
    for left, right in learnt(fitted)["merges"]:
        spelling.append(spelling[left - 2] + spelling[right - 2])
    for row, found in zip(rows, ids(fitted, *rows), strict=True):
        length = len([i for i in found if i])
        assert 1 not in found and not any(found[length:])
        assert b"".join(spelling[i - 2] for i in found[:length]) == row.encode()


def test_bpe_merges_what_is_frequent_and_never_across_words():
    fitted = fit(np.array(["low low lower", "slow"], object), tokenizer="bpe", max_length=6, max_vocabulary=1000)
    assert ids(fitted, "low")[0][1:] == [0] * 5
    merged = [bytes(i - 2 for i in pair) for pair in learnt(fitted)["merges"] if max(pair) < 258]
    assert b"w " not in merged and b"lo" in merged


def test_bpe_word_of_any_length_is_cut_before_it_is_merged():
    fitted = fit(FOX, tokenizer="bpe", max_length=4000, max_vocabulary=300)
    assert len([i for i in ids(fitted, "q" * 3000)[0] if i]) == 3000


def test_words_over_64_characters_are_unknown_and_not_learnt():
    rows = np.array(["a" * 64, "b" * 65, "b" * 65], object)
    fitted = fit(rows, tokenizer="word", max_length=2, max_vocabulary=9)
    assert learnt(fitted)["vocabulary"] == ["a" * 64]
    assert ids(fitted, "b" * 65, "a" * 64) == [[1, 0], [2, 0]]


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word", "bpe"])
def test_text_of_many_megabytes_is_read_no_further_than_its_first_tokens(tokenizer: str):
    max_vocabulary = None if tokenizer == "byte" else 300
    fitted = fit(FOX, tokenizer=tokenizer, max_length=8, max_vocabulary=max_vocabulary)
    start = "the quick the quick the quick the quick "
    assert ids(fitted, start + "é" * 20_000_000, "") == ids(fitted, start, "")


@pytest.mark.parametrize("tokenizer", ["char", "word", "bpe"])
def test_rows_in_many_chunks_give_what_they_give_together(tokenizer: str, monkeypatch: pytest.MonkeyPatch):
    fields: dict[str, Any] = {"tokenizer": tokenizer, "max_length": 9, "max_vocabulary": 265}
    rows = np.array([*FOX, "日本語 x" * 5, *FOX], object)
    whole = fit(rows, **fields)
    monkeypatch.setattr(text, "CHUNK_BYTES", 20)  # many chunks of these few rows
    cut = fit(rows, (3, 3), **fields)
    assert cut.state() == whole.state()
    assert ids(cut, *rows) == ids(whole, *rows)


def test_vocabulary_from_bounded_counts_says_how_often_a_token_may_have_been_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "MAX_COUNTED", 2)  # fewer than there are words
    rows = np.array(["a a a b b c", "c c c d d d d d"], object)
    fitted = fit(rows, (1,), tokenizer="word", max_length=9, max_vocabulary=9)
    assert learnt(fitted) == {"vocabulary": ["d", "a", "c", "b"], "num_sampled": 2, "max_missed": 1}


def test_merges_from_bounded_words_say_how_often_a_word_may_have_been_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "MAX_BPE_WORDS", 1)  # fewer than there are words
    fitted = fit(np.array(["ab", "ab", "cd", "cd", "ab"], object), tokenizer="bpe", max_length=9, max_vocabulary=300)
    assert learnt(fitted) == {"merges": [[99, 100]], "num_sampled": 5, "max_missed": 2}


def test_vocabulary_rests_on_the_first_rows_that_are_enough(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "MAX_ROWS", 3)  # fewer than there are rows
    fitted = fit(np.array(["a", "a", "b", "c", "d"], object), (2, 4), tokenizer="word", max_length=1, max_vocabulary=9)
    assert learnt(fitted) == {"vocabulary": ["a", "b", "c"], "num_sampled": 4, "max_missed": 0}


FIT_IN_A_PROCESS = """
import json
from tests.unit.data.test_tokens import FOX, fit
for tokenizer in ("char", "word", "bpe"):
    print(json.dumps(fit(FOX, (1, 2), tokenizer=tokenizer, max_length=5, max_vocabulary=280).state()))
"""


@pytest.mark.thorough
def test_state_is_the_same_in_every_process():
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"  # sets are in another order there than here
    output = subprocess.run(
        [sys.executable, "-c", FIT_IN_A_PROCESS],
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    here = [fit(FOX, tokenizer=t, max_length=5, max_vocabulary=280).state() for t in ("char", "word", "bpe")]
    assert [json.loads(line) for line in output.splitlines()] == json.loads(json.dumps(here))


def test_tokens_beside_a_number_lie_flat_in_input_order():
    x = Column(name="x", dtype="float64")
    spec = TokensTransform(kind="tokens", columns=["t"], tokenizer="byte", max_length=2)
    fitted = fit_columns([spec], [x, TEXT], [{"x": np.array([0.5]), "t": np.array(["a"], object)}])
    assert fitted.apply({"x": np.array([0.5]), "t": np.array(["a"], object)}, [x, TEXT]).tolist() == [[0.5, 99, 0]]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (Column(name="t", dtype="int64"), "tokens needs text, but column 't' holds int64"),
        (Column(name="t", dtype="string", nullable=True), "takes no missing value, but column 't'"),
    ],
)
def test_tokens_of_what_is_no_text_are_refused_before_any_row_is_read(column: Column, told: str):
    spec = TokensTransform(kind="tokens", columns=["t"], tokenizer="byte", max_length=2)
    with pytest.raises(DataError, match=told):
        fit_columns([spec], [column], [])


def test_tokens_of_train_rows_without_text_have_nothing_to_fit():
    with pytest.raises(DataError, match="tokens finds no value of column 't'"):
        fit(np.array(["", " "], object), tokenizer="word", max_length=2, max_vocabulary=9)
