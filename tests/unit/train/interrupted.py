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
    found = _attempt(order, world, [])
    assert found is not None, "nothing interrupts it"
    return found


def answer_until(stop_at_step: int | None, order: TrainOrder, world: World) -> dict[str, Any]:
    """`answer`, with the step at which it began; lost at a step, where one is given."""
    started_at: list[int] = []
    found = _attempt(order, world, started_at, stop_at_step)
    return {**(found or {}), "started_at": started_at}


def answer_after_interruption(order: TrainOrder, world: World) -> dict[str, Any]:
    """Lose the ranks at STOP_AT_STEP, then run the same order as Ray Train would start it again."""
    started_at: list[int] = []
    if (ended := _attempt(order, world, started_at, STOP_AT_STEP)) is not None:
        raise AssertionError(f"the run ended before step {STOP_AT_STEP}: {ended}")
    return {**(_attempt(order, world, started_at) or {}), "started_at": started_at}


def _attempt(
    order: TrainOrder, world: World, started_at: list[int], stop_at_step: int | None = None
) -> dict[str, Any] | None:
    """The order's result or error, as JSON; None: it was lost.

    Args:
        started_at: the step at which it begins is added.
        stop_at_step: at which it is lost; None: it is not.
    """

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            started_at.append(event["step"])
        elif stop_at_step is not None and event.get("step") == stop_at_step:
            raise Interrupted

    try:
        return loop.run(order, world, stop).model_dump(mode="json")
    except Interrupted:
        return None
    except RaypipeError as error:
        return {"error": type(error).__name__, "message": error.message}
