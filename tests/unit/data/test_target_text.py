"""Targets that are texts: as ids and back, to the character; and texts that are refused, with what to do."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.next_tokens import with_target
from raypipe.data.shards import encode_target
from raypipe.data.target_text import TargetText, end_of, target_text
from raypipe.data.transforms.text import FIRST
from raypipe.errors import DataError
from raypipe.records import Column, Language, Signature
from raypipe.spec.text_transforms import TokensTransform
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples

CHARACTERS = Language(context_length=6, tokens=("a", "b", "é"), refuse=("too_long", "unknown"))
BYTES = Language(context_length=9, tokens=(), tokenizer="byte", refuse=("too_long",))
PAIRS = Language(context_length=9, tokens=(), tokenizer="bpe", merges=((99, 100), (258, 99)), refuse=("too_long",))
TEXT = Column(name="t", dtype="string")


def test_target_is_its_characters_its_end_and_padding():
    target = TargetText(CHARACTERS, "y")
    ids = target.ids(np.array(["ab", "", "ébéab"], object))
    assert target.end == end_of(CHARACTERS) == 5
    assert ids.tolist() == [[2, 3, 5, 0, 0, 0], [5, 0, 0, 0, 0, 0], [4, 3, 4, 2, 3, 5]]
    assert target.texts(ids) == ["ab", "", "ébéab"]
    assert target.texts(np.array([[2, 0, 3, 1, 2, 2]])) == ["abaa"], "one without an end"


@settings(max_examples=examples(40))
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=2), min_size=1, max_size=5))
@pytest.mark.parametrize("language", [BYTES, PAIRS], ids=["byte", "bpe"])
def test_bytes_write_every_text(language: Language, texts: list[str]):
    target = target_text(language, "y")
    assert target.texts(target.ids(pa.array(texts, pa.string()))) == texts


def test_a_character_of_several_bytes_is_there_with_its_last_and_half_a_one_is_told():
    target = target_text(BYTES, "y")
    euro = [FIRST + byte for byte in "x€".encode()]
    assert list(target.pieces([*euro, target.end, FIRST])) == ["x", "€"]
    assert list(target.pieces(euro[:-1])) == ["x", "\ufffd"]


def test_merged_byte_pairs_are_fewer_tokens():
    target = target_text(PAIRS, "y")
    ids = target.ids(pa.array(["aba", "b", "abaabaabaabaabaabaabaaba"]))
    assert target.end == 260
    assert ids.tolist()[:2] == [[259, 260, *[0] * 7], [100, 260, *[0] * 7]]
    assert target.texts(ids) == ["aba", "b", "aba" * 8]


def test_network_reads_the_source_and_the_target_one_place_late():
    read = with_target(np.ones((2, 2), np.float32), np.array([[3, 4, 5], [4, 5, 0]]), begin=5)
    assert read.tolist() == [[1, 1, 5, 3, 4], [1, 1, 5, 4, 5]] and read.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ababab", r"column 'y' holds a text of 6 characters \('ababab'\), and at most 5 are taken"),
        ("abc", r"column 'y' holds 'c', which is not among the 3 characters that train taught \('abé'\)"),
    ],
)
def test_target_that_cannot_be_written_is_refused(text: str, words: str):
    signature = Signature(inputs=(TEXT,), task="sequence_to_sequence", target="y", language=CHARACTERS)
    with pytest.raises(DataError, match=words):
        encode_target(np.array(["a", text], object), signature)


def tokens(**fields: Any) -> TokensTransform:
    return TokensTransform.model_validate({"kind": "tokens", "columns": ["t"], "max_length": 3, **fields})


Tokenizer = Literal["char", "byte", "word", "bpe"]


@pytest.mark.parametrize(
    ("tokenizer", "text", "words"),
    [
        ("char", "", "column 't' holds an empty text"),
        ("word", " \n", r"column 't' holds a text without a word \(' \\n'\)"),
        ("char", "abca", r"a text of 4 characters \('abca'\), and at most 3 are taken"),
        ("byte", "éé", r"a text of 4 bytes \('éé'\), and at most 3"),
        ("word", "a b c a", "a text of more than 3 words and signs"),
        ("bpe", "zzzz", "a text of more than 3 tokens"),
        ("char", "abx", r"column 't' holds 'x', which is not among the 3 characters that train taught \('abc'\)"),
        ("word", "a xyz", r"'xyz', which is not among the 3 words and signs that train taught \('a, b, c'\)"),
    ],
)
def test_source_that_does_not_fit_is_refused_where_the_file_says_so(tokenizer: Tokenizer, text: str, words: str):
    fields: dict[str, Any] = {"tokenizer": tokenizer}
    if tokenizer != "byte":
        fields["max_vocabulary"] = 300
    train = np.array(["a", "b", "c"], object)
    told, cut = (
        fit_columns([tokens(**fields, refuse=refuse)], [TEXT], [{"t": train}])
        for refuse in (["empty", "too_long", "unknown"], [])
    )
    row = {"t": np.array(["a", text], object)}
    with pytest.raises(DataError, match=words):
        told.apply(row, [TEXT])
    assert cut.apply(row, [TEXT]).shape == (2, 3), "without it, it is cut, padded, or one unknown token"
    np.testing.assert_array_equal(told.apply({"t": train}, [TEXT]), cut.apply({"t": train}, [TEXT]))
