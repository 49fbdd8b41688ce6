"""Train, val or test for every row: what the shuffle asks of all kinds of split.

`split_keys` says of the rows of one block what decides about them: the split itself where the row alone (its hash, its
word, its file) settles it, else the order it is cut in.  `decide` finds, over the tallies of all blocks, where that
order is cut, and `codes` compares with those borders.  To add a kind: a variant in spec/splits.py, a `SplitKind`
(base.py), and a line in KINDS.

Nothing here may change a result: data sets prepared years apart must agree.  tests/unit/data/test_split.py holds
golden values.  B rows; hashes are uint64 [B].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.splits.base import UNDECIDED, Misfits, SplitKeys, SplitKind, SplitState, hash_of
from raypipe.data.splits.content import Content
from raypipe.data.splits.fractions import Grouped, Stratified, refuse_no_classes
from raypipe.data.splits.hashed import Hashed
from raypipe.data.splits.ranks import Ranks, Tally, tallied
from raypipe.data.splits.ready_made import ByColumn, ByFolder
from raypipe.data.splits.timed import Timed
from raypipe.data.table.row_hash import SECOND_LANE, Values
from raypipe.spec.data import DataSpec

KINDS: dict[str, type[SplitKind]] = {
    "hash": Hashed,
    "stratified": Stratified,
    "grouped": Grouped,
    "time": Timed,
    "column": ByColumn,
    "directories": ByFolder,
}


def split_keys(
    values: Mapping[str, Values], row_hash_B: np.ndarray, spec: DataSpec, forced: int | None = None
) -> tuple[SplitKeys, list[Misfits]]:
    """What decides where the rows of a block go.

    Args:
        values: of the columns that the split reads.
        row_hash_B: of features and target.
        forced: a split all rows belong to, because their file does.
    Returns:
        The keys, and the rows that no split can take; their keys mean nothing.
    Raises:
        DataError: the column cannot split rows at all.
    """
    kind = KINDS[spec.split.kind](spec)
    misfits: list[Misfits] = []
    code = np.full(len(row_hash_B), UNDECIDED if forced is None else forced, np.uint8)
    if forced is None:
        code, misfits = kind.code(values, row_hash_B)
    order, stratum, group, check = None, None, None, None
    if kind.has_borders:  # of rows that need none too: all blocks have the same columns
        order, unplaced = kind.order(values, row_hash_B)
        stratum = kind.stratum(values)
        misfits = [*misfits, *(unplaced if forced is None else [])]
    if spec.watched_groups:
        group, check = (hash_of(values, spec.watched_groups, lane) for lane in (b"", SECOND_LANE))
    return SplitKeys(code, order, stratum, group, check), misfits


def tally(keys: SplitKeys, values: Mapping[str, Values], spec: DataSpec) -> Tally:
    """What the good rows of one block say about the borders.

    Raises:
        DataError: the column of a stratified split holds no classes.
    """
    undecided = np.flatnonzero(keys.code == UNDECIDED)
    if keys.order is None or not len(undecided):
        return Tally()
    names: dict[int, str] = {}
    stratum = None if keys.stratum is None else keys.stratum[undecided]
    if stratum is not None:
        by = str(spec.stratify_by)
        strata, first = np.unique(stratum, return_index=True)
        refuse_no_classes(len(strata), by)
        names = {int(s): _shown(values[by][int(row)]) for s, row in zip(strata, undecided[first], strict=True)}
    return tallied(keys.order[undecided], stratum, names)


def decide(tallies: Callable[[], Iterable[Tally]], content: Content, spec: DataSpec) -> SplitState:
    """Where the borders between the splits are, over all rows.

    Args:
        tallies: gives those of all blocks, one after another, each time it is called.
        content: of all rows.
    Raises:
        DataError: a class, a group or a time cannot be in the splits that the spec wants.
    """
    return {"kind": spec.split.kind, **KINDS[spec.split.kind](spec).borders(Ranks(tallies), content)}


def codes(keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState, spec: DataSpec) -> np.ndarray:
    """The split of each row.

    Args:
        state: of `decide`, over these rows or over earlier ones.
    Returns:
        uint8 [B], indices into SPLITS.
    """
    undecided = keys.code == UNDECIDED
    if not undecided.any():
        return keys.code
    found = KINDS[spec.split.kind](spec).decided(keys, row_hash_B, state)
    return np.where(undecided, found, keys.code)


def _shown(value: Any) -> str:
    text = repr(value.as_py() if isinstance(value, pa.Scalar) else value.tolist())
    return text if len(text) <= 80 else text[:77] + "..."
