"""register(): a trained and judged model becomes an immutable numbered version.

Order of writes: the artifact's files, the number, the version record, the alias.  A crash between two of them leaves a
registry that is whole; running it again finds what was done and goes on from there.
"""

from __future__ import annotations

from datetime import datetime, timezone

from raypipe.errors import (
    AliasMoved,
    GateError,
    ObjectExists,
    RegistryError,
    StoreError,
)
from raypipe.records import ArtifactRef, DatasetVersion, EvaluationReport, ModelVersion, TrainResult
from raypipe.registry.aliases import Alias, Aliases
from raypipe.registry.versions import TakenNumber, get, taken_by, taken_numbers, version_numbers
from raypipe.runtime.context import RunContext
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
from raypipe.storage.documents import seal
from raypipe.storage.publish import MANIFEST, copy_published

MAX_LOST_ANSWERS = 3
"""Claims of one number repeated when storage does not say whether the last one landed."""

MAX_ALIAS_TRIES = 5
"""Moves repeated when other registrations move the same alias."""


def register(
    spec: RegistrySpec,
    model: str,
    trained: TrainResult,
    dataset: DatasetVersion,
    report: EvaluationReport,
    ctx: RunContext,
) -> ModelVersion:
    """Give the model the next version number, if its gates hold, and point the alias at it.

    Repeating it in the same run answers the same version; `registry.known_version` says what the alias does then.

    Args:
        model: name in the registry.
        report: what evaluate said about `trained` on `dataset`.
    Raises:
        GateError: a gate does not hold; nothing was registered.
        RegistryError: the report judges another artifact or dataset.
        DigestMismatch: the artifact's bytes are not those that were trained.
        AliasMoved: the version is registered, but others kept moving the alias; repeat it.
    """
    _check_report(model, trained, dataset, report)
    numbers = version_numbers(ctx.store, model)  # first: a version of ours that is missing here is met when claiming
    target = layout.model_artifact(model, trained.artifact.digest)
    known_artifact = ctx.store.exists(f"{target}/{MANIFEST}")
    copy_published(ctx.store, trained.artifact.key, target, digest=trained.artifact.digest)
    draft = ModelVersion(
        model=model,
        version=_first_to_try(numbers, taken_numbers(ctx.store, model)),
        artifact=ArtifactRef(key=target, digest=trained.artifact.digest),
        signature=dataset.signature,
        run_id=ctx.run_id,
        dataset=dataset.version,
        metrics=report.metrics,
        evaluation=report,
        created_at=datetime.fromtimestamp(ctx.clock(), timezone.utc).isoformat(timespec="milliseconds"),
        alias=spec.alias,
    )
    # Only an artifact that was here before can have a version of this run.
    known = _registered_before(ctx, draft, numbers) if known_artifact else None
    version = known or _claim(ctx.store, draft)
    if known is not None:
        said = f"{model}@{known.version} is this model, registered on {known.created_at[:10]} by run {known.run_id}: "
        ctx.progress.say("register", f"{said}no new version", model=model, version=known.version, known=True)
    else:
        ctx.progress.say("register", f"{model}@{version.version} registered", model=model, version=version.version)
    if spec.alias is not None:
        moves_back = known is not None and spec.known_version == "move_alias"
        _move_alias(spec.alias, version, ctx, moves_back=moves_back)
    return version


def _check_report(model: str, trained: TrainResult, dataset: DatasetVersion, report: EvaluationReport) -> None:
    if report.artifact.digest != trained.artifact.digest or report.dataset != dataset.version:
        raise RegistryError(
            f"{model}: the report judges artifact {report.artifact.digest[:12]} on dataset {report.dataset}, "
            f"not artifact {trained.artifact.digest[:12]} on dataset {dataset.version}",
            "evaluate this model on this dataset, then register it",
        )
    failed = [gate for gate in report.gates if not gate.passed]
    if failed:
        reasons = "; ".join(f"{gate.rule}: {gate.reason}" for gate in failed)
        raise GateError(
            f"{model} did not pass {len(failed)} of {len(report.gates)} gates, nothing was registered: {reasons}",
            "train a better model, or change evaluate.gates",
        )


def _is_ours(other: ModelVersion, draft: ModelVersion) -> bool:
    return other.run_id == draft.run_id and other.artifact.digest == draft.artifact.digest


def _registered_before(ctx: RunContext, draft: ModelVersion, numbers: list[int]) -> ModelVersion | None:
    for number in reversed(numbers):
        try:
            found = get(ctx.store, draft.model, number)
        except RegistryError as error:  # one damaged version must not stop all registrations
            ctx.progress.say("register", f"version {number} is passed over: {error.message}")
            continue
        if _is_ours(found, draft):
            return found
    return None


def _first_to_try(numbers: list[int], taken: list[int]) -> int:
    """The last number given out where it has no version: its registration may be ours, broken off. Else the next."""
    last = max([0, *numbers, *taken])
    return last if last and last not in numbers else last + 1


def _claim(store: Store, draft: ModelVersion) -> ModelVersion:
    """Take a number from the draft's on and write the record under it; one that is ours already is answered."""
    number = _take_number(store, draft, draft.version)
    draft = draft.model_copy(update={"version": number})
    key = layout.version(draft.model, number)
    try:
        _write_new(store, key, seal(key, draft))
    except ObjectExists:  # the same run registers twice at once, or an earlier write landed
        return get(store, draft.model, number)
    return draft


def _take_number(store: Store, draft: ModelVersion, number: int) -> int:
    """The first free number from `number` on, or one that this registration took before."""
    while True:
        ours = TakenNumber(model=draft.model, version=number, run_id=draft.run_id, artifact=draft.artifact.digest)
        key = layout.number(draft.model, number)
        try:
            _write_new(store, key, seal(key, ours))
            return number
        except ObjectExists:
            if _taken(store, draft.model, number) == ours:
                return number
            number += 1


def _taken(store: Store, model: str, number: int) -> TakenNumber | None:
    try:
        return taken_by(store, model, number)
    except RegistryError:  # damaged: whoever took it, the number is gone
        return None


def _write_new(store: Store, key: str, data: bytes) -> None:
    """Write a new object; after a lost answer again, and what exists then may be our own.

    Raises:
        ObjectExists: somebody was first, perhaps we.
    """
    for tries_left in reversed(range(MAX_LOST_ANSWERS)):
        try:
            return store.write_if_absent(key, data)
        except StoreError as error:
            if not error.transient or tries_left == 0:
                raise


def _move_alias(alias: str, version: ModelVersion, ctx: RunContext, *, moves_back: bool) -> None:
    """Point the alias at the version, unless it did before or a later version took it meanwhile.

    Args:
        moves_back: do it in these cases too.
    """
    aliases = Aliases(ctx.store, version.model, ctx.clock)
    for tries_left in reversed(range(MAX_ALIAS_TRIES)):
        now = aliases.get(alias)
        if now is not None and now.version == version.version:
            return
        if now is not None and not moves_back and (stays := _why_it_stays(now, version)):
            ctx.progress.say(
                "register",
                f"{alias} stays at version {now.version}: {stays}; to move it to version {version.version}: "
                f"raypipe promote {version.model}@{version.version} --alias {alias}",
                alias=alias,
                alias_version=now.version,
            )
            return
        try:
            aliases.move(alias, to=version.version, expect=now)
        except AliasMoved:
            if tries_left == 0:
                raise
            continue
        was = "" if now is None else f" (was version {now.version})"
        said = f"{alias} -> version {version.version}{was}"
        ctx.progress.say("register", said, alias=alias, alias_version=version.version)
        return


def _why_it_stays(now: Alias, version: ModelVersion) -> str:
    """Why an alias that points elsewhere is not moved to this version; empty where it is."""
    if any(move.version == version.version for move in now.history):
        return f"it pointed at version {version.version} before and was moved on"
    if now.version > version.version:
        return "that version was registered later"
    return ""
