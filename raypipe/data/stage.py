"""prepare(): read, check, split, write shards, fit transforms, publish.

Rows travel between tasks as object references: a block is read, checked and cut by range of row id (scatter_all.py,
scatter.py), then a range is put in order and written (write_all.py, gather.py).  The driver sees summaries only, so its
memory does not grow with the rows, and every byte of every shard depends on the rows alone, not on files, blocks or
workers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from raypipe.data.checks import verdicts
from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, refuse_too_many, to_lines
from raypipe.data.checks.losses import Losses, Targets
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import Schema, quantity_note
from raypipe.data.checks.suspects import left_out, lost_zeros, refuse_unclear_dates, suspects
from raypipe.data.fit_shards import fit_shards
from raypipe.data.profile import profile
from raypipe.data.shuffle import gather
from raypipe.data.shuffle.meet import Meeting, meet_by_key
from raypipe.data.shuffle.scatter_all import scatter_all
from raypipe.data.shuffle.scattered import Scattered
from raypipe.data.shuffle.write_all import write_all
from raypipe.data.shuffle.written import (
    WrittenShards,
    classes_of,
    refuse_empty_splits,
    refused_one_class,
    target_statistics,
)
from raypipe.data.splits import verdict
from raypipe.data.splits.base import SPLITS
from raypipe.data.tasks import collect
from raypipe.errors import DataError, DocumentError, ObjectMissing, RaypipeError, StoreError
from raypipe.records import (
    DataProfile,
    DatasetVersion,
    ExpectationResult,
    Reading,
    Signature,
)
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec
from raypipe.spec.expectations import DriftExpectation
from raypipe.storage import layout
from raypipe.storage.documents import read_document, read_mapping, write_document


def prepare(spec: DataSpec, ctx: RunContext, *, as_latest: bool = True) -> DatasetVersion:
    """Make the dataset version a spec describes; one that exists already is used again.

    Args:
        as_latest: whether the next one's drift is measured against this version; not where a search only tries it.
    Raises:
        DataError: the data does not hold what the spec promises.
        SpecError: the key of a masked column is not there.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    scattered, schema = scatter_all(spec, ctx)
    _tell_rows(ctx, scattered, time.monotonic() - started)
    zeros = lost_zeros([block.profile for block in scattered.blocks], schema)
    for line in [*left_out(spec.index_columns(scattered.kinds())), *zeros]:
        ctx.progress.say("data", line)
    if note := quantity_note(scattered.labels, spec.target):
        ctx.progress.say("data", note)
    meeting = meet_by_key(scattered, spec)
    results = verdicts.judge(spec.expectations, _tallies(scattered), scattered.kinds(), meeting.duplicates)
    _refuse_bad(scattered.bad(), scattered.kept(), scattered, spec, verdicts.notes(results))
    verdicts.refuse_broken(results)
    _check_classes(scattered, schema)
    content = scattered.content_fingerprint(schema, meeting.state)
    version = spec.fingerprint(content, scattered.num_rows - scattered.num_good, exclude={"root", "read_parallelism"})
    key = layout.dataset_record(ctx.name, version)
    known = _prepared_before(key, ctx)
    if known is not None:
        ctx.progress.say("data", f"dataset {ctx.name} {version} is in the store already", reused=True)
        if as_latest:
            _mark_latest(version, ctx)
        return known
    try:
        record = _make(scattered, schema, meeting, results, version, content, spec, ctx)
    except RaypipeError:
        _remove(key, version, ctx)
        raise
    if as_latest:
        _mark_latest(version, ctx)
    _tell_stored(ctx, record, time.monotonic() - started)
    return record


def _make(
    scattered: Scattered,
    schema: Schema,
    meeting: Meeting,
    results: Sequence[ExpectationResult],
    version: str,
    content: str,
    spec: DataSpec,
    ctx: RunContext,
) -> DatasetVersion:
    """Write the shards and what else belongs to a version, and its record last."""
    signature = Signature(
        inputs=schema.inputs,
        task=spec.task,
        target=schema.target,
        extra_columns=spec.policy.extra_columns,
        reading=Reading(format=spec.source.format, settings=spec.source.settings()),
    )
    packed_bytes = scattered.num_bytes
    written = write_all(scattered, meeting.state, meeting.aside, spec, signature, version, ctx)
    ctx.progress.say("data", "rows moved", show=False, packed_bytes=packed_bytes, moved_bytes=written.moved_bytes)
    bad = _all_bad(scattered, written)
    losses = _refuse_bad(bad, _kept(scattered, written), scattered, spec, verdicts.notes(results))
    counted = verdicts.judge_count(spec.expectations, sum(written.sizes.values()))
    verdicts.refuse_broken(counted)
    if losses.is_uneven:
        ctx.progress.say("data", f"{bad.num_rows} bad rows are set aside; {'; '.join(losses.lines())}")
    lines = verdict.judge(written.twins, meeting.groups, scattered.different, spec)
    for line in [*lines, *verdict.lopsided(written.sizes, scattered.different, meeting.state, spec)]:
        ctx.progress.say("data", line)
    refuse_empty_splits(written, scattered.different, spec)
    signature = signature.model_copy(update={"classes": classes_of(written, schema)})
    described = _profile(written, (*results, *counted), spec, schema.features, version, ctx)
    transforms = fit_shards(spec.transforms, written, signature, ctx)
    record = DatasetVersion(
        name=ctx.name,
        version=version,
        signature=signature,
        splits={name: written.split(name) for name in SPLITS},
        row_identity="features_and_target",
        split_state=meeting.state,
        transforms=transforms.state(),
        feature_shape=transforms.feature_shape(signature.inputs),
        num_bad_rows=bad.num_rows,
        bad_rows_key=_keep_bad_rows(bad, version, ctx),
        profile_key=layout.profile(ctx.name, version),
        content_fingerprint=content,
        target_statistics=target_statistics(written, schema),
    )
    write_document(ctx.store, layout.profile(ctx.name, version), described)
    write_document(ctx.store, layout.dataset_record(ctx.name, version), record)
    return record


def _remove(key: str, version: str, ctx: RunContext) -> None:
    """What was written of a version, unless another run has made it meanwhile."""
    with suppress(StoreError):  # where the store was what failed, that is what to tell
        if not ctx.store.exists(key):
            ctx.store.delete_prefix(layout.dataset(ctx.name, version))


# --- judging -----------------------------------------------------------------------------------------------------


def _tallies(scattered: Scattered) -> list[Any]:
    return [block.tallies for block in scattered.blocks if block.tallies is not None]


def _check_classes(scattered: Scattered, schema: Schema) -> None:
    if schema.task == "classification" and len(scattered.labels) == 1:
        raise refused_one_class(schema, "", list(scattered.labels))


def _profile(
    written: WrittenShards,
    results: Sequence[ExpectationResult],
    spec: DataSpec,
    features: tuple[str, ...],
    version: str,
    ctx: RunContext,
) -> DataProfile:
    """What the version holds, and every expectation judged, those on drift too; says which features look like none.

    Raises:
        DataError: an expectation with `on_fail: fail` on drift does not hold, or dates may be seconds.
    """
    (whole,) = collect([gather.merge_task.remote(*written.profiles)], "describing columns")
    refuse_unclear_dates(whole, spec)
    for line in suspects(whole, spec, features):
        ctx.progress.say("data", line)
    described = DataProfile(name=ctx.name, version=version, num_rows=whole.num_rows, columns=profile.finish(whole))
    drifted = verdicts.judge_drift(spec.expectations, described, partial(_baseline, ctx=ctx))
    verdicts.refuse_broken(drifted)
    results = sorted((*results, *drifted), key=lambda result: result.index)
    for line in verdicts.warnings(results):
        ctx.progress.say("data", line)
    return described.model_copy(update={"expectations": tuple(results)})


def _prepared_before(key: str, ctx: RunContext) -> DatasetVersion | None:
    """The record of this very dataset; None where there is none, or a damaged one, which is then written again."""
    try:
        return read_document(ctx.store, key, DatasetVersion)
    except ObjectMissing:
        return None
    except DocumentError as error:
        ctx.progress.say("data", f"the dataset is stored again: {error.message}")
        return None


def _mark_latest(version: str, ctx: RunContext) -> None:
    write_document(ctx.store, layout.latest_dataset(ctx.name), {"version": version})


def _baseline(expectation: DriftExpectation, ctx: RunContext) -> DataProfile | None:
    """The profile an expectation compares with; None where this data set has none yet.

    Raises:
        DataError: the baseline it names is not there.
    """
    name, _, version = (expectation.baseline or ctx.name).partition("@")
    try:
        version = version or str(read_mapping(ctx.store, layout.latest_dataset(name))["version"])
        return read_document(ctx.store, layout.profile(name, version), DataProfile)
    except ObjectMissing:
        if expectation.baseline in (None, ctx.name):
            return None
        raise DataError(
            f"data.expectations (drift): the baseline '{expectation.baseline}' is not in the store {ctx.store.uri}",
            "name a data set that is there, as NAME or NAME@VERSION, or leave baseline out",
        ) from None


# --- what was written ---------------------------------------------------------------------------------------------


def _all_bad(scattered: Scattered, written: WrittenShards) -> BadRows:
    """The rows that were bad by themselves, then those that were bad because of others."""
    total = scattered.bad()
    total.num_rows += written.bad.num_rows
    total.reasons += written.bad.reasons
    total.targets.add(written.bad.targets)
    total.kept += written.bad.kept[: MAX_KEPT - len(total.kept)]
    return total


def _kept(scattered: Scattered, written: WrittenShards) -> Targets:
    """The targets of the rows that are written."""
    kept = scattered.kept()
    kept.take_away(written.bad.targets)
    return kept


def _refuse_bad(bad: BadRows, kept: Targets, scattered: Scattered, spec: DataSpec, notes: Sequence[str]) -> Losses:
    """What goes with the bad rows. Raises DataError where they are more than the spec allows."""
    losses = Losses(spec.target, bad.targets, kept)
    refuse_too_many(bad, scattered.num_rows, spec.bad_rows.max_frac, notes, losses, remedies(bad, spec))
    return losses


def _keep_bad_rows(bad: BadRows, version: str, ctx: RunContext) -> str | None:
    if not bad.num_rows:
        return None
    key = layout.bad_rows(ctx.name, version)
    ctx.store.write(key, to_lines(bad))
    return key


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell_rows(ctx: RunContext, scattered: Scattered, took_s: float) -> None:
    num_bad = scattered.num_rows - scattered.num_good
    rate = scattered.num_rows / max(took_s, 1e-9)
    text = f"read {scattered.num_rows} rows  bad {num_bad}  {rate:.3g} rows/s"
    ctx.progress.say("data", text, num_rows=scattered.num_rows, num_bad_rows=num_bad, rows_per_s=round(rate, 1))


def _tell_stored(ctx: RunContext, record: DatasetVersion, took_s: float) -> None:
    fitted = ", ".join(state["kind"] for state in record.transforms) or "none"
    shards = [shard for split in record.splits.values() for shard in split.shards]
    num_bytes = sum(shard.size_bytes for shard in shards)
    text = f"dataset {record.name} {record.version}: {len(shards)} shards, {num_bytes / 2**20:.1f} MiB"
    sizes = {name: split.num_rows for name, split in record.splits.items()}
    rows = "  ".join(f"{name} {size}" for name, size in sizes.items())
    ctx.progress.say("data", f"{rows}  transforms fitted: {fitted}", splits=sizes, transforms=len(record.transforms))
    ctx.progress.say("data", f"{text}, {took_s:.1f} s", version=record.version, num_bytes=num_bytes)
