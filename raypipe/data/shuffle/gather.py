"""The rows of all blocks whose ids lie in one range become shards of train, val and test.

A shard holds the rows of one split in one range of row ids, in order of their ids: which rows, in which order and
therefore which bytes depends on the rows alone, never on files, blocks or workers.  Rows of equal content meet here, so
this is where copies are found.  Row ids are uniform, so ranges of equal width hold about equally many rows; one
that has many copies of a row is cut further.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, shown
from raypipe.data.checks.duplicates import is_repeat
from raypipe.data.checks.losses import Targets
from raypipe.data.checks.split_drift import looks_at
from raypipe.data.profile import parts as profiles
from raypipe.data.profile.parts import ProfilePart
from raypipe.data.shards import features, to_bytes
from raypipe.data.shuffle import target
from raypipe.data.shuffle.row_ranges import range_numbers
from raypipe.data.shuffle.target import TargetPart
from raypipe.data.splits import leaks
from raypipe.data.splits.base import SPLITS, SplitKeys, SplitState
from raypipe.data.splits.leaks import SharedGroups, Twins
from raypipe.data.splits.split import codes
from raypipe.data.table import columns, label_sets, packing
from raypipe.data.table.names import KEY_COLUMNS, ROW_ID, SEEN_ID
from raypipe.data.table.same_rows import numbers_in_runs
from raypipe.data.tasks import keep_freed
from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.fitting import Contributions, contributions
from raypipe.data.transforms.passes import may_refuse
from raypipe.records import Shard, Signature
from raypipe.spec.data import DataSpec
from raypipe.spec.transforms import Transform
from raypipe.storage import Store, layout, open_store
from raypipe.storage.publish import sha256


@dataclass(frozen=True)
class GatherJob:
    """How the shards of a dataset version are made.

    Attributes:
        num_shards: ranges of row ids, one shard a split each; more only where a range has rows for more.
        rows_per_shard: what a range with many copies of a row is cut by; at least the rows of a range on average.
        signature: classes are not known yet.
        first: transforms whose statistics are taken while the rows are at hand.
        rows_before: train rows that are reckoned with in each range before a shard's.
    """

    spec: DataSpec
    store_uri: str
    name: str
    version: str
    num_shards: int
    rows_per_shard: int
    signature: Signature
    state: SplitState
    first: tuple[Transform, ...]
    rows_before: float

    @property
    def describes_splits(self) -> bool:
        """Whether each split is described by itself, as they may differ in more than chance."""
        return looks_at(self.spec)


Described = dict[str, ProfilePart]
"""Split -> what its rows hold; ALL_SPLITS where they are not told apart."""

ALL_SPLITS = "all"


@dataclass(frozen=True)
class ToSetAside:
    """Rows that only a look at all rows shows to be wrong.

    Attributes:
        groups: that are in several splits.
        repeats: rows that an expectation sets aside as repeats, see duplicates.all_repeats.
        reason: why repeats are set aside.
    """

    groups: SharedGroups
    repeats: np.ndarray
    reason: str


@dataclass(frozen=True)
class WrittenShard:
    """One shard that has been written.

    Attributes:
        labels: classification and multi-label: label -> rows.
        rows_before: train rows that are reckoned with before this shard.
        contributions: to the first transforms; of val and test they tell whether a value is refused.
        target: of each target of train, where the task is regression.
        weights: class, or None for all tasks but classification -> the sum of its rows' weights; empty where all rows
            count alike.
    """

    split: str
    shard: Shard
    labels: Counter[Any]
    rows_before: int
    contributions: Contributions | None
    target: tuple[TargetPart, ...]
    weights: dict[Any, float] = field(default_factory=dict)


@dataclass
class GatherSummary:
    """What the driver learns of neighbouring shards.

    Attributes:
        twins: rows that have equals.
        bad: rows that were set aside because of others, with `row_id`, `reason`, `row`.
    """

    stored: list[WrittenShard] = field(default_factory=list)
    twins: Twins = field(default_factory=Twins)
    bad: BadRows = field(default_factory=BadRows)


def gather_shards(job: GatherJob, first: int, last: int, aside: ToSetAside, *pieces: pa.Buffer) -> list[Any]:
    """Write the shards [first, last) of every split.

    Args:
        pieces: all rows of these shards (packing.to_buffer); rows outside are left alone.
    Returns:
        The GatherSummary, and what the rows hold that were stored.
    """
    keep_freed()
    store = open_store(job.store_uri)
    table = packing.concat([packing.from_buffer(piece) for piece in pieces])
    deciding = [name for name in (ROW_ID, SEEN_ID, *KEY_COLUMNS) if name in table.column_names]
    meeting = packing.unpacked(table.select(deciding))
    row_id = meeting[ROW_ID].to_numpy()
    number = range_numbers(row_id, job.num_shards)
    keys = SplitKeys.from_columns(meeting)
    seen_id = meeting[SEEN_ID].to_numpy() if SEEN_ID in deciding else row_id
    code = codes(keys, row_id, job.state, job.spec)
    table = table.drop_columns([name for name in deciding if name != ROW_ID])
    summary = GatherSummary()
    described: list[Described] = []
    for index in range(first, last):
        every = np.flatnonzero(number == index)
        every, content_number = _in_order(table, every, row_id, code, job.spec.weight)
        every = every[_kept(table, every, row_id, content_number, seen_id, code, keys, aside, job.spec, summary)]
        for part, some in enumerate(np.array_split(every, max(1, len(every) // job.rows_per_shard))):
            rows = some[np.argsort(code[some], kind="stable")]
            if not len(rows):
                continue
            mine = packing.picked(table, rows).combine_chunks()
            if not job.describes_splits:
                described.append({ALL_SPLITS: _described(mine, row_id[rows])})
            ends = np.cumsum(np.bincount(code[rows], minlength=len(SPLITS))).tolist()
            for split, (start, end) in enumerate(pairwise([0, *ends])):
                if start < end:
                    if job.describes_splits:
                        part_of = _described(mine.slice(start, end - start), row_id[rows[start:end]])
                        described.append({SPLITS[split]: part_of})
                    summary.stored.append(_store(mine.slice(start, end - start), split, index, part, job, store))
    return [summary, merge_profiles(*described)]


def _described(table: pa.Table, row_id: np.ndarray) -> ProfilePart:
    table = packing.unpacked(table)
    values = {name: columns.values(column) for name, column in columns.by_name(table).items() if name != ROW_ID}
    return profiles.part(values, row_id)


def _in_order(
    table: pa.Table, rows: np.ndarray, row_id: np.ndarray, code: np.ndarray, weight: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows in order of their ids; of copies, that of the latest split first, and of one split the lightest.  And
    what tells different rows of one id apart, see same_rows: copies of a row may differ in their weight."""
    ids = row_id.take(rows)
    order = np.argsort(ids)
    ordered, ids = rows.take(order), ids.take(order)
    if not (ids[1:] == ids[:-1]).any():
        return ordered, np.zeros(len(rows), np.uint32)
    lightest = np.zeros(len(rows))
    if weight is not None:
        lightest = np.asarray(columns.values(packing.unpacked(table.select([weight]))[weight]), np.float64)[rows]
        table = table.drop_columns([weight])
    order = np.lexsort((lightest, ~code[rows], row_id[rows]))
    rows, lightest = rows[order], lightest[order]
    number = numbers_in_runs(table, rows, row_id[rows])
    if number.any():
        order = np.lexsort((lightest, ~code[rows], number, row_id[rows]))
        rows, number = rows[order], number[order]
    return rows, number


def merge_profiles(*parts: Described) -> Described:
    """What the rows of all hold, by split."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: profiles.merge([part[name] for part in parts if name in part]) for name in names}


def _kept(
    table: pa.Table,
    rows: np.ndarray,
    row_id: np.ndarray,
    content_number: np.ndarray,
    seen_id: np.ndarray,
    code: np.ndarray,
    keys: SplitKeys,
    aside: ToSetAside,
    spec: DataSpec,
    summary: GatherSummary,
) -> np.ndarray:
    """Bool [R]: which of some rows, in order of their ids, may stay; the others go to the summary.

    Args:
        rows: positions [R] in the table, and in `row_id`, `seen_id`, `code` and `keys`; of copies, those of later
            splits first.
        content_number: uint32 [R], tells rows of one id apart.
    """
    row_id, seen_id, code = row_id[rows], seen_id[rows], code[rows]
    kept = np.ones(len(rows), bool)

    def set_aside(wrong: np.ndarray, reasons: Sequence[str]) -> None:
        kept[wrong] = False
        _set_aside(table, rows[wrong], reasons, spec, summary)

    drops = spec.split.leaks == "drop"
    twins, later = leaks.copies(row_id, content_number, code)
    summary.twins += twins
    if drops:
        set_aside(later, [leaks.reason(int(c), "row") for c in code[later]])
    if drops and len(aside.groups.group):
        shared = aside.groups.later(keys.take(rows), code) & kept
        set_aside(shared, [leaks.reason(int(c), "group") for c in code[shared]])
    if len(aside.repeats):
        repeated = kept & is_repeat(aside.repeats, row_id, seen_id)
        set_aside(repeated, [aside.reason] * int(repeated.sum()))
    return kept


def _set_aside(
    table: pa.Table, rows: np.ndarray, reasons: Sequence[str], spec: DataSpec, summary: GatherSummary
) -> None:
    if not len(rows):
        return
    summary.bad.num_rows += len(rows)
    summary.bad.reasons.update(reasons)
    name = spec.targets[0]
    target = packing.unpacked(table.select([name]).take(pa.array(rows)))[name]
    if spec.task == "classification":
        summary.bad.targets.add(Targets(columns.counts(target)))
    elif spec.task == "regression" and len(spec.targets) == 1:
        summary.bad.targets.add(Targets(sum=float(np.sum(target.to_numpy())), num=len(target)))
    for position, reason in zip(rows[: MAX_KEPT - len(summary.bad.kept)].tolist(), reasons, strict=False):
        row = shown(packing.unpacked(table.slice(position, 1)), 0)
        summary.bad.kept.append({"row_id": f"{row.pop(ROW_ID):016x}", "reason": reason, "row": row})


def _store(table: pa.Table, split: int, index: int, part: int, job: GatherJob, store: Store) -> WrittenShard:
    name = SPLITS[split]
    table = packing.packed(table)
    data = to_bytes(table)
    key = layout.shard(job.name, job.version, name, index, part)
    store.write(key, data)
    shard = Shard(key=key, num_rows=table.num_rows, size_bytes=len(data), sha256=sha256(data))
    signature = job.signature
    before = int(job.rows_before * index)
    found = None
    if job.first and (name == "train" or may_refuse(job.first)):
        raw = features(table, signature)
        found = contributions(FittedTransforms(()), job.first, raw, signature.inputs, rows_before=before)
    labels, of_target = _labels(table, signature), _target(table, name, signature)
    return WrittenShard(name, shard, labels, before, found, of_target, _weights(table, signature, job.spec.weight))


def _labels(table: pa.Table, signature: Signature) -> Counter[Any]:
    if signature.label_sets is not None:
        stored = packing.unpacked(table.select(signature.targets))
        return label_sets.counted(stored, signature.targets, signature.label_sets.separator)
    if signature.task != "classification":
        return Counter()
    return columns.counts(table[signature.targets[0]])


def _target(table: pa.Table, split: str, signature: Signature) -> tuple[TargetPart, ...]:
    if signature.task != "regression" or split != "train":
        return ()
    stored = packing.unpacked(table.select(signature.targets))
    return tuple(target.part(np.asarray(columns.values(stored[name]), np.float64)) for name in signature.targets)


def _weights(table: pa.Table, signature: Signature, name: str | None) -> dict[Any, float]:
    if name is None:
        return {}
    stored = packing.unpacked(table.select(list(dict.fromkeys([*signature.targets, name]))))
    weight = np.asarray(columns.values(stored[name]), np.float64)
    if signature.task != "classification":
        return {None: float(weight.sum())}
    labels = columns.values(stored[signature.targets[0]])
    if isinstance(labels, pa.Array):
        encoded = labels if pa.types.is_dictionary(labels.type) else labels.dictionary_encode()
        names, place = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    else:
        different, place = np.unique(labels, return_inverse=True)
        names = different.tolist()
    return dict(zip(names, np.bincount(place, weights=weight, minlength=len(names)).tolist(), strict=True))


gather_task: Any = ray.remote(num_returns=2)(gather_shards)
merge_task: Any = ray.remote(merge_profiles)
