"""Where rows of delimited text end, when values may hold line breaks between quotes."""

from __future__ import annotations

import numpy as np

NEWLINE, RETURN, QUOTE = b'\n\r"'


def row_ends(data: bytes, inside: bool, *, delimiter: int, quotes: bool) -> tuple[np.ndarray, bool]:
    """Where rows end: after line breaks that are not between quotes.

    As in Arrow's parser a quote opens a value only at its beginning, and a doubled one inside is a quote.

    Args:
        inside: whether the bytes begin inside quotes.
        quotes: whether line breaks may be inside quotes at all.
    Returns:
        Offsets after each end, int64 [n], and whether the bytes end inside quotes.
    """
    byte = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(byte == NEWLINE)
    if b"\r" in data:
        returns = np.flatnonzero(byte[:-1] == RETURN)
        breaks = np.union1d(breaks, returns[byte[returns + 1] != NEWLINE])
    at = np.flatnonzero(byte == QUOTE) if quotes else breaks[:0]
    opening = at[int(inside) :: 2]
    starts = (delimiter, NEWLINE, RETURN, QUOTE)
    if not (np.isin(byte[opening - 1], starts) | (opening == 0)).all():
        at = _switching(byte, at, inside, starts)
    is_inside = (np.searchsorted(at, breaks) + inside) % 2 == 1
    return breaks[~is_inside] + 1, bool((len(at) + inside) % 2)


def _switching(byte: np.ndarray, at: np.ndarray, inside: bool, starts: tuple[int, ...]) -> np.ndarray:
    """Those quotes that open or close a value; the others stand in the middle of one that is not quoted."""
    switching: list[int] = []
    for position in at.tolist():
        before = int(byte[position - 1])
        doubled = before == QUOTE and switching[-1:] == [position - 1]
        if inside or position == 0 or doubled or (before != QUOTE and before in starts):
            switching.append(position)
            inside = not inside
    return np.array(switching, np.int64)
