"""Which errors of workers end a training at once, and which of several is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.train import ControllerError, UserCallback

from raypipe.errors import RaypipeError, find_known
from raypipe.train.together import is_from_peers


class StopAtKnownError(UserCallback):
    """A worker's own error that another attempt would meet again is not tried `max_failures` times."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train with what each failed worker raised."""
        failure = lasting(worker_exceptions)
        if failure is not None:
            raise ControllerError(failure)  # Ray Train's way out that no failure policy tries again


def lasting(worker_exceptions: Mapping[int, Exception]) -> RaypipeError | None:
    """Of the first rank that raised an error of ours that does not pass by itself; None when none did."""
    known = (find_known(worker_exceptions[rank]) for rank in sorted(worker_exceptions))
    return next((error for error in known if error is not None and not error.transient), None)


def most_telling(worker_exceptions: Mapping[int, Exception]) -> int:
    """The first rank whose error is its own; the first of all where each only says that another one is gone."""
    own = [rank for rank, error in worker_exceptions.items() if not is_from_peers(error)]
    return min(own or worker_exceptions)
