"""prepare(): read, check, split, write shards, fit transforms, publish.

Rows travel between tasks as object references: a block is read, checked and cut by range of row id (scatter_all.py,
scatter.py), then a range is put in order and written (write_all.py, gather.py).  The driver sees summaries only, so its
memory does not grow with the rows, and every byte of every shard depends on the rows alone, not on files, blocks or
workers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from raypipe.data.checks import verdicts
from raypipe.data.checks.classes import classes_of, refuse_one_class
from raypipe.data.checks.schema import Schema
from raypipe.data.fit_shards import fit_shards
from raypipe.data.shuffle import version as versions
from raypipe.data.shuffle.describe import describe
from raypipe.data.shuffle.meet import Meeting, meet_by_key
from raypipe.data.shuffle.scatter_all import scatter_all
from raypipe.data.shuffle.scattered import Scattered
from raypipe.data.shuffle.write_all import write_all
from raypipe.data.shuffle.written import refuse_empty_splits, target_statistics
from raypipe.data.splits import verdict
from raypipe.errors import RaypipeError
from raypipe.records import DatasetVersion, ExpectationResult, Reading, Signature
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec
from raypipe.storage import layout


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
    scattered.tell(schema, time.monotonic() - started, ctx.progress)
    meeting = meet_by_key(scattered, spec)
    results = verdicts.judge(spec.expectations, scattered.rule_tallies, scattered.kinds(), meeting.duplicates)
    scattered.set_aside(verdicts.notes(results))
    verdicts.refuse_broken(results)
    refuse_one_class(list(scattered.labels), schema)
    content = scattered.content_fingerprint(schema, meeting.state)
    version = spec.fingerprint(content, scattered.num_rows - scattered.num_good, exclude={"root", "read_parallelism"})
    known = versions.prepared_before(version, ctx)
    if known is not None:
        ctx.progress.say("data", f"dataset {ctx.name} {version} is in the store already", reused=True)
        if as_latest:
            versions.mark_latest(version, ctx)
        return known
    try:
        record = _make(scattered, schema, meeting, results, version, content, spec, ctx)
    except RaypipeError:
        versions.remove(version, ctx)
        raise
    if as_latest:
        versions.mark_latest(version, ctx)
    versions.tell(record, time.monotonic() - started, ctx)
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
    bad, losses = scattered.set_aside(verdicts.notes(results), written.bad)
    counted = verdicts.judge_count(spec.expectations, sum(written.sizes.values()))
    verdicts.refuse_broken(counted)
    if losses.is_uneven:
        ctx.progress.say("data", f"{bad.num_rows} bad rows are set aside; {'; '.join(losses.lines())}")
    lines = verdict.judge(written.twins, meeting.groups, scattered.different, spec)
    for line in [*lines, *verdict.lopsided(written.sizes, scattered.different, meeting.state, spec)]:
        ctx.progress.say("data", line)
    refuse_empty_splits(written, scattered.different, spec)
    splits, statistics = written.splits, target_statistics(written, schema)
    signature = signature.model_copy(update={"classes": classes_of(written.labels, schema)})
    described = describe(written, (*results, *counted), spec, schema.features, version, ctx)
    transforms = fit_shards(spec.transforms, written, signature, ctx)
    record = DatasetVersion(
        name=ctx.name,
        version=version,
        signature=signature,
        splits=splits,
        row_identity="features_and_target",
        split_state=meeting.state,
        transforms=transforms.state(),
        feature_shape=transforms.feature_shape(signature.inputs),
        num_bad_rows=bad.num_rows,
        bad_rows_key=layout.bad_rows(ctx.name, version) if bad.num_rows else None,
        profile_key=layout.profile(ctx.name, version),
        content_fingerprint=content,
        target_statistics=statistics,
    )
    versions.publish(record, described, bad, ctx)
    return record
