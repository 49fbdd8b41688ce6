"""A search's trials on Ray Tune, which gives each its place and process; which points, and when to stop, we say."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune as ray_tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.stopper import Stopper

from raypipe.errors import RaypipeError
from raypipe.records import Trial
from raypipe.tune.conductor import Conductor
from raypipe.tune.points import End
from raypipe.tune.telling import quiet
from raypipe.tune.trial import FAILURE, TRIAL_ID


def carry_out(
    conductor: Conductor,
    run_trial: Callable[[dict[str, Any]], None],
    *,
    name: str,
    bundle: dict[str, float],
    max_concurrent: int,
    metric: str,
    reuse_processes: bool,
) -> list[Trial]:
    """Run trials until the search is over.

    Args:
        run_trial: called in a process of its own, with {TRIAL_ID: id}.
        bundle: what a trial's process occupies, Ray's names.
        metric: of an epoch's report, what the search compares.
        reuse_processes: a later trial then starts at once.
    Raises:
        RaypipeError: the search or the store cannot go on; what ran is stopped, and goes on with the next attempt.
    """
    # Tune warns in these words about a console and a storage that this run does not use.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    points = _Points(conductor)
    scratch = tempfile.mkdtemp(prefix="raypipe-tune-")
    try:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(run_trial, ray_tune.PlacementGroupFactory([bundle])),
            tune_config=ray_tune.TuneConfig(
                num_samples=-1,  # until the search says that it is over
                # Not TuneConfig's own bound, which Tune applies to some searches only.
                search_alg=ConcurrencyLimiter(points, max_concurrent),
                reuse_actors=reuse_processes,
            ),
            run_config=ray_tune.RunConfig(
                name=name, storage_path=scratch, verbose=0, stop=_Stops(conductor, points, metric)
            ),
        )
        with quiet():
            tuner.fit()
        if points.error is not None:
            raise points.error
        return conductor.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Ours:
    """Lives in the driver alone: the copies that Tune keeps beside its own state are never read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class _Points(_Ours, Searcher):
    """Tune asks it for trials, and tells it when they end."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor
        self.trial_ids: dict[str, str] = {}
        """Tune's id to ours."""
        self.error: RaypipeError | None = None
        """The first that the conductor raised: Tune would wrap it, and tell its own stack."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        point = None
        with self.raised_later():
            point = self._conductor.next()
        if self.error is not None:
            return Searcher.FINISHED
        if point is None:
            return Searcher.FINISHED if self._conductor.is_over else None
        self.trial_ids[trial_id] = point.trial_id
        return {TRIAL_ID: point.trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self.raised_later():
            self._conductor.end(self.trial_ids[trial_id], lost=error)

    @contextmanager
    def raised_later(self) -> Iterator[None]:
        """Keep what the conductor raises until Tune has stopped."""
        try:
            yield
        except RaypipeError as error:
            self.error = self.error or error

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search goes on from its trials in the store")


class _Stops(_Ours, Stopper):
    """Tune shows it every report."""

    def __init__(self, conductor: Conductor, points: _Points, metric: str) -> None:
        self._conductor, self._points, self._metric = conductor, points, metric

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        ours = self._points.trial_ids[trial_id]
        if FAILURE in result:
            self._conductor.failed(ours, End.parse({**result[FAILURE]}))
            return False
        if self._metric not in result:
            return False
        with self._points.raised_later():
            return self._conductor.report(ours, int(result["epoch"]), float(result[self._metric]))
        return True

    def stop_all(self) -> bool:
        return self._points.error is not None or self._conductor.stops_all
