"""prepare(): read, check, split, write shards, fit transforms, publish.

Rows travel between tasks as object references: a block is read, checked and cut by range of row id (cutting.py,
blocks.py), then a range is put in order and written (storing.py, ranges.py).  The driver sees summaries only, so its
memory does not grow with the rows, and every byte of every shard depends on the rows alone, not on files, blocks or
workers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from raypipe.data import masking
from raypipe.data.checks import verdicts
from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, refuse_too_many, to_lines
from raypipe.data.checks.duplicates import Duplicates, all_repeats
from raypipe.data.checks.expectations import keys_of
from raypipe.data.checks.losses import Losses, Targets
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import Schema, quantity_note
from raypipe.data.checks.suspects import left_out, lost_zeros, refuse_unclear_dates, suspects
from raypipe.data.formats import FORMATS
from raypipe.data.profile import profile
from raypipe.data.shuffle import ranges, target
from raypipe.data.shuffle.cutting import Cut, cut_rows
from raypipe.data.shuffle.ranges import Apart
from raypipe.data.shuffle.storing import Stored, fit_stored, store_all
from raypipe.data.splits import leaks
from raypipe.data.splits.leaks import Leaks
from raypipe.data.splits.split import SPLITS, SplitState
from raypipe.data.tasks import collect
from raypipe.errors import DataError, DocumentError, ObjectMissing
from raypipe.records import (
    DataProfile,
    DatasetVersion,
    ExpectationResult,
    Reading,
    Shard,
    Signature,
    Split,
    TargetStatistics,
    Value,
)
from raypipe.runtime.context import RunContext
from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec
from raypipe.spec.expectations import DriftExpectation
from raypipe.storage import layout
from raypipe.storage.documents import read_document, read_mapping, write_document

MERGED_PROFILES = 16
"""Profiles put together by one task."""


def prepare(spec: DataSpec, ctx: RunContext) -> DatasetVersion:
    """Make the dataset version a spec describes; one that exists already is used again.

    Raises:
        DataError: the data does not hold what the spec promises.
        SpecError: the key of a masked column is not there.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    cut, schema = cut_rows(spec, ctx)
    _tell_rows(ctx, cut, time.monotonic() - started)
    zeros = lost_zeros([block.profile for block in cut.blocks], schema)
    for line in [*left_out(spec.index_columns(cut.kinds())), *zeros]:
        ctx.progress.say("data", line)
    if note := quantity_note(cut.labels, spec.target):
        ctx.progress.say("data", note)
    found = _watch(cut, spec)
    results = verdicts.judge(spec.expectations, _tallies(cut), cut.kinds(), found.duplicates)
    _refuse_bad(cut.bad(), cut.kept(), cut, spec, verdicts.notes(results))
    verdicts.refuse_broken(results)
    _check_classes(cut, schema)
    content = cut.content_fingerprint(schema)
    version = spec.fingerprint(content, cut.num_rows - cut.num_good, exclude={"root", "read_parallelism"})
    key = layout.dataset_record(ctx.name, version)
    known = _prepared_before(key, ctx)
    if known is not None:
        ctx.progress.say("data", f"dataset {ctx.name} {version} is in the store already", reused=True)
        _mark_latest(version, ctx)
        return known
    signature = Signature(
        inputs=schema.inputs,
        task=spec.task,
        target=schema.target,
        extra_columns=spec.policy.extra_columns,
        reading=Reading(format=spec.source.format, settings=spec.source.settings()),
    )
    try:
        stored = store_all(cut, found.state, found.apart, spec, signature, version, ctx)
        bad = _all_bad(cut, stored)
        losses = _refuse_bad(bad, _kept(cut, stored), cut, spec, verdicts.notes(results))
        counted = verdicts.judge_count(spec.expectations, sum(stored.sizes().values()))
        verdicts.refuse_broken(counted)
        if losses.is_uneven:
            ctx.progress.say("data", f"{bad.num_rows} bad rows are set aside; {'; '.join(losses.lines())}")
        _say_leaks(stored, found, spec, ctx)
        _check_splits(stored, spec)
        signature = signature.model_copy(update={"classes": _classes(stored, schema)})
        described = _profile(stored, (*results, *counted), spec, schema.features, version, ctx)
        transforms = fit_stored(spec.transforms, stored, signature, ctx)
    except DataError:
        if not ctx.store.exists(key):  # another run may have made this version meanwhile
            ctx.store.delete_prefix(layout.dataset(ctx.name, version))
        raise
    record = DatasetVersion(
        name=ctx.name,
        version=version,
        signature=signature,
        splits={name: _split([item.shard for item in stored.shards if item.split == name]) for name in SPLITS},
        split_state=found.state,
        transforms=transforms.state(),
        feature_shape=transforms.feature_shape(signature.inputs),
        num_bad_rows=bad.num_rows,
        bad_rows_key=_keep_bad_rows(bad, version, ctx),
        profile_key=layout.profile(ctx.name, version),
        content_fingerprint=content,
        target_statistics=_target_statistics(stored, schema),
    )
    write_document(ctx.store, layout.profile(ctx.name, version), described)
    write_document(ctx.store, key, record)
    _mark_latest(version, ctx)
    _tell_stored(ctx, record, time.monotonic() - started)
    return record


def source_fingerprint(spec: DataSpec) -> str:
    """Changes when a source file or the key of a masked column does; lists files and reads at most small ones.

    Raises:
        DataError: the source is not there.
        SpecError: the key of a masked column is not there.
    """
    found = []
    for part in spec.parts():
        files = FORMATS[part.source.format].files(part.source, spec.root or ".")
        found.append([(file.name, file.size_bytes, file.tag) for file in files])
    return fingerprint(found, masking.read_keys(spec.masking).fingerprint())


# --- what only all rows together show --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch:
    """What was found where rows with one group or one key meet.

    Attributes:
        state: where the borders between the splits are.
        apart: a reference to ranges.Apart.
        groups: groups in several splits.
        duplicates: position of each `unique` expectation -> what each range holds.
    """

    state: SplitState
    apart: ray.ObjectRef
    groups: Leaks
    duplicates: dict[int, list[Duplicates]]


def _watch(cut: Cut, spec: DataSpec) -> Watch:
    (state,) = collect([ranges.decide_task.remote(spec, *cut.tallies)], "dividing rows into splits")
    cut.tallies.clear()
    tasks = [
        ranges.watch_task.remote(state, spec, *(block[number] for block in cut.watched))
        for number in range(cut.order.num_watched)
    ]
    cut.watched.clear()
    found = collect(tasks, "looking for repeated keys and groups")
    groups = leaks.all_shared([shared for shared, _ in found])
    unique = keys_of(spec.expectations)
    aside = [i for i in unique if spec.expectations[i].on_fail == "quarantine"]
    repeats = all_repeats([keys[i][1] for _, keys in found for i in aside])
    duplicates = {i: [keys[i][0] for _, keys in found] for i in unique}
    why = f"another row has the same {' or the same '.join(str(list(unique[i])) for i in aside)} (unique)"
    apart = ray.put(Apart(groups, repeats, why))
    return Watch(state, apart, groups.leaks, duplicates)


def _tallies(cut: Cut) -> list[Any]:
    return [block.tallies for block in cut.blocks if block.tallies is not None]


def _check_classes(cut: Cut, schema: Schema) -> None:
    if schema.task == "classification" and len(cut.labels) == 1:
        raise _one_class(schema, "", list(cut.labels))


def _one_class(schema: Schema, where: str, classes: Sequence[Any]) -> DataError:
    return DataError(
        f"target '{schema.target}' has one class{where}, {list(classes)}; there is nothing to tell apart",
        "correct data.target, or give rows of other classes",
    )


def _say_leaks(stored: Stored, found: Watch, spec: DataSpec, ctx: RunContext) -> None:
    rows = sum((summary.leaks for summary in stored.ranges), Leaks())
    for line in leaks.judge(rows, found.groups, spec):
        ctx.progress.say("data", line)


def _profile(
    stored: Stored,
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
    parts = stored.profiles
    while len(parts) > 1:
        groups = [parts[i : i + MERGED_PROFILES] for i in range(0, len(parts), MERGED_PROFILES)]
        parts = [ranges.merge_task.remote(*group) for group in groups]
    (whole,) = collect(parts, "describing columns")
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


def _check_splits(stored: Stored, spec: DataSpec) -> None:
    sizes = stored.sizes()
    for name in spec.wanted_splits:
        if not sizes[name]:
            told = spec.split.model_dump(exclude_none=True)
            settings = ", ".join(f"{field}={value}" for field, value in told.items() if field != "leaks")
            raise DataError(
                f"the {name} split is empty: of {sum(sizes.values())} good rows none fell into it "
                f"(data.split: {settings})",
                "give more rows, or change data.split"
                + ("" if name == "train" else f"; val_frac: 0 or test_frac: 0 asks for no {name} split"),
            )


def _classes(stored: Stored, schema: Schema) -> tuple[Value, ...] | None:
    """The labels of train, sorted.

    Raises:
        DataError: there is only one, or val or test hold a label that train does not.
    """
    if schema.task != "classification":
        return None
    labels: dict[str, Counter[Any]] = {name: Counter() for name in SPLITS}
    for item in stored.shards:
        labels[item.split].update(item.labels)
    classes = tuple(sorted(labels["train"]))
    note = quantity_note(sum(labels.values(), Counter()), schema.target)
    for name in ("val", "test"):
        for label in sorted(set(labels[name]) - set(classes)):
            raise DataError(
                f"label {label!r} of target '{schema.target}' is in {labels[name][label]} row(s) of {name} but in "
                f"none of train; train has {list(classes)[:20]}",
                note or "give more rows of it, remove them, or set another data.split.salt",
            )
    if len(classes) < 2:
        raise _one_class(schema, " in train", classes)
    return classes


def _target_statistics(stored: Stored, schema: Schema) -> TargetStatistics | None:
    if schema.task != "regression":
        return None
    return target.finish(item.target for item in stored.shards if item.target is not None)


def _split(shards: Sequence[Shard]) -> Split:
    return Split(num_rows=sum(shard.num_rows for shard in shards), shards=tuple(shards))


def _all_bad(cut: Cut, stored: Stored) -> BadRows:
    """The rows that were bad by themselves, then those that were bad because of others."""
    total = cut.bad()
    for summary in stored.ranges:
        total.num_rows += summary.bad.num_rows
        total.reasons += summary.bad.reasons
        total.targets.add(summary.bad.targets)
        total.kept += summary.bad.kept[: MAX_KEPT - len(total.kept)]
    return total


def _kept(cut: Cut, stored: Stored) -> Targets:
    """The targets of the rows that are stored."""
    kept = cut.kept()
    for summary in stored.ranges:
        kept.take_away(summary.bad.targets)
    return kept


def _refuse_bad(bad: BadRows, kept: Targets, cut: Cut, spec: DataSpec, notes: Sequence[str]) -> Losses:
    """What goes with the bad rows. Raises DataError where they are more than the spec allows."""
    losses = Losses(spec.target, bad.targets, kept)
    refuse_too_many(bad, cut.num_rows, spec.bad_rows.max_frac, notes, losses, remedies(bad, spec))
    return losses


def _keep_bad_rows(bad: BadRows, version: str, ctx: RunContext) -> str | None:
    if not bad.num_rows:
        return None
    key = layout.bad_rows(ctx.name, version)
    ctx.store.write(key, to_lines(bad))
    return key


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell_rows(ctx: RunContext, cut: Cut, took_s: float) -> None:
    num_bad = cut.num_rows - cut.num_good
    rate = cut.num_rows / max(took_s, 1e-9)
    text = f"read {cut.num_rows} rows  bad {num_bad}  {rate:.3g} rows/s"
    ctx.progress.say("data", text, num_rows=cut.num_rows, num_bad_rows=num_bad, rows_per_s=round(rate, 1))


def _tell_stored(ctx: RunContext, record: DatasetVersion, took_s: float) -> None:
    fitted = ", ".join(state["kind"] for state in record.transforms) or "none"
    shards = [shard for split in record.splits.values() for shard in split.shards]
    num_bytes = sum(shard.size_bytes for shard in shards)
    text = f"dataset {record.name} {record.version}: {len(shards)} shards, {num_bytes / 2**20:.1f} MiB"
    sizes = {name: split.num_rows for name, split in record.splits.items()}
    told = "  ".join(f"{name} {size}" for name, size in sizes.items())
    ctx.progress.say("data", f"{told}  transforms fitted: {fitted}", splits=sizes, transforms=len(record.transforms))
    ctx.progress.say("data", f"{text}, {took_s:.1f} s", version=record.version, num_bytes=num_bytes)
