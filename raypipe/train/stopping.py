"""Ray Train's workers: an error that another attempt would meet again ends the training at once."""

from __future__ import annotations

from typing import Any

from ray.train import ControllerError, UserCallback

from raypipe.train.failures import lasting


class StopAtKnownError(UserCallback):
    """A worker's own error that another attempt would meet again is not tried `max_failures` times."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train with what each failed worker raised."""
        failure = lasting(worker_exceptions)
        if failure is not None:
            raise ControllerError(failure)  # Ray Train's way out that no failure policy tries again
