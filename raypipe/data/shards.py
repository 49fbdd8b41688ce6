"""A stored split, and any range of its rows.

A shard is an Arrow IPC file of one record batch: `__row_id` (uint64), the raw feature columns, the target, and the
weight where rows have one.  It is packed (packing.py): whole numbers are as narrow as its values allow, and the field's
metadata names their own type, which `read_shard` gives back; text that repeats is dictionary-encoded.  Tensors are
Arrow's own fixed-shape tensors, so any Arrow program reads it.  B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import columns, label_sets, packing
from raypipe.data.table.names import ROW_ID
from raypipe.data.target_text import target_text
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
        target: as `stored_target` gives it, in numpy.
        weight: float64 [B], above 0 or 0; 1 on average over the split. None: all rows count alike.
    """

    row_id: np.ndarray
    columns: dict[str, np.ndarray]
    target: np.ndarray
    weight: np.ndarray | None = None

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
    rows = to_rows(parts, dataset.signature)
    weights = [relative_weight(part, dataset, split) for part in parts]
    return replace(rows, weight=np.concatenate([w for w in weights if w is not None]) if dataset.weights else None)


def relative_weight(table: pa.Table, dataset: DatasetVersion, split: str) -> np.ndarray | None:
    """How much stored rows count, float64 [B]: their weights by the mean of the split. None: all count alike."""
    mean = dataset.mean_weight(split)
    if dataset.weights is None or mean is None:
        return None
    return np.asarray(columns.values(table[dataset.weights.column]), np.float64) / mean


def share(num_rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """The contiguous rows [start, stop) of one worker; sizes differ by at most 1, together they are all rows."""
    return num_rows * rank // world_size, num_rows * (rank + 1) // world_size


def features(table: pa.Table, signature: Signature) -> dict[str, Any]:
    """The raw features of stored rows as transforms read them: numbers [B, *shape] in numpy, text [B] in Arrow."""
    there = columns.by_name(table)
    return {column.name: columns.values(there[column.name]) for column in signature.inputs}


def stored_target(table: pa.Table, signature: Signature) -> Any:
    """The target of stored rows: labels as they are in Signature.classes, text in Arrow, or float64, [B]; of several
    targets their values [B, T]."""
    each = [columns.values(table[name]) for name in signature.targets]
    return each[0] if isinstance(signature.target, str) else np.stack(each, axis=1)


def encode_target(target: np.ndarray | pa.Array, signature: Signature) -> np.ndarray:
    """The target as numbers.

    Args:
        target: as `stored_target` gives it; text as objects or in Arrow.
    Returns:
        Classification: int64 [B], index into signature.classes.  Multi-label: bool [B, K], in the order of
        signature.classes.  Regression: float64 [B], of several targets [B, T].  Language model: ones, the
        perplexity of a text that is known by heart.  Sequence to sequence: ids int64 [B, T], see target_text.py.
    Raises:
        DataError: a label that is not among the classes, or a text that is refused.
    """
    if signature.language is not None and signature.task == "sequence_to_sequence":
        return target_text(signature.language, signature.target_text).ids(target)
    if signature.task == "regression":
        return np.asarray(target, np.float64)
    if signature.task == "language_model":
        return np.ones(len(target))
    if signature.label_sets is not None:
        separator = signature.label_sets.separator
        return label_sets.encoded(target, signature.classes or (), separator, signature.target_text)
    classes = pa.array(signature.classes or ())
    labels = pa.array(target).cast(classes.type)
    index = pc.index_in(labels, value_set=classes)
    if index.null_count:
        unknown = labels.filter(index.is_null())[0].as_py()
        raise DataError(
            f"target '{signature.target_text}' holds {unknown!r}; the classes are {classes[:50].to_pylist()}"
        )
    return index.to_numpy().astype(np.int64)


def to_rows(tables: Sequence[pa.Table], signature: Signature) -> Rows:
    """Rows of the tables of one split, one after another."""

    held = [columns.by_name(table) for table in tables]

    def joined(name: str) -> np.ndarray:
        arrays = [_to_numpy(chunk) for there in held for chunk in there[name].chunks]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    each = [joined(name) for name in signature.targets]
    target = each[0] if isinstance(signature.target, str) else np.stack(each, axis=1)
    return Rows(joined(ROW_ID), {c.name: joined(c.name) for c in signature.inputs}, target)


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
    num_targets = () if isinstance(signature.target, str) else (len(signature.target),)
    if signature.task == "regression":
        target = np.empty((0, *num_targets), np.float64)
    elif signature.task == "multi_label":
        target = np.empty((0, *num_targets), bool if num_targets else object)
    elif signature.language is not None:
        target = np.empty(0, object)
    else:
        labels = np.array(signature.classes)
        target = np.empty(0, object if labels.dtype.kind == "U" else labels.dtype)
    return Rows(np.empty(0, np.uint64), empty, target)


def _empty(column: Column) -> np.ndarray:
    dtype = object if column.dtype == "string" else "float64" if column.nullable else column.dtype
    return np.empty((0, *column.shape), dtype)
