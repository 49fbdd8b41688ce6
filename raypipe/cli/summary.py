"""The end of a run: one JSON document, and the same for people."""

from __future__ import annotations

import json
import shlex
import tempfile
from typing import Any

from raypipe.cli.output import number, show
from raypipe.pipeline.api import RunResult
from raypipe.records import (
    DatasetVersion,
    Endpoint,
    EvaluationReport,
    ModelVersion,
    TrainResult,
    TuneResult,
)

MAX_CURL_BODY_CHARS = 400
"""Longer request bodies go to a file: a line that wraps five times is not pasted."""

MAX_ANSWER_CHARS = 400

MAX_METRICS = 3
"""Losses and the task's first metric; the record has all."""


def document(result: RunResult) -> dict[str, Any]:
    """Everything a program may want to know about a run."""
    stages = {
        name: {
            "reused": step.reuse,
            "reason": step.reason,
            "wall_s": result.wall_s.get(name),
            "record": result.records[name].model_dump(mode="json"),
        }
        for name, step in result.steps.items()
        if name in result.records
    }
    return {
        "run": result.run_id,
        "pipeline": result.name,
        "store": result.store,
        "stages": stages,
        "metrics": stages["evaluate"]["record"]["metrics"] if "evaluate" in stages else None,
        "model": _model_name(stages),
        "endpoint": endpoint_document(result.endpoint) if result.endpoint is not None else None,
        "endpoint_stays": result.endpoint_stays,
    }


def endpoint_document(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint with a `curl` line that works as pasted, and the answer it got."""
    request, answer = _first_row(endpoint.probe)
    return {**endpoint.model_dump(mode="json"), "curl": curl_line(endpoint, request), "answer": answer}


def _first_row(probe: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """One row of the request that was sent, and its answer: enough to try, short enough to paste."""
    request, answer = probe.get("request"), probe.get("answer")
    if request is None or answer is None:
        return None, None
    return {"instances": request["instances"][:1]}, {"predictions": answer["predictions"][:1]}


def curl_line(endpoint: Endpoint, request: Any) -> str:
    """A shell line that asks the endpoint; a body too long to paste goes to a file it names."""
    url = f"{endpoint.url}/predict"
    if request is None:
        return f"curl -s {endpoint.url}/healthz"
    body = json.dumps(request, separators=(",", ":"))
    if len(body) > MAX_CURL_BODY_CHARS:
        # A name nobody can foresee, readable by this user alone: the row may be anything.
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"raypipe-{endpoint.name}-", suffix=".json", delete=False, encoding="utf-8"
        ) as file:
            file.write(body)
        return f"curl -s {url} -H 'Content-Type: application/json' -d @{shlex.quote(file.name)}"
    return f"curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def show_run(run: dict[str, Any]) -> None:
    """A run's document for people."""
    show(f"run {run['run']} of {run['pipeline']} in {run['store']}")
    for name, stage in run["stages"].items():
        spent = "reused" if stage["reused"] else f"{stage['wall_s'] or 0:.1f}s"
        show(f"  {name:<9} {spent:>7}  {_said(name, stage)}")
    if run["endpoint"] is not None:
        show_endpoint(run["endpoint"])


def show_endpoint(endpoint: dict[str, Any]) -> None:
    """Where it answers, how to ask it, and what it said."""
    show("")
    show(f"{endpoint['model']}@{endpoint['version']} answers at {endpoint['url']}")
    show(f"  {endpoint['curl']}")
    if endpoint["answer"] is not None:
        answer = json.dumps(endpoint["answer"], separators=(",", ":"))
        show(f"  {answer if len(answer) <= MAX_ANSWER_CHARS else answer[: MAX_ANSWER_CHARS - 3] + '...'}")


def _said(name: str, stage: dict[str, Any]) -> str:
    record = stage["record"]
    if name == "data":
        return _data(DatasetVersion.model_validate(record))
    if name == "train":
        return _train(TrainResult.model_validate(record))
    if name == "tune":
        return _tune(TuneResult.model_validate(record))
    if name == "evaluate":
        return _evaluate(EvaluationReport.model_validate(record))
    if name == "register":
        version = ModelVersion.model_validate(record)
        alias = f", {version.alias}" if version.alias else ""
        return f"{version.model}@{version.version}{alias}"
    endpoint = Endpoint.model_validate(record)
    return f"{endpoint.min_replicas} to {endpoint.max_replicas} replicas behind {endpoint.ingress}"


def _data(dataset: DatasetVersion) -> str:
    rows = ", ".join(f"{name} {split.num_rows}" for name, split in dataset.splits.items())
    return f"{dataset.version[:12]}: {rows} rows" + (f", {dataset.num_bad_rows} bad" if dataset.num_bad_rows else "")


def _train(trained: TrainResult) -> str:
    shown = ", ".join(f"{name} {number(value)}" for name, value in list(trained.metrics.items())[:MAX_METRICS])
    return f"best epoch {trained.best_epoch} of {len(trained.history)}: {shown}, {trained.rows_per_s:,.0f} rows/s"


def _tune(tuned: TuneResult) -> str:
    values = ", ".join(f"{name}={value}" for name, value in tuned.best_values.items())
    metric = next((trial.metric for trial in tuned.trials if trial.trial_id == tuned.best_trial), None)
    told = f"{tuned.metric} {number(metric)}" if metric is not None else tuned.metric
    return f"{len(tuned.trials)} trials, best {told} at {values}"


def _evaluate(report: EvaluationReport) -> str:
    metrics = ", ".join(f"{name} {number(value)}" for name, value in report.metrics.items())
    gates = [f"{gate.rule} ({'holds' if gate.passed else 'fails'})" for gate in report.gates]
    return f"{metrics} on {report.num_rows} test rows" + (f"; gates: {'; '.join(gates)}" if gates else "")


def _model_name(stages: dict[str, Any]) -> dict[str, Any] | None:
    record = stages["register"]["record"] if "register" in stages else None
    return None if record is None else {"name": record["model"], "version": record["version"]}
