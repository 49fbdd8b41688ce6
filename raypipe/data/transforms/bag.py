"""Lists of texts to counts.

B rows, K words of the vocabulary, N words of all rows, one after another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import (
    Fitted,
    State,
    TransformKind,
    nothing_to_fit,
    numbers,
    pc,
    refuse_missing,
)
from raypipe.data.transforms.categorical import Lookup
from raypipe.data.transforms.counting import MAX_ROWS, Counts, both, counted, counts_of
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.text_transforms import BagOfWordsTransform

MAX_CHARS = 1000
"""A longer word is not counted."""


class BagOfWords(TransformKind):
    """How often each known word occurs."""

    takes_lists = True

    @staticmethod
    def needs_rows(spec: BagOfWordsTransform) -> bool:
        return True

    @staticmethod
    def enough_rows(spec: BagOfWordsTransform) -> int:
        return MAX_ROWS

    @staticmethod
    def check(spec: BagOfWordsTransform, column: Column) -> Column:
        if not column.is_list:
            raise DataError(
                f"data.transforms: bag_of_words needs lists of texts, but column '{column.name}' holds {column.dtype}"
                f"{' in arrays' if column.shape else ''}",
                f"use one_hot for categories, or tokens for text, in the place of it for '{column.name}'",
            )
        return numbers(column, (-1,))

    @staticmethod
    def partial(spec: BagOfWordsTransform, values: pa.ListArray, name: str) -> Counts:
        refuse_missing(values, name)
        return counts_of([counted(_words(values, spec.lowercase)[0], MAX_CHARS)], len(values))

    @staticmethod
    def combine(spec: BagOfWordsTransform, first: Counts, second: Counts, name: str) -> Counts:
        return both(first, second)

    @staticmethod
    def finish(spec: BagOfWordsTransform, partial: Counts | None, name: str) -> Fitted:
        if partial is None or not len(partial.tokens):
            raise nothing_to_fit(spec, name)
        vocabulary = sorted(partial.tokens[: spec.max_words].to_pylist())
        return {"vocabulary": vocabulary, "num_sampled": partial.num_rows, "max_missed": partial.max_missed}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._lookup = Lookup(fitted["vocabulary"])

    def apply(self, values: Any) -> np.ndarray:
        """float64 [B, K]."""
        refuse_missing(values, self.name)
        found, row_N = _words(values, self.state["lowercase"])
        num_words = len(self._lookup)
        index_N = self._lookup.index(found)
        is_known_N = index_N >= 0
        place_N = row_N[is_known_N] * num_words + index_N[is_known_N]
        counts = np.bincount(place_N, minlength=len(values) * num_words)
        return counts.reshape(len(values), num_words).astype(np.float64)


def _words(lists: pa.ListArray, is_lower: bool) -> tuple[pa.Array, np.ndarray]:
    """All words [N], and the row of each, int64 [N]."""
    found = lists.flatten()
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return pc.utf8_lower(found) if is_lower else found, np.repeat(np.arange(len(lists)), lengths)
