"""What every search does, whoever carries out its trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from raypipe.spec.pipeline import PipelineSpec
from raypipe.tune.points import End, Point
from raypipe.tune.trial_log import TrialLog


@dataclass(frozen=True)
class Setup:
    """What a search is made from.

    Attributes:
        mode: whether larger or smaller is better.
        log: the trials of earlier attempts at it; a search that goes on begins with what these learned.
    """

    spec: PipelineSpec
    mode: Literal["min", "max"]
    log: TrialLog


class Search(Protocol):
    """Which points are tried, and which trials stop early.

    Attributes:
        num_trials: trials there will be, at the most.
        is_over: no trial begins any more.
        why_over: a reason to tell, where it is not simply that all trials began.
    """

    num_trials: int
    is_over: bool
    why_over: str

    def next(self) -> Point | None:
        """The next trial; None where it depends on trials that still run, or where the search is over.

        Raises:
            SpecError: no point of the space is one that the file's rules allow.
        """
        ...

    def report(self, point: Point, epoch: int, value: float) -> bool:
        """An epoch of a trial; True where the trial is to stop."""
        ...

    def end(self, point: Point, end: End) -> list[str]:
        """A trial ended. Returns the trials whose checkpoints nothing continues from any more."""
        ...
