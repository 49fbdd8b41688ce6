"""The last tokens of a text are those of the whole text, however little of it is looked at."""

from __future__ import annotations

import pytest

from raypipe.data.spelling import MAX_TOKEN_BYTES, Spelling
from raypipe.records import Language

TEXT = "the cat sät on the mat; a dog ran — 日本. " * 3
LANGUAGES = {
    "char": Language(tokenizer="char", tokens=tuple(sorted(set(TEXT))), context_length=8),
    "byte": Language(tokenizer="byte", tokens=(), context_length=8),
    "bpe": Language(tokenizer="bpe", tokens=(), merges=((118, 106), (258, 103)), context_length=8),
}


@pytest.mark.parametrize("tokenizer", LANGUAGES)
@pytest.mark.parametrize("most", [1, 7, 50, 10_000])
def test_last_tokens_are_those_of_the_whole_text(tokenizer: str, most: int):
    spelling = Spelling(LANGUAGES[tokenizer])
    assert spelling.last_ids(TEXT, most) == spelling.ids(TEXT)[-most:]


def test_no_more_of_a_long_text_is_looked_at_than_its_last_tokens_can_be(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    usual = Spelling.ids
    monkeypatch.setattr(Spelling, "ids", lambda self, text: (seen.append(len(text)), usual(self, text))[1])
    long = TEXT * 1000
    for language in LANGUAGES.values():
        Spelling(language).last_ids(long, 8)
    assert seen == [8, 8, 8 * MAX_TOKEN_BYTES]
