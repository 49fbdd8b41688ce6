"""What happens to rows away from the driver: one plain function a step, each sent as a Ray task by stage.py.

block --check--> checked table --cut--> pieces --assemble--> shard.  A piece is the part of one block that belongs to
one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raypipe.data import validate
from raypipe.data.fitting import Partial, partials
from raypipe.data.shards import ROW_ID, tensor_array, to_bytes, to_rows
from raypipe.data.split import SPLITS, Values, row_ids, split_codes
from raypipe.data.transforms import FittedTransforms, State
from raypipe.data.validate import BadRows, Schema
from raypipe.records import Shard, Signature
from raypipe.spec.data import SplitSpec, Transform
from raypipe.storage import open_store
from raypipe.storage.publish import sha256


@dataclass(frozen=True)
class BlockIndex:
    """What the driver learns of a checked block (B good rows)."""

    row_id: np.ndarray
    """uint64 [B]"""
    split: np.ndarray
    """uint8 [B], indices into SPLITS"""
    labels: dict[str, Counter[Any]]
    """Classification: split -> label -> rows."""
    bad: BadRows
    num_bytes: int


@dataclass(frozen=True)
class ShardPlan:
    """Which rows of which block make one shard."""

    split: str
    index: int
    num_rows: int
    positions: tuple[np.ndarray, ...]
    """One int64 array a block: row positions in the checked block, in shard order."""


def check_block(block: pa.Table, schema: Schema, spec: SplitSpec, forced: int | None) -> tuple[pa.Table, BlockIndex]:
    """Check, hash and split the rows of one block.

    Args:
        forced: a split all rows belong to, whatever their hash (data.test_source).
    Returns:
        The good rows as they will be stored, and what the driver needs to know of them.
    """
    values, bad = validate.check(block, schema)
    row_id = row_ids(values)
    if forced is None:
        key = row_id if set(schema.key) == set(values) else row_ids({name: values[name] for name in schema.key})
        split = split_codes(key, spec)
    else:
        split = np.full(len(row_id), forced, np.uint8)
    stored = {name: _to_arrow(values[name]) for name in dict.fromkeys([*schema.features, schema.target])}
    table = pa.table({ROW_ID: row_id, **stored})
    labels = _labels(table[schema.target], split) if schema.task == "classification" else {}
    return table, BlockIndex(row_id, split, labels, bad, table.nbytes)


def plan_shards(indexes: Sequence[BlockIndex], rows_per_shard: int) -> list[ShardPlan]:
    """The layout: inside each split rows are in order of their id, cut every `rows_per_shard`.

    It depends on the rows alone: rows with equal ids are equal, so any order among them gives the same bytes.
    """
    row_id = np.concatenate([index.row_id for index in indexes])
    split = np.concatenate([index.split for index in indexes])
    ends = np.cumsum([len(index.row_id) for index in indexes])
    starts = ends - [len(index.row_id) for index in indexes]
    plans: list[ShardPlan] = []
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(split == code)
        members = members[np.argsort(row_id[members], kind="stable")]
        for number, first in enumerate(range(0, len(members), rows_per_shard)):
            rows = members[first : first + rows_per_shard]
            positions = [rows[(rows >= a) & (rows < b)] - a for a, b in zip(starts, ends, strict=True)]
            plans.append(ShardPlan(name, number, len(rows), tuple(positions)))
    return plans


def cut_block(table: pa.Table, positions: Sequence[np.ndarray]) -> list[pa.Table] | pa.Table:
    """The pieces of one block, one a shard."""
    pieces = [table.take(pa.array(rows)) for rows in positions]
    return pieces if len(pieces) > 1 else pieces[0]  # Ray takes a task of one return at its word


def store_shards(store_uri: str, keys: Sequence[str], *pieces: pa.Table) -> list[Any]:
    """Put shards together and write them.

    Args:
        keys: where each goes.
        pieces: the pieces of the first shard, then those of the second, and so on; equally many each.
    Returns:
        The Shard records, then the table of each (transforms are fitted on them).
    """
    store = open_store(store_uri)
    each = len(pieces) // len(keys)
    shards: list[Shard] = []
    tables: list[pa.Table] = []
    for number, key in enumerate(keys):
        table = pa.concat_tables(pieces[number * each : (number + 1) * each])
        table = table.take(pa.array(np.argsort(table[ROW_ID].to_numpy(), kind="stable"))).combine_chunks()
        data = to_bytes(table)
        store.write(key, data)
        shards.append(Shard(key=key, num_rows=table.num_rows, size_bytes=len(data), sha256=sha256(data)))
        tables.append(table)
    return [shards, *tables]


def fit_shards(
    before: Sequence[State], group: Sequence[Transform], signature: Signature, *tables: pa.Table
) -> list[list[Partial]]:
    """What each shard contributes to the transforms of a group."""
    fitted = FittedTransforms.from_state(before)
    return [partials(fitted, group, to_rows([t], signature).columns, signature.inputs) for t in tables]


def try_shards(states: Sequence[State], signature: Signature, *tables: pa.Table) -> None:
    """Apply the fitted transforms and forget the outcome. Raises DataError on a value they do not take."""
    fitted = FittedTransforms.from_state(states)
    for table in tables:
        fitted.apply_exact(to_rows([table], signature).columns, signature.inputs)


def _to_arrow(values: Values) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    return tensor_array(values) if values.ndim > 1 else pa.array(values)


def _labels(target: pa.ChunkedArray, split: np.ndarray) -> dict[str, Counter[Any]]:
    found: dict[str, Counter[Any]] = {}
    for code, name in enumerate(SPLITS):
        counts = target.filter(pa.array(split == code)).value_counts()
        found[name] = Counter({pair["values"]: pair["counts"] for pair in counts.to_pylist()})
    return found


profile_task = ray.remote(validate.profile)
check_task = ray.remote(num_returns=2)(check_block)
cut_task: Any = ray.remote(cut_block)
store_task: Any = ray.remote(store_shards)
fit_task = ray.remote(fit_shards)
try_task = ray.remote(try_shards)
