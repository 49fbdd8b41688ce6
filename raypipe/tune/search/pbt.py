"""Population based training, generation by generation over checkpoints.

All trainings of a generation end at the same epoch before the next begins. So who continues from whom follows from the
seed and the metrics alone, however many train at one time, and a search that goes on decides the same again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna

from raypipe.errors import SpecError
from raypipe.runtime import seeds
from raypipe.spec.load import with_values
from raypipe.spec.ranges import Choice, IntRange, Range
from raypipe.spec.tune import PbtSearch
from raypipe.tune import space
from raypipe.tune.points import End, Point
from raypipe.tune.search.base import Search, Setup

FACTORS = (0.8, 1.2)
"""What a number is multiplied by where a training continues from a better one."""

MAX_DRAWS_IN_VAIN = 100
"""Draws in a row that the rules of the file refuse; then there is hardly one they allow."""


def build(setup: Setup) -> Search:
    """Random values at first, then those of the best, changed."""
    return Population(setup)


class Population:
    """See `Search`; each trial is the epochs of one training up to the next comparison."""

    def __init__(self, setup: Setup) -> None:
        assert setup.spec.tune is not None and isinstance(setup.spec.tune.search, PbtSearch)
        self._file, self._space, self._spec = setup.spec, setup.spec.tune.space, setup.spec.tune.search
        self._log, self._sign = setup.log, 1 if setup.mode == "max" else -1
        self._size, self._epochs = setup.spec.tune.num_trials, setup.spec.train.epochs
        self._seed = seeds.derive(setup.spec.seed, "population")
        self._num_generations = math.ceil(self._epochs / self._spec.every_epochs)
        self.num_trials = self._size * self._num_generations
        self.is_over, self.why_over = False, ""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._generation = 0
        self._members: list[Point] = []
        self._before: list[str] = []
        """Trials of the generation before."""
        self._ends: dict[str, End] = {}
        self._waiting: list[Point] = []
        self._begin([(self._random_values(member), None) for member in range(self._size)])

    def next(self) -> Point | None:
        """The next training of this generation; None while others of it still run."""
        return self._waiting.pop(0) if self._waiting else None

    def report(self, point: Point, epoch: int, value: float) -> bool:
        """None stops before the comparison."""
        return False

    def end(self, point: Point, end: End) -> list[str]:
        """Once all have ended, compare them and begin the next generation."""
        self._ends[point.trial_id] = end
        before = self._before
        return before if self._compare() else []

    def _begin(self, members: list[tuple[dict[str, Any], str | None]]) -> None:
        """The next generation: values, and the trial each continues from. What is kept of it counts."""
        first = self._generation * self._spec.every_epochs + 1
        self._generation += 1
        until = min(self._generation * self._spec.every_epochs, self._epochs)
        self._before = [point.trial_id for point in self._members]
        self._members, self._ends, self._waiting = [], {}, []
        for member, (values, continues) in enumerate(members, 1):
            trial_id = f"g{self._generation:03d}-m{member:03d}"
            draw = (self._generation - 1) * self._size + member
            label = f"training {member}/{self._size}, epochs {first}-{until}"
            point = Point(trial_id, label, values, draw, continues=continues, until_epoch=until)
            self._members.append(self._log.points.get(trial_id, point))
        follows = any(point.draw > self._generation * self._size for point in self._log.points.values())
        for point in self._members:
            end = self._log.ends.get(point.trial_id)
            if end is not None:
                self._ends[point.trial_id] = end
            elif follows:  # compared already, without it
                self._ends[point.trial_id] = End("failed", reason="it was lost before a comparison")
            else:
                self._waiting.append(point)
        self._compare()

    def _compare(self) -> bool:
        """Begin the next generation, if this one has ended. Returns whether it has."""
        if len(self._ends) < len(self._members):
            return False
        ranked = sorted(self._members, key=self._place)
        alive = [point for point in ranked if self._metric(point) is not None]
        if self._generation == self._num_generations or not alive:
            self.is_over = True
            self.why_over = "" if alive else "every training of the population failed"
            return True
        num_replaced = math.ceil(self._spec.replaced_frac * self._size)
        donors = alive[:num_replaced]
        going_on = {point.trial_id for point in ranked[: self._size - num_replaced] if point in alive} | {
            point.trial_id for point in donors
        }
        following: list[tuple[dict[str, Any], str | None]] = []
        for member, point in enumerate(self._members):
            if point.trial_id in going_on:
                following.append((point.values, point.trial_id))
            else:
                random = np.random.default_rng(seeds.derive(self._seed, "continue", self._generation, member))
                donor = donors[int(random.integers(len(donors)))]
                following.append((self._changed(donor.values, random), donor.trial_id))
        self._begin(following)
        return True

    def _metric(self, point: Point) -> float | None:
        end = self._ends[point.trial_id]
        return end.metric if end.status == "completed" else None

    def _place(self, point: Point) -> float:
        metric = self._metric(point)
        return math.inf if metric is None else -self._sign * metric

    def _random_values(self, member: int) -> dict[str, Any]:
        refused = ""
        for attempt in range(MAX_DRAWS_IN_VAIN):
            seed = seeds.derive(self._seed, "first", member, attempt) % 2**32
            draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
            values = space.values(self._space, space.draw(self._space, draws))
            try:
                with_values(self._file, values)
            except SpecError as error:
                refused = error.message
            else:
                return values
        raise SpecError(
            f"tune.space: none of {MAX_DRAWS_IN_VAIN} points can be trained; the last: {refused}",
            "change the ranges, or the field that does not go with them",
        )

    def _changed(self, values: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """Near these; these themselves where the rules of the file refuse what is drawn."""
        for _ in range(MAX_DRAWS_IN_VAIN):
            changed = {path: self._changed_one(self._space[path], value, random) for path, value in values.items()}
            try:
                with_values(self._file, changed)
            except SpecError:
                continue
            return changed
        return values

    def _changed_one(self, allowed: Range, value: Any, random: np.random.Generator) -> Any:
        if random.random() < self._spec.redraw_prob:
            seed = int(random.integers(2**32))
            draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
            return space.values({"": allowed}, space.draw({"": allowed}, draws))[""]
        aside = int(random.integers(2))
        if isinstance(allowed, Choice) or (allowed.listed and not isinstance(allowed, IntRange)):
            place = list(allowed.listed).index(value) + (1 if aside else -1)
            return allowed.listed[min(max(place, 0), len(allowed.listed) - 1)]
        low, high = allowed.bounds
        changed = min(max(value * FACTORS[aside], low), high)
        if isinstance(allowed, IntRange):
            return low + round((changed - low) / allowed.step) * allowed.step
        return float(changed)
