"""What a tracker is told, out of the stream of events that a run's Progress keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STEP_FIGURES = ("loss", "rows_per_s")
"""Figures of a training step that stand in its event by themselves."""


@dataclass(frozen=True)
class Scalars:
    """Figures of one moment.

    Attributes:
        time: seconds since the epoch.
        stage: train, tune or evaluate.
        step: of the training, or an epoch of a trial; None for what is measured once.
        values: name -> finite number.
        trial: whose they are, in a search.
    """

    time: float
    stage: str
    step: int | None
    values: Mapping[str, float]
    trial: str | None = None


@dataclass(frozen=True)
class Registered:
    """The run's model has its version."""

    model: str
    version: int


def parse(event: Mapping[str, Any]) -> Scalars | Registered | None:
    """What an event of Progress says to a tracker; None where it says nothing to one."""
    stage = event.get("stage")
    if stage == "register" and "version" in event:
        return Registered(str(event["model"]), int(event["version"]))
    values = {**{name: event[name] for name in STEP_FIGURES if name in event}, **event.get("metrics", {})}
    kept = {name: float(value) for name, value in values.items() if _is_finite(value)}
    if stage not in ("train", "tune", "evaluate") or not kept:
        return None
    step = event.get("epoch") if stage == "tune" else event.get("step")
    return Scalars(float(event["time"]), stage, None if step is None else int(step), kept, event.get("trial"))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
