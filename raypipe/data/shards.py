"""A stored split, and any range of its rows.

A shard is an Arrow IPC file of one record batch: `__row_id` (uint64), the raw feature columns, the target.  It is
packed (packing.py): whole numbers are as narrow as its values allow, and the field's metadata names their own type,
which `read_shard` gives back; text that repeats is dictionary-encoded.  Tensors are Arrow's own fixed-shape tensors, so
any Arrow program reads it.  B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import columns, packing
from raypipe.data.table.names import ROW_ID
from raypipe.errors import DataError
from raypipe.records import Column, DatasetVersion, Shard, Signature
from raypipe.storage import Store
from raypipe.storage.publish import FileDigest, read_verified

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


@dataclass(frozen=True)
class Rows:
    """Some rows of a split, in stored order.

    Attributes:
        row_id: uint64 [B], a stable hash of the row.
        columns: raw features; numbers [B, *shape] (missing: NaN in float64), text as object arrays of str or None.
        target: [B]; labels as they are in Signature.classes, or float64.
    """

    row_id: np.ndarray
    columns: dict[str, np.ndarray]
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.row_id)


def load_rows(store: Store, dataset: DatasetVersion, split: str, *, start: int = 0, stop: int | None = None) -> Rows:
    """Rows [start, stop) of a split; reads only the shards that hold them.

    Args:
        split: train, val or test.
        stop: unset reads to the end.
    Raises:
        DigestMismatch: a shard is not what was written.
        ObjectMissing: a shard is gone.
    """
    num_rows = dataset.splits[split].num_rows
    stop = num_rows if stop is None else stop
    if not 0 <= start <= stop <= num_rows:
        raise ValueError(f"rows [{start}, {stop}) are not within the {num_rows} rows of {split}")
    parts: list[pa.Table] = []
    offset = 0
    for shard in dataset.splits[split].shards:
        first, last = max(start - offset, 0), min(stop - offset, shard.num_rows)
        if first < last:
            parts.append(read_shard(store, shard).slice(first, last - first))
        offset += shard.num_rows
    if not parts:
        return _no_rows(dataset.signature)
    return to_rows(parts, dataset.signature)


def share(num_rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """The contiguous rows [start, stop) of one worker; sizes differ by at most 1, together they are all rows."""
    return num_rows * rank // world_size, num_rows * (rank + 1) // world_size


def features(table: pa.Table, signature: Signature) -> dict[str, Any]:
    """The raw features of stored rows as transforms read them: numbers [B, *shape] in numpy, text [B] in Arrow."""
    return {column.name: columns.values(table[column.name]) for column in signature.inputs}


def encode_target(target: np.ndarray | pa.Array, signature: Signature) -> np.ndarray:
    """The target as numbers.

    Args:
        target: [B]; text as objects or in Arrow.
    Returns:
        Classification: int64 [B], index into signature.classes.  Regression: float64 [B].
    Raises:
        DataError: a label that is not among the classes.
    """
    if signature.task == "regression":
        return np.asarray(target, np.float64)
    classes = pa.array(signature.classes or ())
    labels = pa.array(target).cast(classes.type)
    index = pc.index_in(labels, value_set=classes)
    if index.null_count:
        unknown = labels.filter(index.is_null())[0].as_py()
        raise DataError(f"target '{signature.target}' holds {unknown!r}; the classes are {classes[:50].to_pylist()}")
    return index.to_numpy().astype(np.int64)


def to_rows(tables: Sequence[pa.Table], signature: Signature) -> Rows:
    """Rows of the tables of one split, one after another."""

    def joined(name: str) -> np.ndarray:
        arrays = [_to_numpy(chunk) for table in tables for chunk in table[name].chunks]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    return Rows(joined(ROW_ID), {c.name: joined(c.name) for c in signature.inputs}, joined(signature.target))


def to_bytes(table: pa.Table) -> memoryview:
    """The stored form; equal tables give equal bytes."""
    table = pa.concat_tables([table.slice(0, 0), table]).combine_chunks()  # a slice would be written with what follows
    return memoryview(packing.to_buffer(table)).cast("B")


def tensor_array(values: np.ndarray) -> pa.ExtensionArray:
    """[B, *shape] as Arrow's fixed-shape tensors, without a copy."""
    shape, size = values.shape[1:], int(np.prod(values.shape[1:]))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, shape), storage)


def read_shard(store: Store, shard: Shard) -> pa.Table:
    """One shard as it was written.

    Raises:
        DigestMismatch: it is not what was written.
        ObjectMissing: it is gone.
    """
    data = read_verified(store, shard.key, FileDigest(sha256=shard.sha256, size_bytes=shard.size_bytes))
    return packing.unpacked(packing.from_buffer(data))


def _to_numpy(array: Any) -> np.ndarray:
    if isinstance(array.type, pa.FixedShapeTensorType):
        return array.to_numpy_ndarray()
    return array.to_numpy(zero_copy_only=False)


def _no_rows(signature: Signature) -> Rows:
    empty = {c.name: _empty(c) for c in signature.inputs}
    if signature.task == "regression":
        target = np.empty(0, np.float64)
    else:
        labels = np.array(signature.classes)
        target = np.empty(0, object if labels.dtype.kind == "U" else labels.dtype)
    return Rows(np.empty(0, np.uint64), empty, target)


def _empty(column: Column) -> np.ndarray:
    dtype = object if column.dtype == "string" else "float64" if column.nullable else column.dtype
    return np.empty((0, *column.shape), dtype)
