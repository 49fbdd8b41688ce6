"""Fakes at our seams: a store in memory, a clock that only moves when told, a silent run context, a tiny dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from obstore.store import MemoryStore as _Memory

from raypipe.data.shards import tensor_array, to_bytes
from raypipe.data.shuffle import target as targets
from raypipe.data.table.names import ROW_ID
from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.fitting import contributions, fit
from raypipe.records import Column, DatasetVersion, Shard, Signature, Split, TargetStatistics
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.data import Task
from raypipe.spec.transforms import Transform
from raypipe.storage import Store, layout
from raypipe.storage.objects import ObjectStore


class MemoryStore(ObjectStore):
    """A Store in this process's memory, with real conditional writes."""

    def __init__(self) -> None:
        super().__init__("memory:", _Memory())


class FakeClock:
    """Seconds that pass only by `advance`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, elapsed_s: float) -> None:
        self.now += elapsed_s


def run_context(store: Store, *, run_id: str = "rtest", code_dir: Path | None = None, seed: int = 0) -> RunContext:
    """A context that prints nothing."""
    return RunContext(run_id=run_id, store=store, progress=Progress(run_id, stream=None), code_dir=code_dir, seed=seed)


def fit_columns(
    transforms: Sequence[Transform], inputs: Sequence[Column], shards: Sequence[Mapping[str, np.ndarray]]
) -> FittedTransforms:
    """`fit` over shards that are in memory: column name -> values [B, *shape] each."""
    return fit(transforms, inputs, lambda before, group: [contributions(before, group, s, inputs) for s in shards])


def tiny_dataset(
    store: Store,
    columns: Mapping[str, np.ndarray],
    target: np.ndarray,
    *,
    task: Task = "classification",
    transforms: Sequence[Transform] = (),
    num_val: int = 0,
    num_test: int = 0,
    rows_per_shard: int = 1000,
    name: str = "tiny",
) -> DatasetVersion:
    """A dataset version made from arrays without Ray: the first rows are train, then val, then test.

    Args:
        columns: raw features [B, *shape]; text as object arrays.
        target: [B]; labels, or floats for regression.
        transforms: fitted on the train rows.
    """
    inputs = tuple(Column(name=n, dtype=_dtype(values), shape=values.shape[1:]) for n, values in columns.items())
    num_train = len(target) - num_val - num_test
    bounds = {"train": (0, num_train), "val": (num_train, num_train + num_val), "test": (num_train + num_val, None)}
    table = pa.table(
        {ROW_ID: np.arange(len(target), dtype=np.uint64), **{n: _arrow(v) for n, v in columns.items()}, "y": target}
    )
    digest = hashlib.sha256(to_bytes(table)).hexdigest()
    fitted = fit_columns(transforms, inputs, [{n: values[:num_train] for n, values in columns.items()}])
    version = hashlib.sha256(f"{digest}{bounds}{rows_per_shard}{fitted.state()}".encode()).hexdigest()[:16]
    splits: dict[str, Split] = {}
    for split, (start, stop) in bounds.items():
        rows = table.slice(start, None if stop is None else stop - start)
        splits[split] = _write_split(store, partial(layout.shard, name, version, split), rows, rows_per_shard)
    classes = tuple(np.unique(target).tolist()) if task == "classification" else None
    return DatasetVersion(
        name=name,
        version=version,
        signature=Signature(inputs=inputs, task=task, target="y", classes=classes),
        splits=splits,
        transforms=fitted.state(),
        feature_shape=fitted.apply({n: values[:1] for n, values in columns.items()}, inputs).shape[1:],
        content_fingerprint=digest[:16],
        target_statistics=_statistics(target[:num_train]) if task == "regression" and num_train else None,
    )


def _statistics(target: np.ndarray) -> TargetStatistics:
    return targets.finish([targets.part(target.astype(np.float64))])


def _write_split(store: Store, key_of: Callable[[int], str], rows: pa.Table, rows_per_shard: int) -> Split:
    shards: list[Shard] = []
    for start in range(0, len(rows), rows_per_shard):
        part = rows.slice(start, rows_per_shard)
        data, key = to_bytes(part), key_of(len(shards))
        store.write(key, data)
        digest = hashlib.sha256(data).hexdigest()
        shards.append(Shard(key=key, num_rows=len(part), size_bytes=len(data), sha256=digest))
    return Split(num_rows=len(rows), shards=tuple(shards))


def _arrow(values: np.ndarray) -> pa.Array:
    return tensor_array(values) if values.ndim > 1 else pa.array(values)


def _dtype(values: np.ndarray) -> str:
    return "string" if values.dtype == object else values.dtype.name
