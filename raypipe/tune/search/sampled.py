"""A search whose points are drawn one after another by one of Optuna's samplers.

The study lives in memory. A search that goes on asks it again for all that was drawn, tells it how the trials ended,
and so stands where it stood: each draw has a seed of its own, by its number, and draws nothing from those before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from raypipe.errors import SpecError
from raypipe.runtime import seeds
from raypipe.spec.load import with_values
from raypipe.tune import space
from raypipe.tune.points import End, Point, same_point
from raypipe.tune.schedulers import build_pruner
from raypipe.tune.search.base import Setup
from raypipe.tune.telling import shown

MAX_DRAWS_IN_VAIN = 100
"""Draws in a row that are refused or repeat a point; then there is hardly another."""


class SampledSearch:
    """See `Search`.

    Args:
        sampler: from a seed, one of Optuna's samplers; made anew for each draw.
        listed: all points in order, where the search does not draw but lists them.
        keeps_state: the sampler keeps what it knows with the trials of the study, as it draws.
    """

    def __init__(
        self,
        setup: Setup,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        listed: Iterator[dict[str, Any]] | None = None,
        keeps_state: bool = False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        assert setup.spec.tune is not None
        self._spec, self._tune, self._log = setup.spec, setup.spec.tune, setup.log
        self._space = {path: self._tune.space[path] for path in self._tune.in_order()}
        self._sampler, self._listed, self._keeps_state = sampler, listed, keeps_state
        self._seed = seeds.derive(setup.spec.seed, "search")
        # A name of its own would make Hyperband's brackets, which hang on it, other ones at each attempt.
        self._study = optuna.create_study(
            study_name="raypipe",
            direction="maximize" if setup.mode == "max" else "minimize",
            pruner=build_pruner(self._tune.scheduler, max_epochs=setup.spec.largest_train.epochs),
        )
        self.num_trials = self._tune.num_trials
        self.is_over, self.why_over = False, ""
        self._num_draws = 0
        self._accepted: set[str] = set()
        self._refusals: Counter[str] = Counter()
        self._first_refused = ""
        self._running: dict[str, optuna.Trial] = {}
        self._reported: dict[str, set[int]] = {}
        self._unfinished: list[Point] = []
        self._go_on()

    def next(self) -> Point | None:
        """The next trial, those that were broken off first."""
        if self._unfinished:
            return self._unfinished.pop(0)
        if self.is_over or len(self._accepted) >= self.num_trials:
            self.is_over = True
            return None
        in_vain = 0
        while self._listed is not None or in_vain < MAX_DRAWS_IN_VAIN:
            try:
                point = self._draw()
            except StopIteration:
                self._stop("the grid has no other point")
                return None
            if point is not None:
                return point
            in_vain += 1
        self._stop(f"the last {in_vain} points drawn were refused, or had been tried before")
        return None

    def report(self, point: Point, epoch: int, value: float) -> bool:
        """Whether the scheduler stops the trial; it is told of each epoch once."""
        reported = self._reported.setdefault(point.trial_id, set())
        if epoch in reported:
            return False
        reported.add(epoch)
        trial = self._running[point.trial_id]
        trial.report(value, epoch)
        return trial.should_prune()

    def end(self, point: Point, end: End) -> list[str]:
        """Tell the sampler; one that diverged counts as worse than all others, one that failed says nothing."""
        trial = self._running.pop(point.trial_id)
        if end.status == "completed":
            self._study.tell(trial, end.metric)
        elif end.status == "diverged" or (end.status == "stopped" and end.reports):
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return [point.trial_id]

    def _go_on(self) -> None:
        """Draw again what earlier attempts drew, and tell how it ended."""
        kept = {point.draw: point for point in self._log.points.values()}
        self._accepted = {same_point(point.values) for point in kept.values()}
        for draw in range(1, max(kept, default=0) + 1):
            if draw in kept:
                self._stand_where(kept[draw])
            elif (lost := self._draw()) is not None:  # mostly it was refused, or repeated another, and is again
                self._unfinished.append(lost)

    def _stand_where(self, point: Point) -> None:
        """Bring the study to where this trial left it."""
        trial, _ = self._ask(point.drawn)
        if self._keeps_state:
            _ = trial.relative_params  # Optuna draws, and keeps, what is known already only when asked
        self._running[point.trial_id] = trial
        end = self._log.ends.get(point.trial_id)
        if end is None:
            self._unfinished.append(point)
            return
        for epoch, value in end.reports.items():
            self.report(point, epoch, value)
        self.end(point, end)

    def _draw(self) -> Point | None:
        """One draw; None where it is refused, or repeats a point."""
        trial, drawn = self._ask()
        values = space.values(self._space, drawn)
        key = same_point(values)
        if key in self._accepted or len(self._accepted) >= self.num_trials:
            self._refuse(trial)
            return None
        try:
            with_values(self._spec, values)
        except SpecError as error:
            self._refusals[error.message] += 1
            self._first_refused = self._first_refused or f"{shown(values)}: {error.message}"
            self._refuse(trial)
            return None
        self._accepted.add(key)
        trial_id = f"t{self._num_draws:05d}"
        self._running[trial_id] = trial
        return Point(trial_id, f"trial {len(self._accepted)}/{self.num_trials}", values, self._num_draws, drawn)

    def _ask(self, known: dict[str, Any] | None = None) -> tuple[optuna.Trial, dict[str, Any]]:
        """Draw by number. Args: known: what was drawn under this number before."""
        listed = next(self._listed) if self._listed is not None else None
        self._num_draws += 1
        self._study.sampler = self._sampler(seeds.derive(self._seed, self._num_draws) % 2**32)
        fixed = known if known is not None else listed
        if fixed is not None:
            self._study.enqueue_trial(fixed)
        trial = self._study.ask()
        return trial, space.draw(self._space, trial)

    def _refuse(self, trial: optuna.Trial) -> None:
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _stop(self, why: str) -> None:
        self.is_over = True
        if not self._accepted:
            raise SpecError(
                f"tune.space: none of {sum(self._refusals.values())} points can be trained; the first, "
                f"{self._first_refused}",
                "change the ranges, or the field that does not go with them",
            )
        self.why_over = why
