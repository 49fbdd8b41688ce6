"""What runs left in a store, read back: which there are, how far each came, and what differs between some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from raypipe.errors import DocumentError, SpecError, did_you_mean
from raypipe.pipeline.state import RECORDS, Records, flat, read_json, read_record, read_run
from raypipe.records import DatasetVersion, EvaluationReport, Goodput, ModelVersion, TrainResult, TuneResult
from raypipe.runtime.process import ProcessId
from raypipe.runtime.progress import read_events, read_events_part
from raypipe.storage import Store, layout

READERS = 16
"""Runs read at a time: a store answers each request late, and many at once."""


@dataclass(frozen=True)
class RunSummary:
    """One run, as far as it can be read.

    Attributes:
        started_at: UTC, ISO 8601; empty where that is damaged.
        wall_s: seconds from its start to its last event; None where it left no event.
        state: `done`, `running`, `stopped in STAGE` or `after STAGE`; of a driver on another machine, that it does
            either there; `damaged` where what it was asked to do cannot be read.
        metric: name and value of the first metric of its evaluation, else of its training; None where it has neither.
        model: `name@version` that it registered or found.
    """

    run_id: str
    pipeline: str = ""
    started_at: str = ""
    wall_s: float | None = None
    state: str = "damaged"
    metric: tuple[str, float] | None = None
    model: str | None = None

    def document(self) -> dict[str, Any]:
        """As a JSON mapping."""
        return asdict(self)


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run.

    Attributes:
        state: `done`, `reused`, `failed`, or `began`.
        wall_s: seconds it took; None where it did not end, or was reused.
        left: where what it made is: the key of an artifact or a dataset, a model version, an address.
    """

    name: str
    state: str
    wall_s: float | None
    left: str


@dataclass(frozen=True)
class RunHistory:
    """One run with its stages.

    Attributes:
        resume: the command that goes on with it; None where there is nothing to go on with.
        asked: what it was asked to do: spec, file, overrides, raypipe, started_at.
        goodput: where the time of its training went, or of the best trial's; None where that is not known.
    """

    summary: RunSummary
    stages: tuple[StageSummary, ...]
    resume: str | None
    asked: dict[str, Any] = field(repr=False)
    goodput: Goodput | None = None


def list_runs(store: Store, pipeline: str | None = None) -> list[RunSummary]:
    """Every run of a store, the newest first.

    Args:
        pipeline: only runs of this one.
    """
    keys: dict[str, list[str]] = defaultdict(list)
    prefix = f"{layout.runs()}/"
    for info in store.list(layout.runs()):
        run_id, _, rest = info.key.removeprefix(prefix).partition("/")
        keys[run_id].append(rest)
    with ThreadPoolExecutor(READERS) as readers:
        summaries = list(readers.map(lambda item: _summary(store, *item), keys.items()))
    wanted = [each for each in summaries if each is not None and pipeline in (None, each.pipeline)]
    return sorted(wanted, key=lambda each: (each.started_at, each.run_id), reverse=True)


def read_history(store: Store, run_id: str) -> RunHistory:
    """One run with its stages.

    Raises:
        SpecError: there is no such run; names those that are near.
        DocumentError: what it was asked to do is damaged.
    """
    asked = read_run(store, run_id)
    if asked is None:
        raise _missing(store, run_id)
    prefix = f"{layout.run(run_id)}/"
    keys = [info.key.removeprefix(prefix) for info in store.list(layout.run(run_id))]
    summary = _summary(store, run_id, keys)
    assert summary is not None  # its spec was read
    events = read_events(store, run_id)
    records = read_records(store, run_id)
    stages = [
        _stage(run_id, name, records, events) for name in RECORDS if f"{name}/inputs.json" in keys or name in records
    ]
    note = read_json(store, layout.unfinished_run(summary.pipeline, run_id)) if summary.pipeline else None
    resume = None if note is None else str(note.get("resume"))
    trained = _trained(records)
    return RunHistory(summary, tuple(stages), resume, asked, None if trained is None else trained.goodput)


def read_records(store: Store, run_id: str) -> Records:
    """What each finished stage of a run left; damaged records are left out."""
    records: Records = {}
    for stage in RECORDS:
        with suppress(DocumentError):
            record = read_record(store, run_id, stage)
            if record is not None:
                records[stage] = record
    return records


def compare_runs(store: Store, run_ids: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """What differs between runs: metrics, dataset, fields of the pipeline file, in this order.

    Returns:
        Name of what differs -> its value in each run, None where a run has none.
    Raises:
        SpecError: there is no such run.
    """
    facts = [_facts(store, run_id) for run_id in run_ids]
    names = dict.fromkeys(name for each in facts for name in each)
    return [(name, values) for name in names if not _equal(values := [each.get(name) for each in facts])]


def _facts(store: Store, run_id: str) -> dict[str, Any]:
    asked = read_run(store, run_id)
    if asked is None:
        raise _missing(store, run_id)
    records = read_records(store, run_id)
    data, trained = records.get("data"), _trained(records)
    facts: dict[str, Any] = _metrics(records)
    if isinstance(data, DatasetVersion):
        facts |= {f"{name} rows": split.num_rows for name, split in data.splits.items()}
        facts["dataset"] = data.version[:12]
    if trained is not None:
        facts["artifact"] = trained.artifact.digest[:12]
    return {**facts, "raypipe": asked.get("raypipe"), **flat(asked.get("spec", {}))}


def _equal(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def _summary(store: Store, run_id: str, keys: Sequence[str]) -> RunSummary | None:
    """None for a folder that is no run's."""
    if "spec.json" not in keys:
        return None
    try:
        asked = read_run(store, run_id) or {}
    except DocumentError:
        return RunSummary(run_id)
    pipeline, started_at = str(asked.get("spec", {}).get("name", "")), str(asked.get("started_at", ""))
    records: Records = {}
    for stage in ("evaluate", "train", "tune", "register"):
        if f"{stage}/record.json" in keys:
            with suppress(DocumentError):
                record = read_record(store, run_id, stage)
                if record is not None:
                    records[stage] = record
    model = records.get("register")
    return RunSummary(
        run_id=run_id,
        pipeline=pipeline,
        started_at=started_at,
        wall_s=_wall_s(store, run_id, keys, started_at),
        state=_state(store, run_id, pipeline, keys),
        metric=next(iter(_metrics(records).items()), None),
        model=f"{model.model}@{model.version}" if isinstance(model, ModelVersion) else None,
    )


def _state(store: Store, run_id: str, pipeline: str, keys: Iterable[str]) -> str:
    there = set(keys)
    begun = [name for name in RECORDS if f"{name}/inputs.json" in there]
    open_stages = [name for name in begun if f"{name}/record.json" not in there]
    where = f"in {open_stages[0]}" if open_stages else f"after {begun[-1]}" if begun else "at its start"
    process = _driver(store, run_id, pipeline)
    if process is None:
        return f"stopped {where}" if open_stages else "done"
    if process.is_elsewhere:
        return f"{where}, running or stopped on {process.host}"
    return "running" if process.lives else f"stopped {where}"


def _driver(store: Store, run_id: str, pipeline: str) -> ProcessId | None:
    """The process that began the run; None where there is nothing to go on with, or its note cannot be read."""
    with suppress(DocumentError, KeyError, TypeError, ValueError, SpecError):
        note = read_json(store, layout.unfinished_run(pipeline, run_id))
        return None if note is None else ProcessId.parse(note["process"])
    return None


def _wall_s(store: Store, run_id: str, keys: Iterable[str], started_at: str) -> float | None:
    parts = sorted(key for key in keys if key.startswith("events/"))
    with suppress(ValueError, KeyError, IndexError):
        if parts:
            last = list(read_events_part(store, f"{layout.run(run_id)}/{parts[-1]}"))[-1]
            return round(last["time"] - datetime.fromisoformat(started_at.replace("Z", "+00:00")).timestamp(), 1)
    return None


def _metrics(records: Records) -> dict[str, float]:
    report, trained = records.get("evaluate"), _trained(records)
    if isinstance(report, EvaluationReport):
        return dict(report.metrics)
    return {} if trained is None else dict(trained.metrics)


def _trained(records: Records) -> TrainResult | None:
    """The training of a run, or that of its search's best trial."""
    record = records.get("train") or records.get("tune")
    if isinstance(record, TuneResult):
        record = record.best
    return record if isinstance(record, TrainResult) else None


def _stage(run_id: str, name: str, records: Records, events: Sequence[dict[str, Any]]) -> StageSummary:
    of_stage = [event for event in events if event.get("stage") == name]
    wall_s = next((event["wall_s"] for event in reversed(of_stage) if "wall_s" in event), None)
    if name in records:
        return StageSummary(name, "reused" if wall_s is None else "done", wall_s, _left(run_id, records[name]))
    failed = any(event.get("failed") for event in of_stage)
    return StageSummary(name, "failed" if failed else "began", None, "")


def _left(run_id: str, record: Any) -> str:
    if isinstance(record, DatasetVersion):
        return layout.dataset(record.name, record.version)
    if isinstance(record, TuneResult):
        record = record.best
    if isinstance(record, TrainResult):
        return record.artifact.key
    if isinstance(record, ModelVersion):
        return f"{record.model}@{record.version}"
    if isinstance(record, EvaluationReport):
        return layout.evaluation_text(run_id)
    return str(getattr(record, "url", ""))


def _missing(store: Store, run_id: str) -> SpecError:
    prefix = f"{layout.runs()}/"
    there = sorted({info.key.removeprefix(prefix).partition("/")[0] for info in store.list(layout.runs())})
    hint = "raypipe runs lists them" if there else "name another store: --store"
    return SpecError(f"no run '{run_id}' in {store.uri}{did_you_mean(run_id, there)}", hint)
