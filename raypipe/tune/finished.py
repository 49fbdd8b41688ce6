"""The trials of a run's search that finished before it was broken off: they count, and are not trained again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import DatasetVersion, TrainResult
from raypipe.spec.base import fingerprint
from raypipe.storage import Store, layout
from raypipe.storage.documents import read_document, read_mapping, write_document
from raypipe.storage.publish import MANIFEST


@dataclass(frozen=True)
class FinishedTrial:
    """A trial whose records and model are in the store.

    Attributes:
        drawn: what the search drew for it, by field path; of a `choice` the option's index.
    """

    trial_id: str
    drawn: dict[str, Any]


def point_of(drawn: dict[str, Any]) -> str:
    """The same for the same point of a space."""
    return fingerprint(_plain(drawn))


def finished_trials(store: Store, run_id: str) -> dict[str, FinishedTrial]:
    """By point of the space. One that is damaged, or whose model is gone, is none: it is trained again."""
    finished: dict[str, FinishedTrial] = {}
    records = [info.key for info in store.list(layout.trials(run_id)) if layout.is_trial_record(info.key)]
    for trial_id in (key.split("/")[-2] for key in records):
        with suppress(DocumentError, ObjectMissing):
            drawn = read_mapping(store, layout.trial_point(run_id, trial_id))["drawn"]
            outcome = read_outcome(store, run_id, trial_id)
            if outcome is not None and store.exists(f"{outcome[1].artifact.key}/{MANIFEST}"):
                finished[point_of(drawn)] = FinishedTrial(trial_id, drawn)
    return finished


def write_outcome(
    store: Store, run_id: str, trial_id: str, drawn: dict[str, Any], dataset: DatasetVersion, result: TrainResult
) -> None:
    """Leave a finished trial's records; a trial that was stopped early leaves none."""
    write_document(store, layout.trial_point(run_id, trial_id), {"drawn": _plain(drawn)})
    write_document(store, layout.trial_dataset(run_id, trial_id), dataset)
    write_document(store, layout.trial_record(run_id, trial_id), result)


def read_outcome(store: Store, run_id: str, trial_id: str) -> tuple[DatasetVersion, TrainResult] | None:
    """What `write_outcome` left, or None. Raises DocumentError when it cannot be read."""
    record = layout.trial_record(run_id, trial_id)
    if not store.exists(record):
        return None
    dataset = read_document(store, layout.trial_dataset(run_id, trial_id), DatasetVersion)
    return dataset, read_document(store, record, TrainResult)


def _plain(drawn: dict[str, Any]) -> dict[str, Any]:
    """Searches draw numpy's numbers too, which JSON does not know."""
    return {path: draw.item() if hasattr(draw, "item") else draw for path, draw in drawn.items()}
