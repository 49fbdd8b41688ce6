"""Tune's callbacks -> lines a person reads."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback

from raypipe.errors import causes, find_known
from raypipe.records import Trial
from raypipe.runtime.progress import Progress
from raypipe.spec.tune import TuneSpec
from raypipe.tune.trial import KEPT

MAX_REASONS = 5
"""Different reasons of failed trials that are told."""


class Teller(Callback):
    """Tells each epoch of each trial, and the best so far; runs in the driver."""

    def __init__(self, progress: Progress, spec: TuneSpec, epochs: int, mode: str) -> None:
        self._progress, self._spec, self._epochs = progress, spec, epochs
        self._sign = 1 if mode == "max" else -1
        self._best: float | None = None
        self._numbers: dict[str, int] = {}
        self._ended = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its callbacks that nothing reads, and a Progress has a lock

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One epoch of one trial."""
        metric = self._spec.metric
        if metric not in result:
            return
        value = float(result[metric])
        if self._best is None or self._sign * (value - self._best) > 0:
            self._best = value
        self._progress.update(
            "tune",
            f"trial {self._number(trial)}/{self._spec.num_trials}  epoch {result.get('epoch')}/{self._epochs}  "
            f"{metric} {value:.4g}  best {self._best:.4g}",
            share=self._ended / self._spec.num_trials,
            show=KEPT not in result,
            trial=trial.trial_id,
            epoch=result.get("epoch"),
            metrics={metric: value},
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ran to its end or was stopped by the scheduler."""
        self._end(trial, "finished before, kept" if KEPT in (trial.last_result or {}) else "ended")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; the search goes on."""
        self._end(trial, "failed")

    def _end(self, trial: Any, how: str) -> None:
        self._ended += 1
        left = self._spec.num_trials - self._ended
        self._progress.say(
            "tune", f"trial {self._number(trial)}/{self._spec.num_trials}  {how}; {left} left", trial=trial.trial_id
        )

    def _number(self, trial: Any) -> int:
        return self._numbers.setdefault(trial.trial_id, len(self._numbers) + 1)


def tell_failures(trials: Sequence[Trial], progress: Progress) -> None:
    """Why trials failed, each reason once: Tune has it only when the search is over."""
    reasons = Counter(trial.error for trial in trials if trial.status == "failed")
    for reason, count in reasons.most_common(MAX_REASONS):
        progress.say("tune", f"{count} trial(s) failed: {reason}")


def reason_of(error: BaseException) -> str:
    """Why a trial failed, in one line: our own error's message, else the last line of the last cause."""
    known = find_known(error)
    cause = known or list(causes(error))[-1]
    lines = [line for line in (known.message if known else str(cause)).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(cause).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without Tune's own lines: a failed trial's traceback would stand between ours, which tell the reason."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    if not os.environ.get("RAYPIPE_DEBUG"):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
