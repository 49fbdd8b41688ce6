"""Where rows of delimited text end, when values may hold line breaks between quotes."""

from __future__ import annotations

import numpy as np

NEWLINE, RETURN = b"\n\r"


def row_ends(
    data: bytes, inside: bool, *, delimiter: int, quote: int | None = ord('"'), escape: int | None = None
) -> tuple[np.ndarray, bool]:
    """Where rows end: after line breaks that are not between quotes.

    As in Arrow's parser a quote opens a value only at its beginning, and a doubled one inside is a quote.

    Args:
        inside: whether the bytes begin inside quotes.
        quote: None where no line break is inside quotes, or there are no quotes.
        escape: the sign after which a quote or a line break is one of the value.
    Returns:
        Offsets after each end, int64 [n], and whether the bytes end inside quotes.
    """
    byte = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(byte == NEWLINE)
    if b"\r" in data:
        returns = np.flatnonzero(byte[:-1] == RETURN)
        breaks = np.union1d(breaks, returns[byte[returns + 1] != NEWLINE])
    at = np.flatnonzero(byte == quote) if quote is not None else breaks[:0]
    if escape is not None and (escaped := _escaped(byte, escape)).any():
        at = at[~escaped[at]]
        breaks = breaks[~escaped[breaks]]
    if not len(at):  # as in most files; numpy takes longer over nothing than over a small file
        return (breaks[:0] if inside else breaks) + 1, inside
    opening = at[int(inside) :: 2]
    starts = (delimiter, NEWLINE, RETURN, *(() if quote is None else (quote,)))
    if quote is not None and not (np.isin(byte[opening - 1], starts) | (opening == 0)).all():
        at = _switching(byte, at, inside, quote, starts)
    is_inside = (np.searchsorted(at, breaks) + inside) % 2 == 1
    return breaks[~is_inside] + 1, bool((len(at) + inside) % 2)


def text_behind(data: bytes, ends: np.ndarray, *, delimiter: int, quote: int, escape: int | None = None) -> list[int]:
    """The rows in which something stands behind a closing quote, as where one before it is missing.

    Args:
        ends: of the rows of `data`, int64 [n].
    """
    byte = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(byte == quote)
    if not len(at):
        return []
    if escape is not None:
        at = at[~_escaped(byte, escape)[at]]
    starts = (delimiter, NEWLINE, RETURN, quote)
    opening = at[::2]
    if not (np.isin(byte[opening - 1], starts) | (opening == 0)).all():
        at = _switching(byte, at, False, quote, starts)
    closing = at[1::2]
    after = closing[closing + 1 < len(byte)] + 1
    odd = after[~np.isin(byte[after], (*starts, ord(" ")))]
    return np.unique(np.searchsorted(ends, odd, side="right")).tolist()


def _escaped(byte: np.ndarray, escape: int) -> np.ndarray:
    """Bool [n]: the bytes whose meaning the escape sign before them takes; of several such signs every other one."""
    signs = np.flatnonzero(byte == escape)
    if not len(signs):
        return np.zeros(len(byte), bool)
    is_first = np.append(True, np.diff(signs) != 1)
    run = np.maximum.accumulate(np.where(is_first, np.arange(len(signs)), 0))
    is_odd = (np.arange(len(signs)) - run) % 2 == 0
    escaped = np.zeros(len(byte) + 1, bool)
    escaped[signs[is_odd] + 1] = True
    return escaped[: len(byte)]


def _switching(byte: np.ndarray, at: np.ndarray, inside: bool, quote: int, starts: tuple[int, ...]) -> np.ndarray:
    """Those quotes that open or close a value; the others stand in the middle of one that is not quoted."""
    switching: list[int] = []
    for position in at.tolist():
        before = int(byte[position - 1])
        doubled = before == quote and switching[-1:] == [position - 1]
        if inside or position == 0 or doubled or (before != quote and before in starts):
            switching.append(position)
            inside = not inside
    return np.array(switching, np.int64)
