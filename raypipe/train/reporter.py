"""What a worker says of its training, as events; rank 0's are told to people (`progress_lines`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from raypipe.train.checkpoints import TrainState

REPORT_EVERY_S = 2.0

Report = Callable[[dict[str, Any]], None]
"""Told what happens, by every rank: {"event": "rows" | "first_weights" | "target" | "weights" | "unused" | "parallel" |
"start" | "step" | "epoch" | "note" | "alive", ...}."""


class EventReporter:
    """Reports one training.

    Args:
        loss_factor: from the loss the network learns by to the one that is told.
    Attributes:
        total_steps: optimizer steps of the whole training; set once they are known.
    """

    def __init__(self, report: Report, global_batch_size: int, loss_factor: float) -> None:
        self._report, self.total_steps = report, 0
        self._global_batch_size, self._loss_factor = global_batch_size, loss_factor
        self._since = self._said = self._alive_at = time.perf_counter()
        self._first_step = 0

    def start(
        self, step: int, events: list[dict[str, Any]], notes: list[str], starting_s: float, num_workers: int
    ) -> None:
        """What is trained, and from which step.

        Args:
            events: what is told of rows, network and target.
            notes: what was passed over, in words.
            starting_s: what starting has taken so far.
            num_workers: that train together.
        """
        for event in events:
            self._report(event)
        start = {"event": "start", "step": step, "total_steps": self.total_steps, "notes": notes}
        self._report({**start, "starting_s": round(starting_s, 6), "num_workers": num_workers})

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._report({"event": "note", "text": text})

    def alive(self) -> None:
        """The network runs; told where nothing else was for a while, e.g. in a long validation."""
        now = time.perf_counter()
        if now - max(self._alive_at, self._said) > REPORT_EVERY_S:
            self._alive_at = now
            self._report({"event": "alive"})

    def begin(self, step: int) -> None:
        """The steps of an epoch begin, after `step` of all."""
        self._since = self._said = time.perf_counter()
        self._first_step = step

    @property
    def is_time(self) -> bool:
        """Whether nothing was said for a while."""
        return time.perf_counter() - self._said > REPORT_EVERY_S

    def step(self, state: TrainState, loss: float) -> None:
        """A step is done."""
        self._said = time.perf_counter()
        step_s = self.step_s(state.step)
        self._report(
            {
                "event": "step",
                "epoch": state.epoch,
                "step": state.step,
                "loss": loss * self._loss_factor,
                "rows_per_s": self._global_batch_size / step_s,
                "left_s": step_s * (self.total_steps - state.step),
            }
        )

    def step_s(self, step: int) -> float:
        """Mean seconds of the steps since `begin`; step: of all, until now."""
        return (time.perf_counter() - self._since) / max(1, step - self._first_step)

    def epoch(self, state: TrainState, step_s: float) -> None:
        """The last epoch of the history is done."""
        left_s = step_s * (self.total_steps - state.step)
        self._report({"event": "epoch", **state.history[-1], "left_s": left_s})
