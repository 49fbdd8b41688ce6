"""What a kind of split is, and what decides about a row while it travels.  B rows; hashes are uint64 [B]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.splits.content import Content
from raypipe.data.splits.ranks import Ranks
from raypipe.data.table.names import CODE, GROUP, KEY_COLUMNS, ORDER, STRATUM
from raypipe.data.table.row_hash import Values, row_hash
from raypipe.spec.data import DataSpec

SPLITS = ("train", "val", "test")
"""Index in this tuple is a row's split code."""

TRAIN, VAL, TEST = 0, 1, 2

UNDECIDED = 255
"""Code of a row whose split depends on other rows too."""

SplitState = dict[str, Any]
"""What all rows together decided: JSON-able, kept with the data set, so that later rows are split as the first ones
were."""

Misfits = tuple[np.ndarray, str]
"""Which rows (bool [B]) no split can take, and why."""


@dataclass(frozen=True)
class SplitKeys:
    """What decides where the rows of a block go; it travels with them.

    Attributes:
        code: uint8 [B], index into SPLITS, or UNDECIDED.
        order: uint64, int64 or float64 [B]: undecided rows are cut into splits in this order.
        stratum: uint64 [B]: each stratum is cut by itself.
        group: uint64 [B]: which group a row belongs to, where groups are watched.
        group_check: uint64 [B], a second hash of the group; it does not travel with the rows.
    """

    code: np.ndarray
    order: np.ndarray | None = None
    stratum: np.ndarray | None = None
    group: np.ndarray | None = None
    group_check: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> SplitKeys:
        """Of some rows: positions, or a bool mask."""
        others = (self.order, self.stratum, self.group, self.group_check)
        return SplitKeys(self.code[rows], *(None if values is None else values[rows] for values in others))

    def columns(self) -> dict[str, np.ndarray]:
        """As columns of the table they travel in."""
        named = {CODE: self.code, ORDER: self.order, STRATUM: self.stratum, GROUP: self.group}
        return {name: values for name, values in named.items() if values is not None}

    @classmethod
    def from_columns(cls, table: pa.Table) -> SplitKeys:
        """Out of a table, see `columns`."""
        there = {name: table[name].to_numpy() for name in KEY_COLUMNS if name in table.column_names}
        return cls(there[CODE], there.get(ORDER), there.get(STRATUM), there.get(GROUP))


class SplitKind:
    """One kind of split; `split` is its variant in spec/splits.py.

    A kind says where a row goes by the row alone (`code`), or gives the order in which rows are cut (`order`), finds
    over all rows where that order is cut (`borders`), and compares rows with those borders (`decided`).
    """

    has_borders: bool = False
    """Whether rows are cut in an order, at borders that depend on all of them."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.split: Any = spec.split

    def code(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        """uint8 [B], by the row alone, where not all rows belong to one split; and rows that no split can take.

        Raises:
            DataError: the column cannot split rows at all.
        """
        return np.full(len(row_hash_B), UNDECIDED, np.uint8), []

    def order(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        """uint64, int64 or float64 [B]; and rows that have no place in it. Only where `has_borders`.

        Raises:
            DataError: the column cannot order rows.
        """
        raise NotImplementedError

    def stratum(self, values: Mapping[str, Values]) -> np.ndarray | None:
        """uint64 [B]: each stratum is cut by itself; None: there is one."""
        return None

    def borders(self, ranks: Ranks, content: Content) -> SplitState:
        """What all rows together decide; `ranks` holds the undecided ones.

        Raises:
            DataError: a class, a group or a time cannot be in the splits that the spec wants.
        """
        return {}

    def decided(self, keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState) -> np.ndarray:
        """uint8 [B]: the split of each row, by what `borders` gave; rows with a code of their own do not count."""
        return keys.code


def hash_of(values: Mapping[str, Values], names: Iterable[str], lane: bytes = b"") -> np.ndarray:
    """The hash of some columns."""
    return row_hash({name: values[name] for name in names}, lane)


def by_hash(order: np.ndarray, val_below: Any, test_below: Any) -> np.ndarray:
    """Test has the smallest orders, then val, then train; each border for all rows, or one a row."""
    code = np.full(len(order), TRAIN, np.uint8)
    code[order < val_below] = VAL
    code[order < test_below] = TEST
    return code
