"""What happens to the rows of one block, away from the driver.

block --check--> good rows --cut by range of row id--> pieces.  ranges.py makes shards of the pieces that all blocks
have in one range.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raypipe.data.checks import duplicates
from raypipe.data.checks.bad_rows import BadRows
from raypipe.data.checks.examine import exact_values, examine, good_rows, keep_good
from raypipe.data.checks.expectations import bad_reasons, keys_of, tallies, violations
from raypipe.data.checks.rule import BlockTallies
from raypipe.data.checks.schema import BlockTypes, Schema, refuse_no_classes, schema_of, types_of
from raypipe.data.shards import tensor_array
from raypipe.data.shuffle.ranges import range_numbers
from raypipe.data.splits import borders
from raypipe.data.splits.leaks import group_parts
from raypipe.data.splits.split import SplitKeys, content_columns, split_keys
from raypipe.data.table import columns, packing
from raypipe.data.table.content import content_sums
from raypipe.data.table.hashing import Values, row_ids
from raypipe.data.table.names import ROW_ID
from raypipe.data.tasks import keep_freed
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec

FINE_RANGES = 2**16
"""Ranges of row id, at most, that the rows of a piece are ordered by: those of one shard then lie close together, and
are picked in a third of the time."""


@dataclass(frozen=True)
class BlockOrder:
    """What every block of a source is checked against.

    Attributes:
        schema: None only looks at types.
        others: profiles the schema was made from; a block that would change it is looked at and nothing more.  None:
            it was made from all blocks.
        num_ranges: equal ranges of row ids that the good rows are cut into.
    """

    spec: DataSpec
    schema: Schema | None
    others: tuple[BlockTypes, ...] | None
    num_ranges: int

    @property
    def unique(self) -> dict[int, tuple[str, ...]]:
        """Position of each `unique` expectation -> its columns."""
        return keys_of(self.spec.expectations)

    @property
    def num_watched(self) -> int:
        """Ranges of group and key hashes; 0 where only rows of one row id have to meet."""
        return self.num_ranges if self.unique or self.spec.watched_groups else 0

    @property
    def num_returns(self) -> int:
        return 2 + self.num_ranges + self.num_watched


@dataclass(frozen=True)
class BlockSummary:
    """What the driver learns of a block; it does not grow with the rows.

    Attributes:
        is_checked: False where the block does not fit the schema it was checked against.
        labels: classification: label -> good rows.
        content: summary of the good rows, see content.py.
        num_bytes: of the pieces.
        raw_bytes: of the values that are stored; a function of the rows alone, however a block keeps them.
        target_sum: regression: of the targets of good rows.
    """

    profile: BlockTypes
    is_checked: bool = False
    num_good: int = 0
    bad: BadRows = field(default_factory=BadRows)
    tallies: BlockTallies | None = None
    labels: Counter[Any] = field(default_factory=Counter)
    content: np.ndarray | None = None
    num_bytes: int = 0
    raw_bytes: int = 0
    target_sum: float = 0.0


@dataclass(frozen=True)
class Watched:
    """What one block has in one range of group and key hashes.

    Attributes:
        groups: None where no group is watched.
        keys: position of a `unique` expectation -> duplicates.key_parts.
    """

    groups: SplitKeys | None
    keys: dict[int, np.ndarray]


def cut_block(block: pa.Table, order: BlockOrder, source: str, forced: int | None) -> list[Any]:
    """Check and hash the rows of one block, and cut the good ones by range of row id.

    Args:
        source: the field of the spec that the rows come from.
        forced: a split all rows belong to, whatever their hash.
    Returns:
        The BlockSummary, the borders.Tally, one packed table a range as a buffer (row id, split keys, features,
        target), and one Watched a range where there is something to watch.
    Raises:
        DataError: the target or the column of the split cannot be what the spec says it is.
    """
    keep_freed()
    spec, schema = order.spec, order.schema
    profile = types_of(block)
    if schema is None or not _fits(profile, order):
        return [BlockSummary(profile), *[None] * (order.num_returns - 1)]
    values, reasons = examine(block, schema)
    exact = exact_values(block, schema, values)
    found = violations(exact, schema.expected, spec.expectations, good_rows(block.num_rows, reasons))
    reasons = [*reasons, *bad_reasons(found, spec.expectations)]
    counted = BlockTallies(block.num_rows, tallies(found, exact), source)
    row_id = row_ids({name: values[name] for name in content_columns(values, spec)})
    keys, misfits = split_keys(values, row_id, spec, forced)
    reasons += misfits
    values, bad = keep_good(block, values, reasons, schema)
    position = np.flatnonzero(good_rows(block.num_rows, reasons))
    if bad.num_rows:
        row_id, keys = row_id[position], keys.take(position)
    wanted = dict.fromkeys([*schema.features, schema.target])
    stored = {name: _to_arrow(values[name]) for name in wanted}
    # The fewer bytes, the fewer are moved, and spilled where memory is short.
    table = packing.packed(pa.table({ROW_ID: row_id, **keys.columns(), **stored}))
    labels = columns.counts(table[schema.target]) if schema.task == "classification" else Counter()
    refuse_no_classes(labels, schema.target)
    summary = BlockSummary(
        profile,
        True,
        len(row_id),
        bad,
        counted,
        labels,
        content_sums(row_id),
        table.nbytes,
        raw_bytes=sum(columns.raw_bytes(values[name]) for name in wanted),
        target_sum=0.0 if schema.task == "classification" else float(np.sum(values[schema.target])),
    )
    watched: list[Watched] = []
    if order.num_watched:
        groups = group_parts(keys, order.num_watched) or [None] * order.num_watched
        parts = {
            i: duplicates.key_parts(values, names, row_id, position, order.num_watched)
            for i, names in order.unique.items()
        }
        watched = [Watched(group, {i: parts[i][n] for i in parts}) for n, group in enumerate(groups)]
    return [summary, borders.tally(keys, values, spec), *_pieces(table, row_id, order.num_ranges), *watched]


def _fits(profile: BlockTypes, order: BlockOrder) -> bool:
    if order.others is None:
        return True
    try:
        return schema_of(order.spec, [*order.others, profile]) == order.schema
    except DataError:  # the whole source is judged later, with what all blocks hold
        return False


def _pieces(table: pa.Table, row_id: np.ndarray, num_ranges: int) -> list[pa.Buffer]:
    """The rows of each range. A buffer is put into the object store, and fetched, faster than a table is."""
    if num_ranges == 1:
        return [packing.to_buffer(table)]
    num_fine = num_ranges * (FINE_RANGES // num_ranges)
    number = range_numbers(row_id, num_fine).astype(np.uint16)
    rows = packing.picked(table, np.argsort(number, kind="stable"))
    ends = np.cumsum(np.bincount(number, minlength=num_fine).reshape(num_ranges, -1).sum(axis=1)).tolist()
    some = [rows.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    # A few rows do not take along all the distinct texts of the block.
    return [
        packing.to_buffer(packing.packed(piece) if packing.most_texts(piece) > len(piece) / 2 else piece)
        for piece in some
    ]


def _to_arrow(values: Values) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    return tensor_array(values) if values.ndim > 1 else pa.array(values)


profile_task = ray.remote(types_of)
cut_task: Any = ray.remote(cut_block)
