"""A search's trials -> lines a person reads, one for each thing that happens to a trial."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from raypipe.errors import causes, find_known
from raypipe.runtime.progress import Progress
from raypipe.spec.tune import TuneSpec
from raypipe.tune.points import End, Point

WORDS = {
    "completed": "completed",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
}
"""What is said of a trial's end, in the order it is counted."""

SHOWN_VALUES = 200
"""Characters of a point's values that are told."""


class Teller:
    """Tells what trials do, and the best so far.

    Args:
        epochs: that a trial trains at the most.
        mode: `max` where larger is better.
    """

    def __init__(self, progress: Progress, spec: TuneSpec, epochs: int, mode: str) -> None:
        self._progress, self._metric, self._epochs = progress, spec.metric, epochs
        self._sign = 1 if mode == "max" else -1
        self._best: float | None = None
        self._ended, self._share = 0, 0.0

    def kept(self, ends: Collection[End], num_trials: int) -> None:
        """What earlier attempts at the search left; the best so far is theirs."""
        counts = Counter(end.status for end in ends)
        for value in (value for end in ends for value in end.reports.values()):
            self._note(value)
        self._ended = len(ends)
        if ends:
            self._share = self._ended / max(self._ended, num_trials)
            self._progress.say(
                "tune", f"{self._ended} of {num_trials} trials ended before and are kept: {counted(counts)}"
            )

    def begins(self, point: Point) -> None:
        """A trial begins."""
        text = f"{point.label}  begins: {shown(point.values)}"
        self._progress.say("tune", text, trial=point.trial_id)

    def epoch(self, point: Point, epoch: int, value: float) -> None:
        """One epoch of one trial."""
        self._note(value)
        self._progress.update(
            "tune",
            f"{point.label}  epoch {epoch}/{point.until_epoch or self._epochs}  "
            f"{self._metric} {value:.4g}  best {self._best:.4g}",
            share=self._share,
            trial=point.trial_id,
            epoch=epoch,
            metrics={self._metric: value},
        )

    def _note(self, value: float) -> None:
        if self._best is None or self._sign * (value - self._best) > 0:
            self._best = value

    def ends(self, point: Point, end: End, left: int) -> None:
        """A trial ended; the search goes on."""
        metric = "" if end.metric is None else f"  {self._metric} {end.metric:.4g}"
        reason = "" if end.reason is None else f": {end.reason}"
        self._ended += 1
        self._share = self._ended / (self._ended + left)
        self._progress.say(
            "tune", f"{point.label}  {WORDS[end.status]}{metric}{reason}; {left} left", trial=point.trial_id
        )

    def why_over(self, reason: str) -> None:
        """Why no trial begins any more, where that is not because all began."""
        self._progress.say("tune", reason)

    def over(self, counts: Mapping[str, int]) -> None:
        """How the trials ended."""
        self._progress.say("tune", f"{sum(counts.values())} trials: {counted(counts)}", counts=dict(counts))


def counted(counts: Mapping[str, int]) -> str:
    """How many trials ended how, in words."""
    return ", ".join(f"{counts[status]} {word}" for status, word in WORDS.items() if counts.get(status))


def shown(values: Mapping[str, object]) -> str:
    """A point in a line."""
    text = ", ".join(
        f"{path}={f'{value:.4g}' if isinstance(value, float) else value}" for path, value in values.items()
    )
    return text if len(text) <= SHOWN_VALUES else text[: SHOWN_VALUES - 3] + "..."


def reason_of(error: BaseException) -> str:
    """Why a trial failed, in one line: our own error's message, else the last line of the last cause."""
    known = find_known(error)
    cause = known or list(causes(error))[-1]
    lines = [line for line in (known.message if known else str(cause)).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(cause).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without Tune's own lines: a lost trial's traceback would stand between ours, which tell the reason."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    if not os.environ.get("RAYPIPE_DEBUG"):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
