"""The trials of a run's search as the store keeps them: what each was to train with, and how it ended.

A point is written before its trial begins, its end when it ended; so a search that was broken off knows every trial
it ever began. JSON throughout, sealed with digests; nothing that is read here can run.
"""

from __future__ import annotations

from contextlib import suppress

from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import DatasetVersion, TrainResult
from raypipe.storage import Store, layout
from raypipe.storage.documents import read_document, read_mapping, write_document
from raypipe.storage.publish import MANIFEST
from raypipe.tune.points import End, Point


class TrialLog:
    """What is kept of a search.

    Args:
        search: fingerprint of all that shapes it. Trials of another search under the same run are deleted.
        metric: what the search compares.
    Attributes:
        points: every trial that began, by id, in the order of their draws.
        ends: how those ended that will not be tried again.
        spent_s: seconds the search has taken, over all attempts at it.
        notes: what is no longer as it was left, in words.
    Raises:
        DocumentError: what tells which search it is, is damaged.
    """

    def __init__(self, store: Store, run_id: str, search: str, metric: str) -> None:
        self.store, self.run_id = store, run_id
        self._search, self._metric = search, metric
        self.points: dict[str, Point] = {}
        self.ends: dict[str, End] = {}
        self.spent_s = 0.0
        self.notes: list[str] = []
        self._open()

    def begin(self, point: Point) -> None:
        """Keep a point before its trial begins."""
        self.points[point.trial_id] = point
        write_document(self.store, layout.trial_point(self.run_id, point.trial_id), point.document())

    def end(self, trial_id: str, end: End) -> None:
        """Keep how a trial ended, unless it will be tried again; of one that finished its own records tell."""
        if not end.lasting:
            return
        self.ends[trial_id] = end
        if end.status != "completed":
            write_document(self.store, layout.trial_end(self.run_id, trial_id), end.document())

    def spend(self, spent_s: float) -> None:
        """Keep how long the search has taken."""
        self.spent_s = spent_s
        write_document(self.store, layout.search(self.run_id), {"search": self._search, "spent_s": round(spent_s, 3)})

    def finished(self, trial_id: str) -> End | None:
        """The end of a trial whose records and model are there; None while they are not.

        Raises:
            DocumentError: a record is damaged.
        """
        outcome = read_outcome(self.store, self.run_id, trial_id)
        if outcome is None or not self.store.exists(f"{outcome[1].artifact.key}/{MANIFEST}"):
            return None
        result = outcome[1]
        reports = {epoch.epoch: epoch.metrics[self._metric] for epoch in result.history}
        return End("completed", result.metrics[self._metric], reports)

    def clear_checkpoints(self, trial_ids: list[str] | None = None) -> None:
        """Delete the checkpoints of some trials; of all where None is given."""
        if trial_ids is None:
            keys = [info.key for info in self.store.list(layout.trials(self.run_id))]
            trial_ids = [
                each for each in self.points if any(key.startswith(f"{self._checkpoints(each)}/") for key in keys)
            ]
        for trial_id in trial_ids:
            self.store.delete_prefix(self._checkpoints(trial_id))

    def _checkpoints(self, trial_id: str) -> str:
        return layout.checkpoints(layout.training_of_trial(self.run_id, trial_id))

    def _open(self) -> None:
        key = layout.search(self.run_id)
        known = read_mapping(self.store, key) if self.store.exists(key) else {}
        if known.get("search") != self._search:
            keys = [info.key for info in self.store.list(layout.trials(self.run_id))]
            if keys:
                self.notes.append("the trials this run had were those of another search; it begins anew")
                self.store.delete_prefix(layout.trials(self.run_id))
            self.spend(0.0)
            return
        self.spent_s = float(known["spent_s"])
        keys = [info.key for info in self.store.list(layout.trials(self.run_id))]
        points = [point for key in keys if layout.is_trial_point(key) and (point := self._point(key)) is not None]
        self.points = {point.trial_id: point for point in sorted(points, key=lambda each: each.draw)}
        for trial_id in self.points:
            end = self._end(trial_id)
            if end is not None:
                self.ends[trial_id] = end

    def _point(self, key: str) -> Point | None:
        try:
            return Point(**read_mapping(self.store, key))
        except (DocumentError, ObjectMissing, TypeError):
            self.notes.append(f"what trial {key.split('/')[-2]} was to train with is damaged; it is drawn again")
            return None

    def _end(self, trial_id: str) -> End | None:
        """How a trial ended; None where it has not, or where that is damaged: it is trained again."""
        try:
            finished = self.finished(trial_id)
            if finished is not None:
                return finished
            with suppress(ObjectMissing):
                return End.parse(read_mapping(self.store, layout.trial_end(self.run_id, trial_id)))
        except (DocumentError, ObjectMissing, TypeError, ValueError, KeyError):
            self.notes.append(f"what trial {trial_id} left is damaged; it is trained again")
        return None


def read_point(store: Store, run_id: str, trial_id: str) -> Point:
    """What a trial is to train with. Raises ObjectMissing, or DocumentError when it cannot be read."""
    return Point(**read_mapping(store, layout.trial_point(run_id, trial_id)))


def write_outcome(store: Store, run_id: str, trial_id: str, dataset: DatasetVersion, result: TrainResult) -> None:
    """Leave a finished trial's records, the one that makes it finished last."""
    write_document(store, layout.trial_dataset(run_id, trial_id), dataset)
    write_document(store, layout.trial_record(run_id, trial_id), result)


def read_outcome(store: Store, run_id: str, trial_id: str) -> tuple[DatasetVersion, TrainResult] | None:
    """What `write_outcome` left, or None. Raises DocumentError when it cannot be read."""
    record = layout.trial_record(run_id, trial_id)
    if not store.exists(record):
        return None
    dataset = read_document(store, layout.trial_dataset(run_id, trial_id), DatasetVersion)
    return dataset, read_document(store, record, TrainResult)


def delete_search(store: Store, run_id: str) -> None:
    """Delete all that a run's search left: it begins anew."""
    store.delete_prefix(layout.trials(run_id))
    store.delete(layout.search(run_id))
