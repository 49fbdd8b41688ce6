"""Between a search and whoever carries out its trials: what begins, what stops, what is kept, what is told.

Knows no Ray: `on_ray_tune.py` calls it from Tune's loop, tests from a loop of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from raypipe.errors import RaypipeError
from raypipe.records import Trial
from raypipe.spec.tune import TuneSpec
from raypipe.tune.budget import Budget
from raypipe.tune.points import End, Point
from raypipe.tune.search.base import Search
from raypipe.tune.telling import Teller
from raypipe.tune.trial_log import TrialLog


@dataclass
class Running:
    """A trial that runs.

    Attributes:
        began_s: of the budget, when it began.
        failure: what it said of its own failure.
    """

    point: Point
    began_s: float
    reports: dict[int, float] = field(default_factory=dict)
    failure: End | None = None


class Conductor:
    """One attempt at a search."""

    def __init__(self, spec: TuneSpec, search: Search, log: TrialLog, budget: Budget, teller: Teller) -> None:
        self._spec, self._search, self._log, self._budget, self._teller = spec, search, log, budget, teller
        self._running: dict[str, Running] = {}
        self._ends: dict[str, tuple[Point, End]] = {
            trial_id: (log.points[trial_id], end) for trial_id, end in log.ends.items()
        }
        self._counts = Counter(end.status for _, end in self._ends.values())
        self._told_why_over = False
        teller.kept(list(log.ends.values()), search.num_trials)

    @property
    def is_over(self) -> bool:
        """Whether no trial begins any more."""
        return self._search.is_over or self._budget.is_spent or self._has_failed_too_often

    @property
    def stops_all(self) -> bool:
        """Whether trials that still run are to be stopped."""
        return (self._budget.is_spent and self._counts["completed"] > 0) or self._has_failed_too_often

    def next(self) -> Point | None:
        """The next trial, its point kept before it begins; None where it must wait, or the search is over."""
        point = None if self.is_over else self._search.next()
        if point is None:
            if self.is_over:
                self._tell_why_over()
            return None
        if self._log.points.get(point.trial_id) != point:
            self._log.begin(point)
        self._running[point.trial_id] = Running(point, self._budget.spent_s)
        self._teller.begins(point)
        return point

    def report(self, trial_id: str, epoch: int, value: float) -> bool:
        """An epoch of a trial; True where it is to stop."""
        running = self._running[trial_id]
        running.reports[epoch] = value
        self._teller.epoch(running.point, epoch, value)
        return self._search.report(running.point, epoch, value)

    def failed(self, trial_id: str, failure: End) -> None:
        """A trial tells why it ends; `end` follows."""
        self._running[trial_id].failure = failure

    def end(self, trial_id: str, *, lost: bool = False) -> None:
        """A trial ended; what it left in the store says how.

        Args:
            lost: its process ended before it could say anything.
        """
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        point, end = running.point, self._how_it_ended(running, lost=lost)
        self._ends[trial_id] = (point, end)
        self._counts[end.status] += 1
        self._log.end(trial_id, end)
        self._log.spend(self._budget.spent_s)
        self._log.clear_checkpoints(self._search.end(point, end))
        self._teller.ends(point, end, left=max(0, self._search.num_trials - len(self._ends)))

    def close(self) -> list[Trial]:
        """End what still runs, now that nobody carries it out any more. Returns every trial, in the order of draws."""
        self._tell_why_over()
        for trial_id in list(self._running):
            self.end(trial_id)
        self._log.clear_checkpoints()
        if self._ends:
            self._teller.over(self._counts)
        ordered = sorted(self._ends.values(), key=lambda each: each[0].draw)
        return [
            Trial(
                trial_id=point.trial_id,
                values=point.values,
                status=end.status,
                metric=end.metric,
                epochs=end.epochs,
                error=end.reason,
            )
            for point, end in ordered
        ]

    def _how_it_ended(self, running: Running, *, lost: bool) -> End:
        reports = running.reports
        try:
            finished = self._log.finished(running.point.trial_id)
        except RaypipeError as error:
            return End("failed", reports=reports, reason=error.message, lasting=False)
        if finished is not None:
            return finished
        if running.failure is not None:
            return running.failure
        last = reports[max(reports)] if reports else None
        if not lost:
            # The time of a search may be raised, and then it goes on; a scheduler's decision stays.
            return End("stopped", last, reports, lasting=not self._budget.is_spent)
        limit = self._spec.max_trial_minutes
        if limit is not None and self._budget.spent_s - running.began_s >= limit * 60:
            return End("failed", last, reports, f"it took longer than tune.max_trial_minutes={limit:g}")
        reason = "its process was lost: killed, or out of memory (lower tune.max_concurrent_trials)"
        return End("failed", last, reports, reason, lasting=False)

    @property
    def _has_failed_too_often(self) -> bool:
        num_failed = self._counts["failed"] + self._counts["diverged"]
        return not self._counts["completed"] and num_failed >= self._spec.max_failed_trials

    def _tell_why_over(self) -> None:
        if self._told_why_over:
            return
        self._told_why_over = True
        if self._has_failed_too_often:
            self._teller.why_over(f"{self._spec.max_failed_trials} trials failed and none finished: the search ends")
        elif self._budget.is_spent:
            began = f"{len(self._ends) + len(self._running)} of {self._search.num_trials} trials began"
            self._teller.why_over(f"tune.max_minutes={self._spec.max_minutes:g} is over: {began}")
        elif self._search.why_over:
            self._teller.why_over(f"the search ends: {self._search.why_over}")
