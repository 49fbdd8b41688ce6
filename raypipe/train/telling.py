"""The loop's events -> lines a person reads."""

from __future__ import annotations

import time
from typing import Any

from raypipe.runtime.progress import Progress
from raypipe.spec.train import TrainSpec

SHOW_EVERY_S = 1.0
"""Shorter epochs are told to programs, not to people; the last one always."""


class Teller:
    """Tells one training: epochs, steps, and what a lost worker cost.

    Attributes:
        attempts: times the workers were started, from 1.
    """

    def __init__(self, progress: Progress, spec: TrainSpec, stage: str = "train") -> None:
        self._progress, self._spec, self._stage = progress, spec, stage
        self._total_steps = 0
        self._last_step = 0
        self._shown_at = 0.0
        self._of_log = "ln " if spec.target_transform == "log" else ""
        self.attempts = 0

    def tell(self, event: dict[str, Any]) -> None:
        getattr(self, f"_{event['event']}")(event)

    def _start(self, event: dict[str, Any]) -> None:
        self.attempts += 1
        self._total_steps = event["total_steps"]
        step = event["step"]
        if self.attempts > 1:
            lost = max(0, self._last_step - step)
            text = f"workers lost; attempt {self.attempts} starts from step {step}, {lost} steps repeated"
        elif step:
            text = f"continues from step {step}/{self._total_steps}"
        else:
            text = f"{self._spec.num_workers} worker(s) ready, {self._total_steps} steps"
        for note in event.get("notes", ()):
            self._progress.say(self._stage, note)
        self._progress.say(self._stage, text, **event)

    def _rows(self, event: dict[str, Any]) -> None:
        self._progress.say(self._stage, **event)

    def _target(self, event: dict[str, Any]) -> None:
        self._progress.say(self._stage, **event)

    def _unused(self, event: dict[str, Any]) -> None:
        self._progress.say(self._stage, **event)

    def _step(self, event: dict[str, Any]) -> None:
        self._update(event, [f"{self._of_log}loss {event['loss']:.4g}"])

    def _epoch(self, event: dict[str, Any]) -> None:
        metrics = event["metrics"]
        show = event["epoch"] == self._spec.epochs or time.monotonic() - self._shown_at >= SHOW_EVERY_S
        if show:
            self._shown_at = time.monotonic()
        values = [f"{self._of_log}loss {metrics['train_loss']:.4g}"]
        for name, value in metrics.items():
            if name in _SHOWN:
                values.append(f"{self._of_log if name == 'val_loss' else ''}{name} {value:.4g}")
        self._update(event, values, show=show)

    def _update(self, event: dict[str, Any], values: list[str], *, show: bool = True) -> None:
        self._last_step = event["step"]
        self._progress.update(
            self._stage,
            f"epoch {event['epoch']}/{self._spec.epochs}  step {event['step']}/{self._total_steps}  "
            f"{'  '.join(values)}  {_rate(event['rows_per_s'])}  left {_clock(event['left_s'])}",
            share=event["step"] / max(1, self._total_steps),
            beside=f"{self._spec.num_workers} worker(s)",
            show=show,
            **event,
        )


_SHOWN = ("val_loss", "val_accuracy", "val_mae", "val_r2")


def _rate(rows_per_s: float) -> str:
    return f"{rows_per_s / 1000:.1f}k rows/s" if rows_per_s >= 1000 else f"{rows_per_s:.0f} rows/s"


def _clock(left_s: float) -> str:
    minutes, rest = divmod(round(left_s), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
