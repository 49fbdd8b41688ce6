"""register(): a trained and judged model becomes an immutable numbered version.

Order of writes: the artifact's files, the version record, the alias.  A crash between two of them leaves a registry
that is whole; running it again finds what was done and goes on from there.
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
from raypipe.registry.aliases import Aliases
from raypipe.registry.versions import get, version_numbers
from raypipe.runtime.context import RunContext
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
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

    Repeating it in the same run answers the same version.

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
    known = ctx.store.exists(f"{target}/{MANIFEST}")
    copy_published(ctx.store, trained.artifact.key, target, digest=trained.artifact.digest)
    draft = ModelVersion(
        model=model,
        version=(numbers[-1] if numbers else 0) + 1,
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
    version = (_registered_before(ctx.store, draft, numbers) if known else None) or _claim(ctx.store, draft)
    ctx.progress.say("register", f"{model}@{version.version} registered", model=model, version=version.version)
    if spec.alias is not None:
        _move_alias(spec.alias, version, ctx)
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


def _is_ours(found: ModelVersion, draft: ModelVersion) -> bool:
    return found.run_id == draft.run_id and found.artifact.digest == draft.artifact.digest


def _registered_before(store: Store, draft: ModelVersion, numbers: list[int]) -> ModelVersion | None:
    for number in reversed(numbers):
        found = get(store, draft.model, number)
        if _is_ours(found, draft):
            return found
    return None


def _claim(store: Store, draft: ModelVersion) -> ModelVersion:
    """Write the record under the first free number from the draft's on; one that is ours already is answered."""
    lost_answers = 0
    while True:
        key = layout.version(draft.model, draft.version)
        try:
            store.write_if_absent(key, draft.to_json())
            return draft
        except ObjectExists:
            found = get(store, draft.model, draft.version)
            if _is_ours(found, draft):
                return found
            draft = draft.model_copy(update={"version": draft.version + 1})
        except StoreError as error:
            # The write may have landed: claiming the same number again finds out, another number would make two.
            lost_answers += 1
            if not error.transient or lost_answers == MAX_LOST_ANSWERS:
                raise


def _move_alias(alias: str, version: ModelVersion, ctx: RunContext) -> None:
    """Point the alias at the version, unless it did before or a later version took it meanwhile."""
    aliases = Aliases(ctx.store, version.model, ctx.clock)
    for tries_left in reversed(range(MAX_ALIAS_TRIES)):
        now = aliases.get(alias)
        if now is not None and any(move.version == version.version for move in now.history):
            return
        if now is not None and now.version > version.version:
            ctx.progress.say("register", f"{alias} stays at version {now.version}, which was registered later")
            return
        try:
            aliases.move(alias, to=version.version, expect=now)
        except AliasMoved:
            if tries_left == 0:
                raise
            continue
        was = "" if now is None else f" (was version {now.version})"
        ctx.progress.say("register", f"{alias} -> version {version.version}{was}", alias=alias)
        return
