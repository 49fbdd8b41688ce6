"""Text to token ids.

B rows, T tokens a row, N tokens of several rows one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from raypipe.data.transforms import bpe, words
from raypipe.data.transforms.base import (
    Fitted,
    State,
    TransformKind,
    Values,
    need_text,
    nothing_to_fit,
    pc,
    refuse_missing,
    some,
)
from raypipe.data.transforms.categorical import Lookup
from raypipe.data.transforms.counting import MAX_ROWS, Counts, both, count_at, counted, counts_of
from raypipe.data.transforms.text_misfits import UNKNOWN, refuse_misfits
from raypipe.records import Column
from raypipe.spec.text_transforms import TokensTransform

FIRST = 2
"""Id of the first token; 0 is padding, 1 an unknown one."""

FIRST_MERGE = FIRST + 256

MAX_BPE_WORDS = 2**16
"""Different words that merges are learnt from: the most frequent."""

WORD_CHARS = 64
"""A longer word is not counted; with `bpe` it is cut into words of so many characters."""

CHUNK_BYTES = 2**23
"""Text that is cut up at a time."""

CACHED = 2**16
"""Words whose tokens are remembered."""

SPLIT: dict[str, Callable[[pa.Array], tuple[Values, np.ndarray]]] = {
    "char": words.characters,
    "byte": words.utf8,
    "word": words.words,
    "bpe": words.pieces,
}
"""Tokenizer -> how rows are cut before ids are looked up."""


class Tokens(TransformKind):
    """Ids of the first tokens."""

    @staticmethod
    def needs_rows(spec: TokensTransform) -> bool:
        return spec.tokenizer != "byte" and spec.merges is None

    @staticmethod
    def refuses(spec: TokensTransform) -> bool:
        return bool(spec.refuse)

    @staticmethod
    def refuses_of_train(spec: TokensTransform) -> bool:
        return bool(spec.refuse)

    @staticmethod
    def enough_rows(spec: TokensTransform) -> int:
        return MAX_ROWS

    @staticmethod
    def check(spec: TokensTransform, column: Column) -> Column:
        need_text(spec, column)
        return column.model_copy(update={"dtype": "float32", "shape": (spec.max_length,), "nullable": False})

    @staticmethod
    def partial(spec: TokensTransform, values: pa.Array, name: str) -> Counts:
        refuse_missing(values, name)
        return counts_of([counted(_tokens(part, spec)[0], WORD_CHARS) for part in _chunks(values)], len(values))

    @staticmethod
    def combine(spec: TokensTransform, first: Counts, second: Counts, name: str) -> Counts:
        return both(first, second)

    @staticmethod
    def finish(spec: TokensTransform, partial: Counts | None, name: str) -> Fitted:
        if spec.max_vocabulary is None:
            return {}
        if spec.merges is not None:
            return {"merges": [list(pair) for pair in spec.merges]}
        if partial is None or not len(partial.tokens):
            raise nothing_to_fit(spec, name)
        tokens, counts = partial.tokens, partial.counts
        rests_on = {"num_sampled": partial.num_rows, "max_missed": partial.max_missed}
        if spec.tokenizer == "bpe":
            rests_on["max_missed"] += count_at(counts, MAX_BPE_WORDS)
            tokens, counts = tokens[:MAX_BPE_WORDS], counts[:MAX_BPE_WORDS]
            spelled = [_byte_ids(word) for word in tokens.to_pylist()]
            merges = bpe.learn(spelled, counts.to_pylist(), spec.max_vocabulary - FIRST_MERGE, FIRST_MERGE)
            return {"merges": [list(pair) for pair in merges], **rests_on}
        vocabulary = tokens[: spec.max_vocabulary - FIRST].to_pylist()
        return {"vocabulary": [chr(v) for v in vocabulary] if spec.tokenizer == "char" else vocabulary, **rests_on}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._spec = TokensTransform.model_validate({**state, "columns": [name]})
        vocabulary = fitted.get("vocabulary", ())
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(fitted.get("merges", ()))}
        self._id_of = {word: [FIRST + i] for i, word in enumerate(vocabulary)}
        self._cache: dict[str, list[int]] = {}
        if self._spec.tokenizer == "char":
            self._characters = Lookup([ord(character) for character in vocabulary])

    def apply(self, values: Values) -> np.ndarray:
        """float32 [B, T]."""
        refuse_missing(values, self.name)
        ids_BT = np.zeros((len(values), self._spec.max_length), np.float32)
        start = 0
        for part in _chunks(values):
            tokens, row_N = _tokens(part, self._spec)
            ids_N, row_N = self._ids(tokens, row_N)
            if self._spec.refuse:
                refuse_misfits(part, ids_N, row_N, self._spec, self._id_of, self.name)
            place_N = words.places(row_N)
            there_N = place_N < self._spec.max_length
            ids_BT[start + row_N[there_N], place_N[there_N]] = ids_N[there_N]
            start += len(part)
        return ids_BT

    def of_text(self, text: str) -> list[int]:
        """All tokens of one text, however many."""
        ids_N, _ = self._ids(*SPLIT[self._spec.tokenizer](pa.array([text], pa.string())))
        return ids_N.tolist()

    def num_tokens(self, words: pa.Array) -> np.ndarray:
        """With `bpe`: of each of some runs of characters, as words.pieces cuts them, how many tokens it is; int64."""
        coded = words.dictionary_encode()
        size_K = np.array([len(self._merged(word)) for word in coded.dictionary.to_pylist()], np.int64)
        return size_K[coded.indices.to_numpy(zero_copy_only=False)]

    def _ids(self, tokens: Values, row_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the tokens, and the row of each; a word has several with `bpe`."""
        if isinstance(tokens, pa.Array):
            return self._of_words(tokens, row_N)
        if self._spec.tokenizer == "byte":
            return FIRST + tokens.astype(np.int64), row_N
        index_N = self._characters.index(tokens)
        return np.where(index_N < 0, UNKNOWN, FIRST + index_N), row_N

    def _of_words(self, found: pa.Array, row_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each different word is looked up or merged once."""
        coded = found.dictionary_encode()
        is_bpe = self._spec.tokenizer == "bpe"
        different = coded.dictionary.to_pylist()
        encoded = [self._merged(word) if is_bpe else self._id_of.get(word, [UNKNOWN]) for word in different]
        size_K = np.array([len(ids) for ids in encoded], np.int64)
        ids = np.array([i for ids in encoded for i in ids], np.int64)
        word_N = coded.indices.to_numpy(zero_copy_only=False)
        size_N = size_K[word_N]
        first_N = (np.cumsum(size_K) - size_K)[word_N]
        within = np.arange(size_N.sum()) - np.repeat(np.cumsum(size_N) - size_N, size_N)
        return ids[np.repeat(first_N, size_N) + within], np.repeat(row_N, size_N)

    def _merged(self, word: str) -> list[int]:
        if len(word) > WORD_CHARS:  # part by part, so that a run that goes on is not merged from its start again
            parts = (word[i : i + WORD_CHARS] for i in range(0, len(word), WORD_CHARS))
            return [token for part in parts for token in self._merged(part)]
        found = self._cache.get(word)
        if found is None:
            found = bpe.encode(_byte_ids(word), self._ranks, FIRST_MERGE)
            if len(self._cache) >= CACHED:
                self._cache.clear()
            self._cache[word] = found
        return found


def _chunks(text: pa.Array) -> Iterator[pa.Array]:
    """Whole rows, about CHUNK_BYTES at a time."""
    end_B = np.cumsum(pc.binary_length(text).to_numpy(zero_copy_only=False), dtype=np.int64)
    start = 0
    while start < len(text):
        before = end_B[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(end_B, before + CHUNK_BYTES, side="right")))
        yield text[start:stop]
        start = stop


def _tokens(text: pa.Array, spec: TokensTransform) -> tuple[Values, np.ndarray]:
    """The first `max_length` bytes, code points or words of each row [N]; and the row of each, int64 [N]. One more
    where a text that has more is refused."""
    most = spec.max_length + ("too_long" in spec.refuse)
    is_whole = spec.tokenizer in ("char", "byte")
    text = pc.utf8_slice_codeunits(text, 0, most * (1 if is_whole else WORD_CHARS))
    text = pc.utf8_lower(text) if spec.lowercase else text
    tokens, row_N = SPLIT[spec.tokenizer](text)
    kept_N = words.places(row_N) < most
    return some(tokens, kept_N), row_N[kept_N]


def _byte_ids(word: str) -> list[int]:
    return [FIRST + byte for byte in word.encode()]
