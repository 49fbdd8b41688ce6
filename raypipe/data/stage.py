"""prepare(): read, check, split, fit transforms, write shards, publish.

Rows travel between tasks as object references; the driver sees only their ids, so that the order of rows, and with it
every byte of every shard, depends on the rows alone and not on files, blocks or workers.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from raypipe.data import blocks
from raypipe.data.blocks import BlockIndex, ShardPlan
from raypipe.data.fitting import check_types, fit
from raypipe.data.formats import FORMATS
from raypipe.data.shards import share
from raypipe.data.split import SPLITS, TEST
from raypipe.data.transforms import FittedTransforms
from raypipe.data.validate import MAX_KEPT, BadRows, Schema, refuse_too_many, schema_of
from raypipe.errors import ClusterError, DataError, RaypipeError
from raypipe.records import DatasetVersion, Shard, Signature, Split, Value
from raypipe.runtime.context import RunContext
from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec, Source, Transform
from raypipe.storage import layout

STALL_S = 1800.0
"""Longest wait for the next task to finish."""

TASK_BYTES = 32 * 2**20
"""Shards are written by tasks of about this size, so that a small data set does not start a process a shard."""

Stored = tuple[ShardPlan, Shard, ray.ObjectRef]
"""A shard that has been written, and a reference to its table."""


def prepare(spec: DataSpec, ctx: RunContext) -> DatasetVersion:
    """Make the dataset version a spec describes; one that exists already is used again.

    Raises:
        DataError: the data does not hold what the spec promises.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    read = _read(spec)
    checked, schema = _check(read, spec)
    indexes: list[BlockIndex] = _collect([index for _, index in checked], "checking rows")
    num_rows = sum(len(index.row_id) + index.bad.num_rows for index in indexes)
    _tell_rows(ctx, indexes, num_rows, time.monotonic() - started)
    bad = _all_bad_rows(indexes, [forced is not None for _, forced in read])
    refuse_too_many(bad, num_rows, spec.bad_rows.max_frac)
    _check_splits(indexes, spec)
    signature = _signature(indexes, schema, spec)
    content = _content_fingerprint(indexes, schema)
    version = spec.fingerprint(content, bad.num_rows, exclude={"root", "read_parallelism"})
    key = layout.dataset_record(ctx.name, version)
    if ctx.store.exists(key):
        ctx.progress.say("data", f"dataset {ctx.name} {version} is in the store already", reused=True)
        return DatasetVersion.model_validate_json(ctx.store.read(key))

    plans = blocks.plan_shards(indexes, spec.rows_per_shard)
    stored = _store([table for table, _ in checked], plans, indexes, version, ctx)
    transforms = _fit(spec.transforms, stored, signature)
    record = DatasetVersion(
        name=ctx.name,
        version=version,
        signature=signature,
        splits={name: _split(shard for plan, shard, _ in stored if plan.split == name) for name in SPLITS},
        transforms=transforms.state(),
        feature_shape=transforms.feature_shape(signature.inputs),
        num_bad_rows=bad.num_rows,
        bad_rows_key=_keep_bad_rows(bad, version, ctx),
        content_fingerprint=content,
    )
    ctx.store.write(key, record.to_json())
    _tell_stored(ctx, record, time.monotonic() - started)
    return record


def source_fingerprint(spec: DataSpec) -> str:
    """Changes when a source file does; lists files and reads at most small ones.

    Raises:
        DataError: the source is not there.
    """
    found = []
    for source in (spec.source, spec.test_source):
        if source is not None:
            files = FORMATS[source.format].files(source, spec.root or ".")
            found.append([(file.name, file.size_bytes, file.tag) for file in files])
    return fingerprint(found)


# --- reading and checking --------------------------------------------------------------------------------------------


def _read(spec: DataSpec) -> list[tuple[ray.ObjectRef, int | None]]:
    """References to all blocks in file order, each with the split it is forced into."""
    found: list[tuple[ray.ObjectRef, int | None]] = []
    for source, forced in ((spec.source, None), (spec.test_source, TEST)):
        if source is not None:
            narrowed = source.model_copy(update={"columns": _needed(spec, source)})
            try:
                dataset = FORMATS[source.format].read(narrowed, spec.root or ".", spec.read_parallelism)
                found += [(ref, forced) for ref in dataset.to_arrow_refs()]
            except RayTaskError as error:
                raise _cause(error) from None
    return found


def _needed(spec: DataSpec, source: Source) -> list[str] | None:
    """Columns to read; None is all.  Without a split key the whole row decides where it goes, so all are needed."""
    if spec.features is None or spec.split.key is None:
        return source.columns
    return list(dict.fromkeys([*spec.features, spec.target, *spec.split.key]))


def _check(read: Sequence[tuple[ray.ObjectRef, int | None]], spec: DataSpec) -> tuple[list[Any], Schema]:
    """One (table, index) pair of references a block, and the schema they were checked against."""
    profiles = _collect([blocks.profile_task.remote(block) for block, _ in read], "looking at blocks")
    if not sum(profile.num_rows for profile in profiles):
        raise DataError("data.source holds no rows", "name files that hold data")
    schema = schema_of(spec, profiles)
    check_types(spec.transforms, schema.inputs)
    return [blocks.check_task.remote(block, schema, spec.split, forced) for block, forced in read], schema


def _all_bad_rows(indexes: Sequence[BlockIndex], is_test: Sequence[bool]) -> BadRows:
    """Bad rows of all blocks, numbered from 1 as in the files (test_source counts by itself)."""
    total = BadRows()
    offset = 0
    for i, index in enumerate(indexes):
        if i and is_test[i] != is_test[i - 1]:
            offset = 0
        for row in index.bad.kept[: MAX_KEPT - len(total.kept)]:
            source = {"source": "test_source"} if is_test[i] else {}
            numbered = {
                "row_number": offset + row["position"] + 1,
                **source,
                "reason": row["reason"],
                "row": row["row"],
            }
            total.kept.append(numbered)
        total.num_rows += index.bad.num_rows
        offset += len(index.row_id) + index.bad.num_rows
    return total


def _check_splits(indexes: Sequence[BlockIndex], spec: DataSpec) -> None:
    sizes = _sizes(indexes)
    fractions = {"train": 1 - spec.split.val_frac - spec.split.test_frac, "val": spec.split.val_frac}
    fractions["test"] = 1.0 if spec.test_source is not None else spec.split.test_frac
    for name, fraction in fractions.items():
        if fraction > 0 and not sizes[name]:
            raise DataError(
                f"the {name} split is empty: of {sum(sizes.values())} good rows none fell into it "
                f"(data.split: val_frac={spec.split.val_frac:g}, test_frac={spec.split.test_frac:g})",
                f"give more rows, a larger share, another data.split.salt, or set data.split.{name}_frac: 0"
                if name != "train"
                else "give more rows or another data.split.salt",
            )


def _signature(indexes: Sequence[BlockIndex], schema: Schema, spec: DataSpec) -> Signature:
    """What the model will read and answer; classes are the labels of train, sorted.

    Raises:
        DataError: there is only one class, or val or test hold a label that train does not.
    """
    classes: tuple[Value, ...] | None = None
    if spec.task == "classification":
        labels: dict[str, Counter[Any]] = {name: Counter() for name in SPLITS}
        for index in indexes:
            for name, counts in index.labels.items():
                labels[name].update(counts)
        classes = tuple(sorted(labels["train"]))
        for name in ("val", "test"):
            for label in sorted(set(labels[name]) - set(classes)):
                raise DataError(
                    f"label {label!r} of target '{spec.target}' is in {labels[name][label]} row(s) of {name} but in "
                    f"none of train; train has {list(classes)[:20]}",
                    "give more rows of it, remove them, or set another data.split.salt",
                )
        if len(classes) < 2:
            raise DataError(
                f"target '{spec.target}' has one class in train, {list(classes)}; there is nothing to tell apart",
                "correct data.target, or give rows of other classes",
            )
    return Signature(inputs=schema.inputs, task=spec.task, target=spec.target, classes=classes)


def _content_fingerprint(indexes: Sequence[BlockIndex], schema: Schema) -> str:
    """Hash of the sorted row ids of each split and of the columns."""
    row_id = np.concatenate([index.row_id for index in indexes])
    split = np.concatenate([index.split for index in indexes])
    ids = [hashlib.sha256(np.sort(row_id[split == c]).astype("<u8").tobytes()).hexdigest() for c in range(len(SPLITS))]
    return fingerprint([schema.columns[n].model_dump(mode="json") for n in (*schema.features, schema.target)], ids)


# --- writing and fitting ---------------------------------------------------------------------------------------------


def _store(
    checked: Sequence[ray.ObjectRef],
    plans: Sequence[ShardPlan],
    indexes: Sequence[BlockIndex],
    version: str,
    ctx: RunContext,
) -> list[Stored]:
    """Cut blocks into pieces, put the pieces together as shards, write them."""
    cut = blocks.cut_task.options(num_returns=len(plans))
    pieces = [cut.remote(table, [plan.positions[b] for plan in plans]) for b, table in enumerate(checked)]
    pieces = [refs if isinstance(refs, list) else [refs] for refs in pieces]
    keys = [layout.shard(ctx.name, version, plan.split, plan.index) for plan in plans]
    num_tasks = max(1, min(len(plans), sum(index.num_bytes for index in indexes) // TASK_BYTES))
    records: list[ray.ObjectRef] = []
    tables: list[ray.ObjectRef] = []
    for task in range(num_tasks):
        first, last = share(len(plans), task, num_tasks)
        parts = [block_pieces[s] for s in range(first, last) for block_pieces in pieces]
        store = blocks.store_task.options(num_returns=1 + last - first)
        written, *kept = store.remote(ctx.store.uri, keys[first:last], *parts)
        records.append(written)
        tables += kept
    shards = [shard for found in _collect(records, "writing shards") for shard in found]
    return list(zip(plans, shards, tables, strict=True))


def _fit(transforms: Sequence[Transform], stored: Sequence[Stored], signature: Signature) -> FittedTransforms:
    """Fit on the train shards; then see that the other splits hold nothing the transforms refuse."""
    train = [item for item in stored if item[0].split == "train"]
    others = [item for item in stored if item[0].split != "train"]

    def run(before: FittedTransforms, group: Sequence[Transform]) -> list[list[Any]]:
        tasks = [blocks.fit_task.remote(before.state(), group, signature, *some) for some in _grouped(train)]
        return [shard for found in _collect(tasks, "fitting transforms") for shard in found]

    fitted = fit(transforms, signature.inputs, run)
    if any(getattr(t, "unknown", None) == "error" for t in transforms):
        tries = [blocks.try_task.remote(fitted.state(), signature, *some) for some in _grouped(others)]
        _collect(tries, "applying transforms to val and test")
    return fitted


def _grouped(stored: Sequence[Stored]) -> list[list[ray.ObjectRef]]:
    """Tables of neighbouring shards, about TASK_BYTES together."""
    groups: list[list[ray.ObjectRef]] = []
    room = 0
    for _, shard, table in stored:
        if not groups or room < shard.size_bytes:
            groups.append([])
            room = TASK_BYTES
        groups[-1].append(table)
        room -= shard.size_bytes
    return groups


def _split(shards: Iterable[Shard]) -> Split:
    shards = tuple(shards)
    return Split(num_rows=sum(shard.num_rows for shard in shards), shards=shards)


def _keep_bad_rows(bad: BadRows, version: str, ctx: RunContext) -> str | None:
    if not bad.num_rows:
        return None
    key = layout.bad_rows(ctx.name, version)
    ctx.store.write(key, "".join(json.dumps(row, default=str) + "\n" for row in bad.kept).encode())
    return key


# --- waiting and telling ---------------------------------------------------------------------------------------------


def _collect(refs: Sequence[ray.ObjectRef], what: str) -> list[Any]:
    """All results, in order; the first failure ends the wait with the error the task raised."""
    waiting = list(refs)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=STALL_S)
            if not done:
                raise ClusterError(f"{what}: no task finished in {STALL_S:.0f} s", "look at the cluster: ray status")
            ray.get(done)
        return ray.get(list(refs))
    except RayTaskError as error:
        raise _cause(error) from None


def _cause(error: RayTaskError) -> Exception:
    """What a task raised on purpose, without the trace of the process it ran in."""
    cause: Any = error
    while isinstance(cause, RayTaskError) and cause.cause is not None:
        cause = cause.cause
    return cause if isinstance(cause, RaypipeError) else error


def _sizes(indexes: Sequence[BlockIndex]) -> dict[str, int]:
    counts = sum(np.bincount(index.split, minlength=len(SPLITS)) for index in indexes)
    return dict(zip(SPLITS, np.asarray(counts).tolist(), strict=True))


def _tell_rows(ctx: RunContext, indexes: Sequence[BlockIndex], num_rows: int, seconds: float) -> None:
    sizes = _sizes(indexes)
    num_bad = num_rows - sum(sizes.values())
    rate = num_rows / max(seconds, 1e-9)
    split = "  ".join(f"{name} {size}" for name, size in sizes.items())
    text = f"read {num_rows} rows  {split}  bad {num_bad}  {rate:.3g} rows/s"
    ctx.progress.say("data", text, num_rows=num_rows, num_bad_rows=num_bad, rows_per_s=round(rate, 1), splits=sizes)


def _tell_stored(ctx: RunContext, record: DatasetVersion, seconds: float) -> None:
    fitted = ", ".join(state["kind"] for state in record.transforms) or "none"
    shards = [shard for split in record.splits.values() for shard in split.shards]
    num_bytes = sum(shard.size_bytes for shard in shards)
    text = f"dataset {record.name} {record.version}: {len(shards)} shards, {num_bytes / 2**20:.1f} MiB"
    ctx.progress.say("data", f"transforms fitted: {fitted}", transforms=len(record.transforms))
    ctx.progress.say("data", f"{text}, {seconds:.1f} s", version=record.version, num_bytes=num_bytes)
