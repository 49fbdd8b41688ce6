"""evaluate(): score with the Predictor, measure, judge."""

from __future__ import annotations

import time

from raypipe.errors import DataError, ModelError, TrainingError
from raypipe.evaluate.details import details_of
from raypipe.evaluate.gates import Standing, judge, needs_champion
from raypipe.evaluate.report import recorded, to_markdown
from raypipe.evaluate.score import Scored, score
from raypipe.model.metrics import confusion_matrix
from raypipe.model.tasks import task_of
from raypipe.records import (
    ArtifactRef,
    Column,
    DatasetVersion,
    EvaluationReport,
    ModelVersion,
    Signature,
    TrainResult,
)
from raypipe.runtime.context import RunContext
from raypipe.spec.evaluate import EvaluateSpec
from raypipe.spec.metrics import main_metrics
from raypipe.storage import layout
from raypipe.storage.documents import write_document


def evaluate(
    spec: EvaluateSpec, trained: TrainResult, dataset: DatasetVersion, champion: ModelVersion | None, ctx: RunContext
) -> EvaluationReport:
    """Score one artifact on the held-out split and judge whether it may be registered.

    Rows go in raw, through the same Predictor that serves. The number of workers changes no metric. Also writes
    the report for people and its details beside the record.

    Args:
        champion: the version served now; only gates with `min_gain_over_champion` look at it.
    Raises:
        DataError: the test split is empty, or holds a row or label the model cannot take.
        TrainingError: the model answered NaN, or a row was not scored exactly once.
        ModelError, StoreError, ClusterError: the artifact cannot be loaded, storage or the cluster did not answer.
    """
    if dataset.splits["test"].num_rows == 0:
        raise DataError(
            f"dataset {dataset.name} {dataset.version}: the test split has no rows, so nothing can be evaluated",
            "set data.split.test_frac above 0, or name a data.test_source",
        )
    start = time.monotonic()
    scored = score(spec, trained.artifact, dataset, ctx)
    report = measure(scored, trained.artifact, dataset, trained.quantile)
    rows_per_s = report.num_rows / max(time.monotonic() - start, 1e-9)
    standing = _standing(spec, trained.quantile, dataset, champion, ctx) if needs_champion(spec.gates) else None
    report = report.model_copy(update={"gates": tuple(judge(spec.gates, report.metrics, standing))})
    text = to_markdown(report, title=f"Evaluation of {ctx.name}, run {ctx.run_id}")
    ctx.store.write(layout.evaluation_text(ctx.run_id), text.encode())
    key = layout.evaluation_confusions(ctx.run_id)
    report, confusions = recorded(report, key)
    if confusions is not None:
        ctx.store.write(key, confusions)
    details = details_of(
        scored.target,
        scored.answer,
        scored.confidence,
        scored.worst,
        has_residuals=task_of(dataset.signature).has_residuals,
    )
    report = report.model_copy(update={"details_key": layout.evaluation_details(ctx.run_id)})
    write_document(ctx.store, str(report.details_key), details)
    _tell(report, rows_per_s, ctx)
    return report


def measure(
    scored: Scored, artifact: ArtifactRef, dataset: DatasetVersion, quantile: float | None = None
) -> EvaluationReport:
    """Metrics of all rows together; judged by nobody yet.

    Args:
        quantile: that the candidate was trained to tell; both it and the champion are measured as tellers of it.
    """
    task = task_of(dataset.signature)
    confusion = None
    answer = task.columns_of("answer")[0]
    if answer.labels and not answer.is_set:
        counts = confusion_matrix(scored.target, scored.answer, len(answer.labels))
        confusion = tuple(tuple(row) for row in counts.tolist())
    return EvaluationReport(
        artifact=artifact,
        dataset=dataset.version,
        num_rows=len(scored.answer),
        weighted_by=None if dataset.weights is None else dataset.weights.column,
        metrics=task.metrics(scored.measures, quantile),
        per_class=task.each_class(scored.measures),
        confusion=confusion,
    )


def judged_before(champion: ModelVersion, dataset: DatasetVersion, spec: EvaluateSpec) -> dict[str, float] | None:
    """The champion's metrics on these rows, where they are kept: None where it was judged on others, or by a release
    or for a quantile that did not measure what the gates ask for."""
    metrics = champion.evaluation.metrics
    compared = {gate.metric for gate in spec.gates if gate.min_gain_over_champion is not None}
    return metrics if champion.evaluation.dataset == dataset.version and compared <= metrics.keys() else None


def _standing(
    spec: EvaluateSpec,
    quantile: float | None,
    dataset: DatasetVersion,
    champion: ModelVersion | None,
    ctx: RunContext,
) -> Standing | None:
    """The champion's metrics on these test rows: as it was judged on them before, or scored now."""
    if champion is None:
        return None
    if (known := judged_before(champion, dataset, spec)) is not None:
        return Standing(champion.version, known)
    if problem := _difference(champion.signature, dataset.signature):
        return Standing(champion.version, None, problem)
    ctx.progress.say("evaluate", f"scoring version {champion.version}, the champion, on the same rows")
    try:
        scored = score(spec, champion.artifact, dataset, ctx)
    except (DataError, ModelError, TrainingError) as error:  # fails closed: nobody can say who is better
        return Standing(champion.version, None, error.message)
    return Standing(champion.version, measure(scored, champion.artifact, dataset, quantile).metrics)


def _difference(theirs: Signature, ours: Signature) -> str:
    """Why two models cannot be measured on the same rows; empty when they can."""
    for what, there, here in (
        ("task", theirs.task, ours.task),
        ("target", theirs.target, ours.target),
        ("tokens", theirs.language, ours.language),
        ("classes", theirs.classes, ours.classes),
        (
            "label sets",
            theirs.label_sets and theirs.label_sets.separator,
            ours.label_sets and ours.label_sets.separator,
        ),
        ("inputs", [_kind(c) for c in theirs.inputs], [_kind(c) for c in ours.inputs]),
    ):
        if there != here:
            return f"it has {what} {_short(there)}, the candidate {_short(here)}"
    return ""


def _kind(column: Column) -> tuple[str, str, tuple[int, ...]]:
    return column.name, column.dtype, column.shape  # a champion that takes no missing values may meet none


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _tell(report: EvaluationReport, rows_per_s: float, ctx: RunContext) -> None:
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in main_metrics(report.metrics).items())
    text = f"{report.num_rows} rows{report.weighted_text}  {metrics}  {rows_per_s:.0f} rows/s"
    ctx.progress.say("evaluate", text, rows=report.num_rows, metrics=report.metrics)
    for gate in report.gates:
        held = "holds" if gate.passed else "does NOT hold"
        ctx.progress.say("evaluate", f"gate {gate.rule} {held}: {gate.reason}", passed=gate.passed)
