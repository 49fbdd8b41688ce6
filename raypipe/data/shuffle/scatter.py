"""What happens to the rows of neighbouring blocks, away from the driver.

blocks --check--> good rows --cut by range of row id--> pieces.  gather.py makes shards of the pieces that all tasks
have in one range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raypipe.data.checks import duplicates
from raypipe.data.checks.bad_rows import BadRows
from raypipe.data.checks.classes import refuse_no_classes
from raypipe.data.checks.examine import exact_values, examine, good_rows, keep_good
from raypipe.data.checks.expectations import bad_reasons, keys_of, tallies, violations
from raypipe.data.checks.rule import BlockTallies
from raypipe.data.checks.schema import BlockTypes, Schema, schema_of, types_of
from raypipe.data.shards import tensor_array
from raypipe.data.shuffle.row_ranges import RowRange, cut_by_range
from raypipe.data.splits import ranks
from raypipe.data.splits.base import SplitKeys
from raypipe.data.splits.content import Content, content_of
from raypipe.data.splits.leaks import group_parts
from raypipe.data.splits.split import split_keys, tally
from raypipe.data.table import columns, label_sets, packing
from raypipe.data.table.content import content_sums
from raypipe.data.table.names import ROW_ID, SEEN_ID
from raypipe.data.table.row_hash import Values, row_hash, with_whole_numbers
from raypipe.data.tasks import keep_freed
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec


@dataclass(frozen=True)
class ScatterJob:
    """What every block of a source is checked against.

    Attributes:
        schema: None only looks at types.
        others: profiles the schema was made from; a block that would change it is looked at and nothing more.  None:
            it was made from all blocks.
    """

    spec: DataSpec
    schema: Schema | None
    others: tuple[BlockTypes, ...] | None

    @property
    def unique(self) -> dict[int, tuple[str, ...]]:
        """Position of each `unique` expectation -> its columns."""
        return keys_of(self.spec.expectations)

    @property
    def has_keys(self) -> bool:
        """Whether rows of one group or one key have to meet, not only those of one row id."""
        return bool(self.unique or self.spec.watched_groups)

    def num_returns(self, num_ranges: int) -> int:
        """Objects that `scatter_blocks` returns."""
        return 2 + num_ranges + self.has_keys


@dataclass(frozen=True)
class BlockSummary:
    """What the driver learns of a block; it does not grow with the rows.

    Attributes:
        is_checked: False where the block does not fit the schema it was checked against.
        labels: classification: label -> good rows.
        content: summary of the good rows, with every column that the spec reads; see content.py.
        different: which different rows there are; the driver keeps that of all blocks together.
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
    different: Content | None = None
    num_bytes: int = 0
    raw_bytes: int = 0
    target_sum: float = 0.0


@dataclass(frozen=True)
class ScatterSummary:
    """What the driver learns of the blocks of one task.

    Attributes:
        piece_bytes: of each range; none where a block was only looked at.
    """

    blocks: list[BlockSummary]
    piece_bytes: list[int]


@dataclass(frozen=True)
class BlockKeys:
    """The groups and keys of one block, or those in one range of their hashes.

    Attributes:
        groups: None where no group is watched.
        keys: position of a `unique` expectation -> duplicates.key_parts.
    """

    groups: SplitKeys | None
    keys: dict[int, np.ndarray]


@dataclass(frozen=True)
class _Checked:
    """One block whose rows were checked; `table`: its good rows, packed. None: it was only looked at."""

    summary: BlockSummary
    table: pa.Table | None = None
    tally: ranks.Tally | None = None
    watched: BlockKeys | None = None


def scatter_blocks(job: ScatterJob, num_ranges: int, source: str, forced: int | None, *blocks: pa.Table) -> list[Any]:
    """Check and hash the rows of neighbouring blocks, and cut the good ones by range of row id.

    Args:
        source: the field of the spec that the rows come from.
        forced: a split all rows belong to, whatever their hash.
    Returns:
        The ScatterSummary, the ranks.Tally, one packed table a range as a buffer (row id, split keys, features,
        target), and where something is watched the BlockKeys of each block.
    Raises:
        DataError: the target or the column of the split cannot be what the spec says it is.
    """
    keep_freed()
    checked = [_check(block, job, source, forced) for block in blocks]
    summaries = [one.summary for one in checked]
    tables = [one.table for one in checked if one.table is not None]
    if len(tables) < len(checked):
        return [ScatterSummary(summaries, []), *[None] * (job.num_returns(num_ranges) - 1)]
    merged = ranks.merged([one.tally for one in checked if one.tally is not None])
    watched = [one.watched for one in checked]
    table = tables[0] if len(tables) == 1 else packing.concat(tables)
    del checked, tables
    pieces = cut_by_range(table, RowRange(), num_ranges)
    summary = ScatterSummary(summaries, [piece.size for piece in pieces])
    return [summary, merged, *pieces, *([watched] if job.has_keys else [])]


def _check(block: pa.Table, job: ScatterJob, source: str, forced: int | None) -> _Checked:
    spec, schema = job.spec, job.schema
    profile = types_of(block)
    if schema is None or not _fits(profile, job):
        return _Checked(BlockSummary(profile))
    values, reasons = examine(block, schema)
    judged = exact_values(block, schema, values)
    broken = violations(judged, schema.expected, spec.expectations, good_rows(block.num_rows, reasons))
    reasons = [*reasons, *bad_reasons(broken, spec.expectations)]
    counted = BlockTallies(block.num_rows, tallies(broken, judged), source)
    exact = with_whole_numbers(values, block, schema.whole)
    wanted = dict.fromkeys([*schema.features, *schema.targets])
    row_id = row_hash({name: exact[name] for name in wanted})
    seen_id = row_id if exact.keys() == wanted.keys() else row_hash(exact)
    keys, misfits = split_keys(exact, row_id, spec, forced)
    reasons += misfits
    good = good_rows(block.num_rows, reasons)
    position = np.flatnonzero(good)
    values, bad = keep_good(block, values, reasons, schema)
    unique = {i: duplicates.keys_of(exact, names, good) for i, names in job.unique.items()}
    if bad.num_rows:
        row_id, seen_id, keys = row_id[position], seen_id[position], keys.take(position)
    stored = {name: _to_arrow(values[name]) for name in schema.stored}
    ids = {ROW_ID: row_id, **({SEEN_ID: seen_id} if unique else {})}
    # The fewer bytes, the fewer are moved, and spilled where memory is short.
    table = packing.packed(pa.table({**ids, **keys.columns(), **stored}))
    labels = _labels(table, schema)
    refuse_no_classes(labels, schema.target)
    summary = BlockSummary(
        profile,
        True,
        len(row_id),
        bad,
        counted,
        labels,
        content_sums(seen_id),
        content_of(values, schema.features, row_id, spec),
        table.nbytes,
        raw_bytes=sum(columns.raw_bytes(values[name]) for name in schema.stored),
        target_sum=_target_sum(values, schema),
    )
    watched = None
    if job.has_keys:
        groups = group_parts(keys, 1)
        found = {i: duplicates.key_parts(key, row_id, seen_id, position, 1)[0] for i, key in unique.items()}
        watched = BlockKeys(groups[0] if groups else None, found)
    return _Checked(summary, table, tally(keys, values, spec), watched)


def _labels(table: pa.Table, schema: Schema) -> Counter[Any]:
    if schema.task == "classification":
        return columns.counts(table[schema.targets[0]])
    if schema.label_sets is None:
        return Counter()
    stored = packing.unpacked(table.select(schema.targets))
    texts = len(schema.targets) == 1 and schema.columns[schema.targets[0]].dtype == "string"
    return label_sets.counted(
        stored, schema.targets, schema.label_sets.separator or label_sets.OF_LISTS if texts else None
    )


def _target_sum(values: Mapping[str, Values], schema: Schema) -> float:
    name, *others = schema.targets
    if schema.task != "regression" or others:
        return 0.0
    return float(np.sum(values[name]))


def _fits(profile: BlockTypes, job: ScatterJob) -> bool:
    if job.others is None:
        return True
    try:
        return schema_of(job.spec, [*job.others, profile]) == job.schema
    except DataError:  # the whole source is judged later, with what all blocks hold
        return False


def _to_arrow(values: Values) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    return tensor_array(values) if values.ndim > 1 else pa.array(values)


profile_task = ray.remote(types_of)
scatter_task: Any = ray.remote(scatter_blocks)
