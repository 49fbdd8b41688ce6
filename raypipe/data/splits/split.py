"""Train, val or test for every row: one mechanism for all kinds of split.

`split_keys` says of the rows of one block what decides about them: the split itself where the row alone (its hash, its
word, its file) settles it, else the order it is cut in.  borders.py finds, over all rows, where that order is cut, and
`codes` compares with those borders.

Nothing here may change a result: data sets prepared years apart must agree.  tests/unit/data/test_split.py holds
golden values.  B rows; hashes are uint64 [B].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.hashing import Values, mix, row_ids, seed
from raypipe.data.table.names import CODE, GROUP, KEY_COLUMNS, ORDER, STRATUM
from raypipe.data.table.times import instants
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.moments import WRITTEN_LIKE, microseconds
from raypipe.spec.splits import ColumnSplit, GroupedSplit, HashSplit, StratifiedSplit, TimeSplit

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

SPLITS = ("train", "val", "test")
"""Index in this tuple is a row's split code."""

TRAIN, VAL, TEST = 0, 1, 2

UNDECIDED = 255
"""Code of a row whose split depends on other rows too."""


SplitState = dict[str, Any]
"""Where the borders are: JSON-able, kept with the data set, so that later rows are split as the first ones were."""

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
    """

    code: np.ndarray
    order: np.ndarray | None = None
    stratum: np.ndarray | None = None
    group: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> SplitKeys:
        """Of some rows: positions, or a bool mask."""
        order, stratum, group = (None if v is None else v[rows] for v in (self.order, self.stratum, self.group))
        return SplitKeys(self.code[rows], order, stratum, group)

    def columns(self) -> dict[str, np.ndarray]:
        """As columns of the table they travel in."""
        named = {CODE: self.code, ORDER: self.order, STRATUM: self.stratum, GROUP: self.group}
        return {name: values for name, values in named.items() if values is not None}

    @classmethod
    def from_columns(cls, table: pa.Table) -> SplitKeys:
        """Out of a table, see `columns`."""
        there = {name: table[name].to_numpy() for name in KEY_COLUMNS if name in table.column_names}
        return cls(there[CODE], there.get(ORDER), there.get(STRATUM), there.get(GROUP))


def content_columns(columns: Iterable[str], spec: DataSpec) -> list[str]:
    """The columns that make a row what it is: all but the one that says which split it is in."""
    word = spec.split.column if isinstance(spec.split, ColumnSplit) else None
    return [name for name in columns if name != word]


def split_keys(
    values: Mapping[str, Values], row_id_B: np.ndarray, spec: DataSpec, forced: int | None = None
) -> tuple[SplitKeys, list[Misfits]]:
    """What decides where the rows of a block go.

    Args:
        values: of the columns that the split reads.
        row_id_B: `row_ids` of the content columns.
        forced: a split all rows belong to, because their file does.
    Returns:
        The keys, and the rows that no split can take; their keys mean nothing.
    Raises:
        DataError: the column cannot split rows at all.
    """
    split = spec.split
    code = np.full(len(row_id_B), UNDECIDED if forced is None else forced, np.uint8)
    order, stratum, misfits = None, None, []
    if isinstance(split, StratifiedSplit):
        order = mix(row_id_B ^ seed(split.salt))
        stratum = _ids(values, [str(spec.stratify_by)])
    elif isinstance(split, GroupedSplit):
        order = mix(_ids(values, split.group) ^ seed(split.salt))
    elif isinstance(split, TimeSplit) and split.by_share:
        order, misfits = _times(values[split.column], split.column)
    elif isinstance(split, TimeSplit) and forced is None:
        time, misfits = _times(values[split.column], split.column)
        code = _by_time(time, *_given_borders(split, values[split.column]))
    elif isinstance(split, HashSplit) and forced is None:
        code = split_codes(_ids(values, split.key) if split.key else row_id_B, split)
    elif isinstance(split, ColumnSplit) and forced is None:
        code, misfits = _by_word(values[split.column], split)
    if forced is not None:
        misfits = []
    group = _ids(values, spec.watched_groups) if spec.watched_groups else None
    return SplitKeys(code, order, stratum, group), misfits


def split_codes(key_B: np.ndarray, spec: HashSplit) -> np.ndarray:
    """The split of each row by its hash alone.

    Args:
        key_B: `row_ids` of the split key columns, or of the whole row.
    Returns:
        uint8 [B], indices into SPLITS.
    """
    share_B = (mix(key_B ^ seed(spec.salt)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    codes = np.full(len(key_B), TRAIN, np.uint8)
    codes[share_B < spec.test_frac + spec.val_frac] = VAL
    codes[share_B < spec.test_frac] = TEST
    return codes


def codes(keys: SplitKeys, state: SplitState, spec: DataSpec) -> np.ndarray:
    """The split of each row.

    Args:
        state: of `borders.decide`, over these rows or over earlier ones.
    Returns:
        uint8 [B], indices into SPLITS.
    """
    undecided = keys.code == UNDECIDED
    if keys.order is None or not undecided.any():
        return keys.code
    split, order = spec.split, keys.order
    if isinstance(split, TimeSplit):
        found = _by_time(order, state["val_from"], state["test_from"])
    elif isinstance(split, StratifiedSplit) and keys.stratum is not None:
        found = _by_stratum(order, keys.stratum, state["strata"], split)
    else:
        found = _by_hash(order, np.uint64(state["val_below"]), np.uint64(state["test_below"]))
        found[np.isin(order, np.array(state["train"], np.uint64))] = TRAIN
    return np.where(undecided, found, keys.code)


def _ids(values: Mapping[str, Values], names: Iterable[str]) -> np.ndarray:
    return row_ids({name: values[name] for name in names})


# --- by time ---------------------------------------------------------------------------------------------------------


def _times(values: Values, name: str) -> tuple[np.ndarray, list[Misfits]]:
    """Times as numbers that sort, int64 or float64 [B], and the rows that have none.

    Raises:
        DataError: the column cannot hold times.
    """
    if isinstance(values, pa.Array):
        order, missing = instants(values)
        return order, [(missing, f"'{name}' is no time; write it like {WRITTEN_LIKE}")]
    if values.ndim > 1 or values.dtype.kind not in "iuf":
        what = f"arrays of shape {list(values.shape[1:])}" if values.ndim > 1 else str(values.dtype)
        raise DataError(
            f"data.split: '{name}' holds {what}; a time is a number, a date, or a date and a time of day",
            "name the column that holds the time in data.split.column",
        )
    if values.dtype.kind == "f":
        return values.astype(np.float64), [(np.isnan(values), f"'{name}' is no time")]
    order = values.astype(np.int64)
    return order, [((order < 0) & (values > 0), f"'{name}' is no time: it is above 2**63")]


def _given_borders(split: TimeSplit, values: Values) -> list[Any]:
    """val_from and test_from, in the numbers that `_times` gives.

    Raises:
        DataError: the column holds numbers and a border is a date, or the other way round.
    """
    borders: list[Any] = []
    for moment in (split.val_from, split.test_from):
        if moment is not None and isinstance(moment, str) != isinstance(values, pa.Array):
            raise DataError(
                f"data.split: the border {moment!r} cannot be compared with '{split.column}', which holds "
                f"{'text' if isinstance(values, pa.Array) else 'numbers'}",
                "write val_from and test_from as the column is: numbers, or dates and times",
            )
        if isinstance(moment, str):
            moment = microseconds(moment)
        is_float = isinstance(values, np.ndarray) and values.dtype.kind == "f"
        borders.append(moment if moment is None or is_float else ceil(moment))
    return borders


def _by_time(order: np.ndarray, val_from: float | None, test_from: float | None) -> np.ndarray:
    code = np.full(len(order), TRAIN, np.uint8)
    for border, later in ((val_from, VAL), (test_from, TEST)):
        if border is not None:
            code[order >= border] = later
    return code


# --- by word ---------------------------------------------------------------------------------------------------------


def _by_word(values: Values, split: ColumnSplit) -> tuple[np.ndarray, list[Misfits]]:
    code = np.full(len(values), UNDECIDED, np.uint8)
    for name, words in split.words.items():
        code[_is_one_of(values, words)] = SPLITS.index(name)
    meant = "; ".join(f"{name}: {', '.join(map(repr, words))}" for name, words in split.words.items() if words)
    return code, [(code == UNDECIDED, f"'{split.column}' is none of the values that data.split knows ({meant})")]


def _is_one_of(values: Values, words: Sequence[str | int | bool]) -> np.ndarray:
    if isinstance(values, pa.Array):
        texts = [word for word in words if isinstance(word, str)]
        return pc.is_in(values, pa.array(texts, pa.string())).to_numpy(zero_copy_only=False)
    same = [w for w in words if not isinstance(w, str) and isinstance(w, bool) == (values.dtype.kind == "b")]
    return np.isin(values, same) if values.ndim == 1 and same else np.zeros(len(values), bool)


# --- by hash, whose borders lie where shares of the rows want them ---------------------------------------------------


def _by_hash(order: np.ndarray, val_below: Any, test_below: Any) -> np.ndarray:
    """Test has the smallest orders, then val, then train; each border for all rows, or one a row."""
    code = np.full(len(order), TRAIN, np.uint8)
    code[order < val_below] = VAL
    code[order < test_below] = TEST
    return code


def _by_stratum(
    order: np.ndarray, stratum: np.ndarray, strata: Mapping[str, Sequence[int]], split: StratifiedSplit
) -> np.ndarray:
    """By the borders of each row's stratum; one that had no rows when they were drawn is cut as a hash split is."""
    known = np.array([int(name, 16) for name in sorted(strata)] or [0], np.uint64)
    elsewhere = [int(share * 2**64) for share in (split.test_frac + split.val_frac, split.test_frac)]
    borders = np.array([*(strata.get(f"{number:016x}", elsewhere) for number in known.tolist()), elsewhere], np.uint64)
    place = np.minimum(np.searchsorted(known, stratum), len(known) - 1)
    place = np.where(known[place] == stratum, place, len(known))
    return _by_hash(order, *borders[place].T)
