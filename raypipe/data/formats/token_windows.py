"""A text in windows that hold a number of tokens at most, where a token is no character.

Windows share no token, and end where a character or, with merged byte pairs, a word does: so the tokens of a window by
itself are those of the whole text there.  Shape letters: N units, the parts of a text that are not divided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
import pyarrow as pa

from raypipe.data.spelling import merging
from raypipe.data.transforms import words
from raypipe.data.transforms.base import pc

MAX_CHARACTER = 4
"""Bytes."""

NO_UTF8 = re.compile("[\ud800-\udfff]")

Units = Callable[[str], tuple[np.ndarray, np.ndarray]]
"""A text -> of each of its units in order, how many characters and how many tokens it is, int64 [N] each."""


def bytes_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Units where a token is a byte: characters."""
    point_N = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    size_N = 1 + (point_N >= 0x80).astype(np.int64) + (point_N >= 0x800) + (point_N >= 0x10000)
    return np.ones(len(point_N), np.int64), size_N


def merged_of(merges: list[tuple[int, int]], size: int) -> Units:
    """Units where tokens are merged byte pairs: words. One of more than `size` tokens becomes windows of its own, whose
    characters fit however they are merged."""
    tokens = merging(merges)

    def units(text: str) -> tuple[np.ndarray, np.ndarray]:
        found, _ = words.pieces(pa.array([without_bad_bytes(text)], pa.string()))
        chars = pc.utf8_length(found).to_numpy(zero_copy_only=False).astype(np.int64)
        sizes = tokens.num_tokens(found)
        is_long = sizes > size
        each = size // MAX_CHARACTER
        num_parts = np.where(is_long, -(-chars // each), 1)
        part_chars = np.repeat(np.where(is_long, each, chars), num_parts)
        ends = np.cumsum(num_parts) - 1
        part_chars[ends] = np.where(is_long, chars - each * (num_parts - 1), chars)
        return part_chars, np.repeat(np.where(is_long, size, sizes), num_parts)

    return units


def token_windows(pieces: Iterable[str], units: Units, size: int) -> Iterator[tuple[str, int]]:
    """Windows over the text that all pieces make, and how many of its characters come before each.

    One of less than 2 tokens, of which none would be predicted, is left out.

    Args:
        size: the most tokens of a window.
    """
    text, before = "", 0
    for piece in chain(pieces, [None]):
        text += piece or ""
        start = 0
        for stop, num_tokens in _ends(text, units, size, is_all=piece is None):
            if num_tokens > 1:
                yield text[start:stop], before + start
            start = stop
        text, before = text[start:], before + start


def _ends(text: str, units: Units, size: int, *, is_all: bool) -> Iterator[tuple[int, int]]:
    """Where windows end, in characters, and how many tokens they hold.

    Args:
        is_all: the text ends here; else its last unit may go on, and the window it is in is not complete.
    """
    if not text:
        return
    chars_N, tokens_N = units(text)
    last = len(chars_N) if is_all else len(chars_N) - 1
    end_N, sum_N = np.cumsum(chars_N[:last]), np.cumsum(tokens_N[:last])
    first, before = 0, 0
    while first < last:
        after = int(np.searchsorted(sum_N, before + size, side="right"))
        if after == last and not is_all:
            return
        yield int(end_N[after - 1]), int(sum_N[after - 1]) - before
        first, before = after, int(sum_N[after - 1])


def without_bad_bytes(text: str) -> str:
    """As many characters, where those that stand for bytes that are no UTF-8 are U+FFFD."""
    return NO_UTF8.sub("\ufffd", text)
