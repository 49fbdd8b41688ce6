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
from raypipe.data.learned_merges import with_merges
from raypipe.data.next_tokens import language_of, read_shape
from raypipe.data.shuffle import version as versions
from raypipe.data.shuffle.describe import describe
from raypipe.data.shuffle.meet import Meeting, meet_by_key
from raypipe.data.shuffle.recognise import recognise
from raypipe.data.shuffle.scatter_all import scatter_all
from raypipe.data.shuffle.scattered import Scattered
from raypipe.data.shuffle.weights import row_weights
from raypipe.data.shuffle.write_all import write_all
from raypipe.data.shuffle.written import refuse_empty_splits, target_statistics
from raypipe.data.sources.tokenizers import with_tokenizers
from raypipe.data.splits import verdict
from raypipe.data.table import label_sets
from raypipe.data.target_text import language_of_target, without_target
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import RaypipeError
from raypipe.records import DatasetVersion, ExpectationResult, Reading, Signature
from raypipe.runtime.context import RunContext
from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec
from raypipe.storage import layout

MAX_NOTES = 200
"""Lines of how files were read that a version's record keeps."""


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
    spec = with_merges(with_tokenizers(spec))
    spec, lines = recognise(spec)
    for line in lines:
        ctx.progress.say("data", line)
    scattered, schema = scatter_all(spec, ctx)
    scattered.tell(time.monotonic() - started, ctx.progress)
    meeting = meet_by_key(scattered, spec)
    results = verdicts.judge(spec.expectations, scattered.rule_tallies, scattered.kinds(), meeting.duplicates)
    scattered.set_aside(verdicts.notes(results))
    verdicts.refuse_broken(results)
    refuse_one_class(list(scattered.labels), schema, source=spec.source)
    content = scattered.content_fingerprint(schema, meeting.state)
    version = fingerprint(spec.shaping(), content, scattered.num_rows - scattered.num_good)
    known = versions.prepared_before(version, ctx)
    if known is not None:
        ctx.progress.say("data", f"dataset {ctx.name} {version} is in the store already", reused=True)
        versions.warn(known, ctx)
        if as_latest:
            versions.mark_latest(version, ctx)
        return known
    try:
        record = _make(scattered, schema, meeting, results, version, content, spec, lines, ctx)
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
    recognised: Sequence[str],
    ctx: RunContext,
) -> DatasetVersion:
    """Write the shards and what else belongs to a version, and its record last.

    Args:
        recognised: lines that say what files told before they were read.
    """
    signature = _signature(spec, schema)
    packed_bytes = scattered.num_bytes
    learned = _with_target(signature, schema) if spec.target_tokens else signature
    written = write_all(scattered, meeting.state, meeting.aside, spec, learned, version, ctx)
    ctx.progress.say("data", "rows moved", show=False, packed_bytes=packed_bytes, moved_bytes=written.moved_bytes)
    notes = (*recognised, *scattered.notes())
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
    labels = written.labels
    classes = classes_of(labels, schema)
    weights = row_weights(written, schema, classes)
    signature = signature.model_copy(update={"classes": classes})
    described = describe(written, (*results, *counted), spec, schema.features, version, ctx)
    transforms = fit_shards(spec.learned_transforms, written, learned, ctx)
    signature, transforms = _with_language(signature, transforms, spec, schema)
    record = DatasetVersion(
        name=ctx.name,
        version=version,
        signature=signature,
        splits=splits,
        row_identity="features_and_target",
        split_state=meeting.state,
        transforms=transforms.state(),
        feature_shape=read_shape(signature, transforms.feature_shape(signature.inputs)),
        num_bad_rows=bad.num_rows,
        bad_rows_key=layout.bad_rows(ctx.name, version) if bad.num_rows else None,
        profile_key=layout.profile(ctx.name, version),
        content_fingerprint=content,
        target_statistics=statistics,
        class_counts=None if classes is None else tuple(labels["train"][label] for label in classes),
        warnings=described.warnings,
        notes=notes[:MAX_NOTES],
        weights=weights,
    )
    versions.warn(record, ctx)
    versions.publish(record, described.profile, bad, ctx)
    return record


def _signature(spec: DataSpec, schema: Schema) -> Signature:
    """What the spec and the columns say of a model's rows; classes and tokens are known once the rows are written."""
    return Signature(
        inputs=schema.inputs,
        task=spec.task,
        target=spec.target if isinstance(spec.target, str) else tuple(spec.target),
        label_sets=label_sets.kept(spec),
        extra_columns=spec.policy.extra_columns,
        reading=Reading(format=spec.source.format, settings=spec.source.settings()),
    )


def _with_target(signature: Signature, schema: Schema) -> Signature:
    """The signature for transforms that are fitted on the target, too."""
    return signature.model_copy(update={"inputs": (*signature.inputs, schema.columns[schema.target])})


def _with_language(
    signature: Signature, transforms: FittedTransforms, spec: DataSpec, schema: Schema
) -> tuple[Signature, FittedTransforms]:
    """The signature with the tokens of the texts that are written, where that is the task, and the transforms of the
    features alone."""
    if spec.task == "language_model":
        return signature.model_copy(update={"language": language_of(signature, transforms)}), transforms
    if spec.target_tokens is None:
        return signature, transforms
    language = language_of_target(spec.target_tokens, schema.target, transforms)
    signature = signature.model_copy(update={"language": language})
    return signature, FittedTransforms(without_target(transforms, schema.target))
