"""The loop's events -> lines a person reads."""

from __future__ import annotations

import time
from typing import Any

from raypipe.runtime.progress import Progress
from raypipe.spec.train import TrainSpec

SHOW_EVERY_S = 1.0
"""Shorter epochs are told to programs, not to people; the last one always."""

SAID_AS_THEY_ARE = frozenset(("note", "rows", "target", "weights", "first_weights", "parallel", "unused"))
"""Events whose text is a line."""


class ProgressLines:
    """Tells one training: epochs, steps, and what a lost worker cost.

    Attributes:
        attempts: times the workers were started, from 1.
        starting_s: what starting had taken when the first of them were ready; None before.
        num_workers: of each attempt.
        hung: what workers of the last attempt told that trained no step for long.
    """

    def __init__(self, progress: Progress, spec: TrainSpec, stage: str = "train") -> None:
        self._progress, self._spec, self._stage = progress, spec, stage
        self._total_steps = 0
        self._last_step = 0
        self._shown_at = 0.0
        self._of_log = "ln " if spec.target_transform == "log" else ""
        self.attempts = 0
        self.starting_s: float | None = None
        self.num_workers: list[int] = []
        self.hung: list[dict[str, Any]] = []

    def tell(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in SAID_AS_THEY_ARE:
            self._progress.say(self._stage, **event)
        else:
            getattr(self, f"_{kind}")(event)

    def _start(self, event: dict[str, Any]) -> None:
        self.attempts += 1
        if self.starting_s is None:
            self.starting_s = event.get("starting_s")
        self.hung.clear()
        self._total_steps = event["total_steps"]
        step = event["step"]
        self.num_workers.append(event["num_workers"])
        if self.attempts > 1:
            text = self._next_attempt(step)
        elif step:
            text = f"continues from step {step}/{self._total_steps}{self._of_elastic()}"
        else:
            most = "" if self._spec.elastic is None else f" of {self._spec.elastic.max} at most"
            text = f"{self.num_workers[-1]} worker(s) ready{most}, {self._total_steps} steps"
        for note in event.get("notes", ()):
            self._progress.say(self._stage, note)
        self._progress.say(self._stage, text, **event)

    def _next_attempt(self, step: int) -> str:
        before, now = self.num_workers[-2:]
        lost = max(0, self._last_step - step)
        if now > before and not lost:
            return f"there is room for more: {now} workers ({before} before) go on from step {step}"
        text = f"workers lost; attempt {self.attempts} starts from step {step}{self._of_elastic()}"
        return f"{text}, {lost} steps repeated"

    def _of_elastic(self) -> str:
        return "" if self._spec.elastic is None else f" with {self.num_workers[-1]} worker(s)"

    def _hung(self, event: dict[str, Any]) -> None:
        self.hung.append(event)
        text = f"worker {event['rank']} has trained no step for {event['silent_s']:.0f} s, after step {event['step']}"
        self._progress.say(self._stage, f"{text}; it is at {event['stack']}", **event)

    def _alive(self, event: dict[str, Any]) -> None:
        """For who watches it."""

    def _step(self, event: dict[str, Any]) -> None:
        self._update(event, [f"{self._of_log}loss {event['loss']:.4g}"])

    def _epoch(self, event: dict[str, Any]) -> None:
        metrics = event["metrics"]
        show = event["step"] == self._total_steps or time.monotonic() - self._shown_at >= SHOW_EVERY_S
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
            beside=f"{self.num_workers[-1] if self.num_workers else self._spec.max_workers} worker(s)",
            show=show,
            **event,
        )


_SHOWN = ("val_loss", "val_accuracy", "val_f1_micro", "val_mae", "val_r2", "val_exact_match", "val_perplexity")


def _rate(rows_per_s: float) -> str:
    return f"{rows_per_s / 1000:.1f}k rows/s" if rows_per_s >= 1000 else f"{rows_per_s:.0f} rows/s"


def _clock(left_s: float) -> str:
    minutes, rest = divmod(round(left_s), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
