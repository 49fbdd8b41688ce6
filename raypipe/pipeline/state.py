"""Load and save records: by run, and by the fingerprint of what they were made from."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import (
    DatasetVersion,
    Endpoint,
    EvaluationReport,
    ModelVersion,
    StageRecord,
    TrainResult,
    TuneResult,
)
from raypipe.spec.base import fingerprint
from raypipe.storage import Store, layout
from raypipe.storage.documents import read_document, read_mapping, write_document
from raypipe.storage.publish import MANIFEST

Inputs = dict[str, Any]
"""What a stage's outcome depends on, JSON-able; equal inputs mean an equal outcome."""

Records = dict[str, StageRecord]
"""Stage name -> what it left behind."""

RECORDS: dict[str, type[StageRecord]] = {
    "data": DatasetVersion,
    "train": TrainResult,
    "tune": TuneResult,
    "evaluate": EvaluationReport,
    "register": ModelVersion,
    "serve": Endpoint,
}


@dataclass(frozen=True)
class Found:
    """An outcome that can be used again."""

    record: StageRecord
    run_id: str


class RunState:
    """What one run, and the runs of the same pipeline before it, left in the store.

    Args:
        run_id: the run that saves; its folder need not exist yet.
        pipeline: the pipeline's name.
    """

    def __init__(self, store: Store, run_id: str, pipeline: str) -> None:
        self.store = store
        self.run_id = run_id
        self.pipeline = pipeline

    def exists(self) -> bool:
        """Whether this run left anything."""
        return self.store.exists(layout.run_spec(self.run_id))

    def describe(self, description: dict[str, Any]) -> None:
        """Keep what was asked for with the run: the spec, the file, the overrides."""
        write_document(self.store, layout.run_spec(self.run_id), description)

    def record(self, stage: str) -> StageRecord | None:
        """This run's own record of a stage."""
        return read_record(self.store, self.run_id, stage)

    def has_record(self, stage: str) -> bool:
        """Whether this run finished a stage."""
        return self.store.exists(layout.record(self.run_id, stage))

    def inputs(self, stage: str) -> Inputs | None:
        """What this run asked the stage to do, whether or not it finished."""
        return read_json(self.store, layout.inputs(self.run_id, stage))

    def find(self, stage: str, inputs: Inputs) -> Found | None:
        """An outcome made from these inputs, this run's own first, with everything it points at still there.

        What cannot be read, because it is damaged or another raypipe wrote it, is not found: the stage runs again.
        """
        index = _readable(self.store, layout.fingerprint(stage, fingerprint(inputs)))
        runs = [self.run_id] if index is None else [self.run_id, str(index["run_id"])]
        for run_id in dict.fromkeys(runs):
            # A run keeps what a stage gave last, and that may be from other inputs than the index was written for.
            if _readable(self.store, layout.inputs(run_id, stage)) != plain(inputs):
                continue
            with suppress(DocumentError):
                record = read_record(self.store, run_id, stage)
                if record is not None and is_whole(self.store, record):
                    return Found(record, run_id)
        return None

    def flaw(self, stage: str, run_id: str) -> str:
        """Why what a run left of a stage cannot be used again, after `the earlier result of RUN`."""
        try:
            read_record(self.store, run_id, stage)
        except DocumentError:
            return "is damaged or of another version of raypipe"
        return "is no longer whole"

    def last(self, stage: str) -> tuple[str, Inputs] | None:
        """The run of this pipeline that did the stage last, and from what."""
        found = _readable(self.store, layout.last_run(self.pipeline, stage))
        return None if found is None else (str(found["run_id"]), found["inputs"])

    def begin(self, stage: str, inputs: Inputs) -> None:
        """Note what is about to be done, so that a resumed run can tell whether it is still the same.

        A record that this run left of the stage goes: it must not stand for these inputs if they come to nothing.
        """
        self.store.delete(layout.record(self.run_id, stage))
        write_document(self.store, layout.inputs(self.run_id, stage), inputs)

    def adopt(self, stage: str, inputs: Inputs, found: Found) -> StageRecord:
        """Use an earlier outcome: this run's folder gets its own copy of the record."""
        if found.run_id != self.run_id:
            self.begin(stage, inputs)
            write_document(self.store, layout.record(self.run_id, stage), found.record)
        return found.record

    def save(self, stage: str, inputs: Inputs, record: StageRecord) -> StageRecord:
        """Keep a finished stage's record, and make it findable by its inputs."""
        write_document(self.store, layout.record(self.run_id, stage), record)
        pointer = {"run_id": self.run_id, "stage": stage}
        write_document(self.store, layout.fingerprint(stage, fingerprint(inputs)), pointer)
        write_document(self.store, layout.last_run(self.pipeline, stage), {**pointer, "inputs": inputs})
        return record


def read_record(store: Store, run_id: str, stage: str) -> StageRecord | None:
    """A run's record of one stage; None when the stage did not finish."""
    try:
        return read_document(store, layout.record(run_id, stage), RECORDS[stage])
    except ObjectMissing:
        return None


def read_run(store: Store, run_id: str) -> dict[str, Any] | None:
    """What a run was asked to do: spec, file, overrides, raypipe, started_at; None when there is no such run."""
    return read_json(store, layout.run_spec(run_id))


def is_whole(store: Store, record: StageRecord) -> bool:
    """Whether what a record points at is still in the store."""
    if isinstance(record, TuneResult):
        return is_whole(store, record.dataset) and is_whole(store, record.best)
    if isinstance(record, DatasetVersion):
        return store.exists(layout.dataset_record(record.name, record.version))
    if isinstance(record, TrainResult):
        return store.exists(f"{record.artifact.key}/{MANIFEST}")
    return True


def read_json(store: Store, key: str) -> dict[str, Any] | None:
    """A small JSON mapping of ours; None when it is not there. Raises DocumentError where it is damaged."""
    try:
        return read_mapping(store, key)
    except ObjectMissing:
        return None


def _readable(store: Store, key: str) -> dict[str, Any] | None:
    """As `read_json`, where a damaged one is as good as none."""
    try:
        return read_json(store, key)
    except DocumentError:
        return None


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths: {"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    if isinstance(value, dict) and value:
        return {k: v for key, part in value.items() for k, v in flat(part, f"{path}.{key}" if path else key).items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def plain(value: Inputs) -> Inputs:
    """As it reads after a round through JSON: tuples become lists."""
    return json.loads(json.dumps(value))
