"""By a hash of the row alone, or of its key."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raypipe.data.splits.base import TEST, TRAIN, UNDECIDED, VAL, Misfits, SplitKeys, SplitKind, SplitState, hash_of
from raypipe.data.splits.content import Content
from raypipe.data.splits.ranks import Ranks
from raypipe.data.table.row_hash import Values, mix, seed
from raypipe.spec.splits import HashSplit

EACH_COPY = "each_copy"
"""In the state: equal rows are divided one by one."""

_COPY = np.uint64(0xD1B54A32D192ED03)


class Hashed(SplitKind):
    """By the key, else by the content of the row, so that copies stay together.

    Where few different rows repeat by chance (`Content.is_few`) that would put all rows of a kind into one split: then
    the first of equal rows goes where its content says and each other one by a hash of content and number.  Equal rows
    cannot be told apart, so which of them is which does not matter: the outcome still depends on features and target
    alone, and more rows leave the first ones where they were.
    """

    split: HashSplit

    def code(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        if not self.split.key:
            return super().code(values, row_hash_B)
        return split_codes(hash_of(values, self.split.key), self.split), []

    def borders(self, ranks: Ranks, content: Content) -> SplitState:
        # Whoever drops copies that leak wants none in two splits.
        divides = not self.split.key and self.split.leaks != "drop" and content.is_few
        return {EACH_COPY: True} if divides else {}

    def decided(self, keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState) -> np.ndarray:
        number = np.zeros(len(row_hash_B), np.uint64)
        if state.get(EACH_COPY):
            undecided = np.flatnonzero(keys.code == UNDECIDED)
            ranks = undecided[np.argsort(row_hash_B[undecided], kind="stable")]
            ordered = row_hash_B[ranks]
            number[ranks] = np.arange(len(ranks)) - np.searchsorted(ordered, ordered)
        return split_codes(row_hash_B + number * _COPY, self.split)


def split_codes(hash_B: np.ndarray, split: HashSplit) -> np.ndarray:
    """The split of each row by its hash alone, uint8 [B]."""
    share_B = (mix(hash_B ^ seed(split.salt)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    codes = np.full(len(hash_B), TRAIN, np.uint8)
    codes[share_B < split.test_frac + split.val_frac] = VAL
    codes[share_B < split.test_frac] = TEST
    return codes
