"""The end of a run: one JSON document, and the same for people."""

from __future__ import annotations

import json
import shlex
import tempfile
from contextlib import suppress
from typing import Any

from raypipe.cli.output import number, show, show_set_in
from raypipe.pipeline.api import RunResult
from raypipe.records import (
    DatasetVersion,
    Endpoint,
    EvaluationReport,
    TrainResult,
    TuneResult,
)
from raypipe.spec.metrics import main_metrics

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
        "registration": _registration(result, stages),
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
    ask = "curl -s" if endpoint.cert_file is None else f"curl -s --cacert {shlex.quote(endpoint.cert_file)}"
    if request is None:
        return f"{ask} {endpoint.url}/healthz"
    key = ' -H "Authorization: Bearer $RAYPIPE_KEY"' if endpoint.needs_key else ""
    asked = f"{ask} {endpoint.url}/predict -H 'Content-Type: application/json'{key} -d"
    body = json.dumps(request, separators=(",", ":"))
    if len(body) > MAX_CURL_BODY_CHARS:
        # A name nobody can foresee, readable by this user alone: the row may be anything.
        with (
            suppress(OSError),
            tempfile.NamedTemporaryFile(
                "w", prefix=f"raypipe-{endpoint.name}-", suffix=".json", delete=False, encoding="utf-8"
            ) as file,
        ):
            file.write(body)
            file.flush()
            return f"{asked} @{shlex.quote(file.name)}"
    return f"{asked} {shlex.quote(body)}"


def show_run(run: dict[str, Any]) -> None:
    """A run's document for people."""
    show(f"run {run['run']} of {run['pipeline']} in {run['store']}")
    for name, stage in run["stages"].items():
        spent = "reused" if stage["reused"] else f"{stage['wall_s'] or 0:.1f}s"
        said = _register(run) if name == "register" else _said(name, stage)
        show_set_in(f"  {name:<9} {spent:>7}  ", said)
    if run["endpoint"] is not None:
        show_endpoint(run["endpoint"])
    _show_other_alias(run)


def show_endpoint(endpoint: dict[str, Any]) -> None:
    """Where it answers, how to ask it, and what it said."""
    show("")
    grpc = f", gRPC at {endpoint['grpc']}" if endpoint["grpc"] else ""
    show(f"{endpoint['model']}@{endpoint['version']} answers at {endpoint['url']}{grpc}")
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
    endpoint = Endpoint.model_validate(record)
    return f"{endpoint.min_replicas} to {endpoint.max_replicas} replicas behind {endpoint.ingress}"


def _data(dataset: DatasetVersion) -> str:
    rows = ", ".join(f"{name} {split.num_rows}" for name, split in dataset.splits.items())
    return f"{dataset.version[:12]}: {rows} rows" + (f", {dataset.num_bad_rows} bad" if dataset.num_bad_rows else "")


def _train(trained: TrainResult) -> str:
    of_log = "ln " if trained.target_transform.kind == "log" else ""
    shown = ", ".join(
        f"{of_log if name.endswith('_loss') else ''}{name} {number(value)}"
        for name, value in list(trained.metrics.items())[:MAX_METRICS]
    )
    goodput = "" if trained.goodput is None else f", goodput {trained.goodput.share:.2f}"
    rate = f"{trained.rows_per_s:,.0f} rows/s{goodput}"
    return f"best epoch {trained.best_epoch} of {len(trained.history)}: {shown}, {rate}"


def _tune(tuned: TuneResult) -> str:
    values = ", ".join(f"{name}={value}" for name, value in tuned.best_values.items())
    metric = next((trial.metric for trial in tuned.trials if trial.trial_id == tuned.best_trial), None)
    told = f"{tuned.metric} {number(metric)}" if metric is not None else tuned.metric
    return f"{len(tuned.trials)} trials, best {told} at {values}"


def _evaluate(report: EvaluationReport) -> str:
    metrics = ", ".join(f"{name} {number(value)}" for name, value in main_metrics(report.metrics).items())
    gates = [f"{gate.rule} ({'holds' if gate.passed else 'fails'})" for gate in report.gates]
    return f"{metrics} on {report.rows_text}" + (f"; gates: {'; '.join(gates)}" if gates else "")


def _model_name(stages: dict[str, Any]) -> dict[str, Any] | None:
    record = stages["register"]["record"] if "register" in stages else None
    return None if record is None else {"name": record["model"], "version": record["version"]}


def _registration(result: RunResult, stages: dict[str, Any]) -> dict[str, Any] | None:
    """Whether this run registered its version or an earlier one did, and where the alias points: perhaps elsewhere."""
    record = stages["register"]["record"] if "register" in stages else None
    if record is None:
        return None
    alias = result.alias
    return {
        "run": record["run_id"],
        "is_new": record["run_id"] == result.run_id,
        "alias": None if alias is None else {"name": alias.name, "version": alias.version},
    }


def _register(run: dict[str, Any]) -> str:
    version, registration = run["model"]["version"], run["registration"]
    known = "" if registration["is_new"] else f", registered before by run {registration['run']}"
    alias = registration["alias"]
    points = ""
    if alias is not None:
        points = f", {alias['name']}" + ("" if alias["version"] == version else f" is version {alias['version']}")
    return f"{run['model']['name']}@{version}{known}{points}"


def _show_other_alias(run: dict[str, Any]) -> None:
    """Say at the end that the alias points at another version than this run's, and how to change that."""
    model, alias = run["model"], run["registration"] and run["registration"]["alias"]
    if not alias or alias["version"] == model["version"]:
        return
    name, found = model["name"], "found and served" if run["endpoint"] is not None else "found"
    show("")
    show(f"note: this run {found} version {model['version']}; {alias['name']} is version {alias['version']}")
    show(f"  raypipe promote {name}@{model['version']} --alias {alias['name']}   makes this one {alias['name']}")
    show(f"  raypipe serve {name}@{alias['name']}   serves version {alias['version']}")
