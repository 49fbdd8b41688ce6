"""The ids of a text's tokens, and the text of ids: what models that write texts write in."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raypipe.data.transforms.text import FIRST, FIRST_MERGE, Tokens
from raypipe.data.transforms.text_misfits import UNKNOWN
from raypipe.records import Language
from raypipe.spec.transforms import TokensTransform

PADDING = 0

NO_TEXT = (PADDING, UNKNOWN)
"""Ids that stand for no text: padding, and what train does not hold."""

NUM_BYTES = 256

MAX_TOKENS = 2**21
"""Of a vocabulary, and of a context: there are fewer characters."""

MAX_TOKEN_BYTES = 2**8
"""Of a token that byte pairs became: words are cut into parts of 64 characters before."""


def num_tokens(language: Language) -> int:
    """Tokens that stand for a text, or a part of one."""
    return len(language.tokens) if language.tokenizer == "char" else NUM_BYTES + len(language.merges)


def num_ids(language: Language) -> int:
    """Ids of padding, of unknown tokens and of those that stand for a text are below this."""
    return FIRST + num_tokens(language)


def problem(language: Language) -> str:
    """What is wrong with the tokens of a model that somebody wrote, naming the field; empty: nothing."""
    tokens, is_char = language.tokens, language.tokenizer == "char"
    if len(tokens) > MAX_TOKENS or len(set(tokens)) < len(tokens) or any(len(token) != 1 for token in tokens):
        return "signature.language.tokens: there must be one or more characters, and each once"
    if is_char != bool(tokens):
        return f"signature.language.tokens: {len(tokens)} characters for tokenizer {language.tokenizer}"
    if language.merges and language.tokenizer != "bpe":
        return f"signature.language.merges: some for tokenizer {language.tokenizer}"
    size = [1] * NUM_BYTES
    for left, right in language.merges if len(language.merges) <= MAX_TOKENS else ():
        if not FIRST <= min(left, right) <= max(left, right) < FIRST + len(size):
            return f"signature.language.merges: [{left}, {right}] is no pair of ids that are there before it"
        size.append(size[left - FIRST] + size[right - FIRST])
        if size[-1] > MAX_TOKEN_BYTES:
            return f"signature.language.merges: [{left}, {right}] becomes more than {MAX_TOKEN_BYTES} bytes"
    return "" if len(size) == NUM_BYTES + len(language.merges) else "signature.language.merges: there are too many"


class Spelling:
    """Texts of one language.

    Attributes:
        known: with `char`, the characters that train holds.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self.known = language.tokens

    def ids(self, text: str) -> list[int]:
        """Of all tokens of a text; a character that train does not hold is UNKNOWN."""
        if self._language.tokenizer == "char":
            return [self._id_of.get(character, UNKNOWN) for character in text]
        if self._language.tokenizer == "byte":
            return [FIRST + byte for byte in text.encode()]
        return self._merging.of_text(text)

    def last_ids(self, text: str, most: int) -> list[int]:
        """Of the last tokens of a text, as many as `most`; no more of it is looked at than they can be."""
        characters = most * (MAX_TOKEN_BYTES if self._language.tokenizer == "bpe" else 1)
        return self.ids(text[-characters:])[-most:]

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """What ids say, piece by piece: a character is there with its last byte. Bytes that are no UTF-8 become
        U+FFFD; ids that stand for no text are left out."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in ids:
            if number in NO_TEXT:
                continue
            written = self._written[number - FIRST]
            if piece := written if isinstance(written, str) else decoder.decode(written):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    @cached_property
    def num_bytes(self) -> NDArray[np.int64]:
        """Bytes of UTF-8 that each id stands for, [number of ids]; 0 where it stands for no text."""
        sizes = [len(each.encode() if isinstance(each, str) else each) for each in self._written]
        return np.array([*(0 for _ in NO_TEXT), *sizes], np.int64)

    @cached_property
    def _written(self) -> list[str] | list[bytes]:
        """What each token stands for."""
        if self._language.tokenizer == "char":
            return list(self._language.tokens)
        written = [bytes([byte]) for byte in range(NUM_BYTES)]
        for left, right in self._language.merges:
            written.append(written[left - FIRST] + written[right - FIRST])
        return written

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {token: FIRST + place for place, token in enumerate(self._language.tokens)}

    @cached_property
    def _merging(self) -> Tokens:
        return merging(self._language.merges)


def merging(merges: Sequence[tuple[int, int]]) -> Tokens:
    """What cuts texts into the tokens that byte pairs became."""
    transform = TokensTransform(
        kind="tokens", columns=["text"], tokenizer="bpe", max_length=1, max_vocabulary=FIRST_MERGE + len(merges)
    )
    return Tokens(transform.model_dump(mode="json", exclude={"columns"}), {"merges": merges}, "text")
