"""What a report tells, gathered from the store; damaged or absent parts are left out, never guessed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from raypipe.errors import DocumentError, ObjectMissing
from raypipe.pipeline.history import RunHistory, read_history, read_records
from raypipe.pipeline.state import Records
from raypipe.records import (
    DataProfile,
    DatasetVersion,
    Endpoint,
    EvaluationDetails,
    EvaluationReport,
    ModelVersion,
    Record,
    StageRecord,
    TrainResult,
    TuneResult,
)
from raypipe.runtime.progress import read_events
from raypipe.storage import Store
from raypipe.storage.documents import read_document

R = TypeVar("R", bound=Record)

MAX_REASONS = 20
"""Reasons why rows were set aside, the most frequent first."""


@dataclass(frozen=True)
class RunReport:
    """One run, as a page tells it.

    Attributes:
        details: what the metrics hide; None where it cannot be read, or an older raypipe evaluated.
        set_aside: reason -> rows that were set aside for it, the most frequent first.
        failure: stage and message of what stopped the run; None where nothing did.
        time_shares: what its wall time went into -> seconds.
    """

    history: RunHistory
    records: Records
    profile: DataProfile | None
    details: EvaluationDetails | None
    set_aside: tuple[tuple[str, int], ...]
    failure: tuple[str, str] | None
    time_shares: Mapping[str, float]

    @property
    def prepared(self) -> DatasetVersion | None:
        """The dataset of the pipeline, which the profile describes."""
        return self._record("data", DatasetVersion)

    @property
    def dataset(self) -> DatasetVersion | None:
        """The dataset the model was trained on: after a search, that of the best trial."""
        return self.prepared if self.tuned is None else self.tuned.dataset

    @property
    def tuned(self) -> TuneResult | None:
        return self._record("tune", TuneResult)

    @property
    def trained(self) -> TrainResult | None:
        """The training of the run, or that of the best trial."""
        return self._record("train", TrainResult) or (self.tuned.best if self.tuned is not None else None)

    @property
    def evaluation(self) -> EvaluationReport | None:
        return self._record("evaluate", EvaluationReport)

    @property
    def version(self) -> ModelVersion | None:
        return self._record("register", ModelVersion)

    @property
    def endpoint(self) -> Endpoint | None:
        return self._record("serve", Endpoint)

    def _record(self, stage: str, kind: type[R]) -> R | None:
        record = self.records.get(stage)
        return record if isinstance(record, kind) else None


def read_report(store: Store, run_id: str) -> RunReport:
    """All that a store holds of one run.

    Raises:
        SpecError: there is no such run; names those that are near.
        DocumentError: what it was asked to do is damaged.
    """
    history = read_history(store, run_id)
    records = read_records(store, run_id)
    events = read_events(store, run_id)
    data = records.get("data")
    dataset = data if isinstance(data, DatasetVersion) else None
    return RunReport(
        history=history,
        records=records,
        profile=_profile(store, dataset),
        details=_details(store, records.get("evaluate")),
        set_aside=_set_aside(store, dataset),
        failure=_failure(events, records),
        time_shares=time_shares(events),
    )


def _profile(store: Store, dataset: DatasetVersion | None) -> DataProfile | None:
    if dataset is None or dataset.profile_key is None:
        return None
    with suppress(ObjectMissing, DocumentError):
        return read_document(store, dataset.profile_key, DataProfile)
    return None


def _details(store: Store, record: StageRecord | None) -> EvaluationDetails | None:
    if not isinstance(record, EvaluationReport) or record.details_key is None:
        return None
    with suppress(ObjectMissing, DocumentError):
        return read_document(store, record.details_key, EvaluationDetails)
    return None


def _set_aside(store: Store, dataset: DatasetVersion | None) -> tuple[tuple[str, int], ...]:
    if dataset is None or dataset.bad_rows_key is None:
        return ()
    reasons: Counter[str] = Counter()
    with suppress(ObjectMissing):
        for line in store.read(dataset.bad_rows_key).splitlines():
            with suppress(ValueError, RecursionError, AttributeError):
                reasons[str(json.loads(line).get("reason", ""))] += 1
    return tuple(reasons.most_common(MAX_REASONS))


def _failure(events: Sequence[Mapping[str, Any]], records: Records) -> tuple[str, str] | None:
    for event in reversed(events):
        stage = str(event.get("stage", ""))
        if event.get("failed") and stage not in records:
            return stage, str(event.get("error") or event.get("text", ""))
    return None


def time_shares(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a run by what they went into, as far as its events tell.

    Each span between two events belongs to the later one's stage; a training's to its steps (validation and checkpoints
    are part of them), to starting or restarting its workers, or to packaging. Time in which no process worked on the
    run, between a break and its resumption, is not counted.
    """
    shares: defaultdict[str, float] = defaultdict(float)
    is_stepping = False
    timed = [event for event in events if isinstance(event.get("time"), int | float)]
    for before, event in pairwise(timed):
        stage, span = str(event.get("stage", "")), max(0.0, event["time"] - before["time"])
        if stage == "run":
            continue
        if stage == "train":
            if event.get("event") in ("rows", "start"):
                part, is_stepping = "starting workers", event["event"] == "start"
            elif event.get("event") == "goodput" or "wall_s" in event:
                part = "packaging the model" if is_stepping else "starting workers"
            else:
                part = "training steps" if is_stepping else "starting workers"
        else:
            part = "starting Ray" if stage == "ray" or before.get("stage") == "ray" else f"stage {stage}"
        shares[part] += span
    return {name: round(seconds, 3) for name, seconds in shares.items() if seconds > 0}
