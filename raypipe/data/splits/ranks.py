"""Where ordered rows are cut, over all blocks, exactly and in little memory.

Each block is tallied: how many rows there are of each place in each stratum.  `Ranks` never holds all tallies: it looks
at one after another, narrows the places that a border may lie in until few are left, and looks at those.  It holds
MAX_ENTRIES entries of 24 bytes and one tally at a time, however many rows, classes, groups or times there are; each
border costs two passes or three.  S strata; U different places of a tally.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from raypipe.data.table.same_rows import starts_of_runs

MAX_ENTRIES = 2**20
"""Places that are held at a time, over all strata."""

NUM_ENDS = 3
"""Places at the end of each stratum that are known: there are as many splits."""

LAST = np.uint64(2**64 - 1)

_SIGN = np.uint64(2**63)

_NO_PLACES = np.zeros(0, np.uint64)

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Stratum (its number), place and rows of each entry [U]; in order of both, each once."""


def places(order: np.ndarray) -> np.ndarray:
    """Numbers as uint64 that sort alike; float64 without NaN."""
    if order.dtype.kind == "u":
        return order.astype(np.uint64, copy=False)
    if order.dtype.kind == "i":
        return order.astype(np.int64).view(np.uint64) ^ _SIGN
    bits = (order.astype(np.float64) + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) != 0, ~bits, bits ^ _SIGN)


def order_of(place: int, kind: str) -> int | float:
    """The number that `places` put there; `kind` is that of its dtype."""
    one = np.array([place], np.uint64)
    if kind == "u":
        return int(place)
    if kind == "i":
        return (one ^ _SIGN).view(np.int64)[0].item()
    return np.where(one >> np.uint64(63) != 0, one ^ _SIGN, ~one).view(np.float64)[0].item()


@dataclass(frozen=True)
class Tally:
    """How many undecided rows of one block there are of each place.

    Attributes:
        stratum, place: uint64 [U], in order of both, each pair once.
        rows: uint32 [U].
        names: stratum -> its value, as messages show it.
        kind: of the dtype of the order, see `order_of`.
    """

    stratum: np.ndarray = field(default_factory=_NO_PLACES.copy)
    place: np.ndarray = field(default_factory=_NO_PLACES.copy)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    names: dict[int, str] = field(default_factory=dict)
    kind: str = "u"


def tallied(order: np.ndarray, stratum: np.ndarray | None, names: dict[int, str]) -> Tally:
    """The tally of the rows of one block."""
    if stratum is None:
        stratum = np.zeros(len(order), np.uint64)
    s, p, rows = _summed([(stratum, places(order), np.ones(len(order), np.uint32))])
    return Tally(s, p, rows.astype(np.uint32), names, order.dtype.kind)


def merged(tallies: Sequence[Tally]) -> Tally:
    """The tally of the rows of several blocks, at least one."""
    if len(tallies) == 1:
        return tallies[0]
    stratum, place, rows = _summed([(tally.stratum, tally.place, tally.rows) for tally in tallies])
    names = {number: name for tally in tallies for number, name in tally.names.items()}
    kind = next((tally.kind for tally in tallies if len(tally.place)), "u")
    return Tally(stratum, place, rows.astype(np.uint32), names, kind)


class Ranks:
    """The undecided rows of all blocks, in order.

    Args:
        tallies: gives all tallies, one after another, each time it is called.
    """

    def __init__(self, tallies: Callable[[], Iterable[Tally]]) -> None:
        self._tallies = tallies
        self.names: dict[int, str] = {}
        self.kind = "u"
        self._without = _NO_PLACES
        self._held: Entries | None = None
        strata, num_entries = _NO_PLACES, 0
        for tally in tallies():
            strata = np.union1d(strata, tally.stratum[starts_of_runs(tally.stratum)])
            self.names.update(tally.names)
            num_entries += len(tally.place)
            if len(tally.place):
                self.kind = tally.kind
        self.strata = strata
        if num_entries <= MAX_ENTRIES:
            self._held = _summed(list(self._passed()))
        self._look_at_ends()

    def without(self, place: np.ndarray) -> Ranks:
        """The same rows but for those of some places, sorted, in all strata."""
        other = object.__new__(Ranks)
        other.__dict__.update(self.__dict__)
        other._without = place
        other._look_at_ends()
        return other

    def _look_at_ends(self) -> None:
        """rows: int64 [S]; ends: the last NUM_ENDS entries of each stratum; num_ends: int64 [S], how many these are."""
        self.rows = np.zeros(len(self.strata), np.int64)
        ends: Entries = (np.zeros(0, np.int64), _NO_PLACES, np.zeros(0, np.int64))
        for some in self._passed():
            self.rows += _per_stratum(some, len(self.strata))
            # The last entries of all blocks are among the last of each; their rows are counted below.
            ends = _last(_summed([ends, _last(some)]))
        self.num_ends = np.bincount(ends[0], minlength=len(self.strata))
        self._ends = ends[0], ends[1], self._rows_at(ends[0], ends[1])

    def _passed(self) -> Iterator[Entries]:
        every: Iterable[Entries] = (
            [self._held]
            if self._held is not None
            else ((np.searchsorted(self.strata, tally.stratum), tally.place, tally.rows) for tally in self._tallies())
        )
        for stratum, place, rows in every:
            if len(self._without):
                kept = ~np.isin(place, self._without)
                stratum, place, rows = stratum[kept], place[kept], rows[kept]
            yield stratum, place, rows

    def cut(self, sizes: Sequence[np.ndarray], spare: int = 0) -> list[np.ndarray]:
        """Cut every stratum into neighbouring parts with about as many rows as wanted, and at least one place each.

        Args:
            sizes: rows [S] of each part but the last, which takes what is left.
            spare: 1: the last part may be without places.
        Returns:
            Where each part but the last ends, places uint64 [S]: the first that is not in it.
        """
        borders: list[np.ndarray] = []
        before = np.zeros(len(self.strata), np.int64)
        for index, size in enumerate(sizes):
            wanted = before + size
            place, below, upto = self._at(np.clip(wanted, before + 1, self.rows))
            is_nearer = (wanted - below < upto - wanted) & (below > before)
            border = np.where(is_nearer, place, self._after(place))
            before = np.where(is_nearer, below, upto)
            latest, most = self._nth_last(len(sizes) - index - spare)
            before = np.where(border > latest, most, before)
            border = np.minimum(border, latest)
            borders.append(border)
        return borders

    def more_than(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of more rows than that, of a single stratum: uint64, sorted, and the rows of each.

        All are found that have more than 1 in MAX_ENTRIES of the rows.  Source: Misra and Gries 1982.
        """
        place, rows = _NO_PLACES, np.zeros(0, np.int64)
        for some in self._passed():
            _, place, rows = _summed([(np.zeros(len(place), np.int64), place, rows), some])
            if len(place) > MAX_ENTRIES:
                rows = rows - np.partition(rows, -MAX_ENTRIES - 1)[-MAX_ENTRIES - 1]
                place, rows = place[rows > 0], rows[rows > 0]
        rows = self._rows_at(np.zeros(len(place), np.int64), place)
        return place[rows > num_rows], rows[rows > num_rows]

    def _at(self, rank: np.ndarray) -> Entries:
        """The place of the row of each rank [S], from 1: place, rows before it, and rows up to its end."""
        num_strata = len(self.strata)
        step = max(1, (MAX_ENTRIES // max(1, num_strata)).bit_length() - 1)
        low, bits = np.zeros(num_strata, np.uint64), 64
        below = np.zeros(num_strata, np.int64)
        num_entries = MAX_ENTRIES + 1 if self._held is None else 0
        while num_entries > MAX_ENTRIES and bits:
            width = min(step, bits)
            rows, entries = np.zeros((2, num_strata << width), np.int64)
            for stratum, place, count in self._within(low, bits):
                cell = ((place - low[stratum]) >> np.uint64(bits - width)).astype(np.int64) + (stratum << width)
                rows += np.bincount(cell, count, len(rows)).astype(np.int64)
                entries += np.bincount(cell, minlength=len(entries))
            reached = np.cumsum(rows.reshape(num_strata, -1), axis=1) + below[:, None]
            cell = np.argmax(reached >= rank[:, None], axis=1)
            every = np.arange(num_strata)
            below = reached[every, cell] - rows.reshape(num_strata, -1)[every, cell]
            num_entries = int(entries.reshape(num_strata, -1)[every, cell].sum())
            bits -= width
            low += cell.astype(np.uint64) << np.uint64(bits)
        stratum, place, rows = _summed(list(self._within(low, bits)))
        starts = np.searchsorted(stratum, np.arange(num_strata))
        reached = np.cumsum(rows)
        reached += (below - np.append(0, reached)[starts])[stratum]
        has_rank = np.flatnonzero(reached >= rank[stratum])
        first = has_rank[np.unique(stratum[has_rank], return_index=True)[1]]
        return place[first], reached[first] - rows[first], reached[first]

    def _within(self, low: np.ndarray, bits: int) -> Iterator[Entries]:
        """Entries whose place lies in the 2**bits places from `low` [S] on."""
        for stratum, place, rows in self._passed():
            if bits < 64:
                start = low[stratum]
                kept = (place >= start) & ((place - start) >> np.uint64(bits) == 0)
                stratum, place, rows = stratum[kept], place[kept], rows[kept]
            yield stratum, place, rows

    def _after(self, place: np.ndarray) -> np.ndarray:
        """The next place [S] in each stratum; LAST where there is none."""
        found = np.full(len(self.strata), LAST)
        for stratum, some, _ in self._passed():
            later = some > place[stratum]
            np.minimum.at(found, stratum[later], some[later])
        return found

    def _nth_last(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The n-th place from the end of each stratum, LAST for n = 0, and the rows before it."""
        if not n:
            return np.full(len(self.strata), LAST), self.rows
        stratum, place, rows = self._ends
        ends = np.searchsorted(stratum, np.arange(len(self.strata)), side="right")
        after = sum((rows[ends - i] for i in range(1, n + 1)), np.zeros(len(self.strata), np.int64))
        return place[ends - n], self.rows - after

    def _rows_at(self, stratum: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Rows of some entries, which are in order."""
        wanted = stratum, place, np.zeros(len(place), np.int64)
        rows = wanted[2]
        for some in self._passed():
            near = np.isin(some[1], place)
            both = [wanted, (some[0][near], some[1][near], some[2][near])]
            is_wanted = _summed([(stratum, place, np.ones(len(place), np.int64)), (*both[1][:2], both[1][2] * 0)])[2]
            rows = rows + _summed(both)[2][is_wanted > 0]
        return rows


def _per_stratum(entries: Entries, num_strata: int) -> np.ndarray:
    return np.bincount(entries[0], entries[2], num_strata).astype(np.int64)


def _last(entries: Entries) -> Entries:
    """The last NUM_ENDS entries of each stratum."""
    stratum = entries[0]
    from_end = np.searchsorted(stratum, stratum, side="right") - np.arange(len(stratum))
    kept = from_end <= NUM_ENDS
    return stratum[kept], entries[1][kept], entries[2][kept]


def _summed(entries: Sequence[Entries]) -> Entries:
    """Entries put in order, each place of a stratum once."""
    stratum, place, rows = (
        (np.concatenate([some[i] for some in entries]) for i in range(3))
        if entries
        else (
            np.zeros(0, np.int64),
            _NO_PLACES,
            np.zeros(0, np.int64),
        )
    )
    ranks = np.lexsort((place, stratum))
    stratum, place = stratum[ranks], place[ranks]
    is_first = np.ones(len(place), bool)
    is_first[1:] = (stratum[1:] != stratum[:-1]) | (place[1:] != place[:-1])
    starts = np.flatnonzero(is_first)
    summed = np.add.reduceat(rows[ranks].astype(np.int64), starts) if len(starts) else np.zeros(0, np.int64)
    return stratum[starts], place[starts], summed
