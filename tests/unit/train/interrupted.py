"""A training that loses its workers and is started again, within one process."""

from __future__ import annotations

from typing import Any

from raypipe.errors import RaypipeError
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

STOP_AT_STEP = 9
"""After the checkpoints at steps 2, 4, 6 (an epoch's end) and 8, within the second epoch."""


class Interrupted(Exception):
    """Stands for a lost worker group: every rank stops, with work done since the last checkpoint."""


def answer(order: TrainOrder, world: World) -> dict[str, Any]:
    """The order's result or error, as JSON."""
    try:
        return loop.run(order, world, lambda event: None).model_dump(mode="json")
    except RaypipeError as error:
        return {"error": type(error).__name__, "message": error.message}


def answer_after_interruption(order: TrainOrder, world: World) -> dict[str, Any]:
    """Lose the ranks at STOP_AT_STEP, then run the same order as Ray Train would start it again."""
    started_at: list[int] = []

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            started_at.append(event["step"])
        elif len(started_at) == 1 and event.get("step") == STOP_AT_STEP:
            raise Interrupted

    try:
        loop.run(order, world, stop)
    except Interrupted:
        try:
            return {**loop.run(order, world, stop).model_dump(mode="json"), "started_at": started_at}
        except RaypipeError as error:
            return {"error": type(error).__name__, "message": error.message, "started_at": started_at}
    raise AssertionError(f"the run ended before step {STOP_AT_STEP}")
