"""Trackers beside a run: each in a thread of its own, so that a slow or absent one costs the run nothing."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from raypipe.errors import SpecError, masked, one_line
from raypipe.runtime.progress import Progress
from raypipe.spec.addresses import refuse_userinfo
from raypipe.spec.pipeline import Tracker as TrackerName
from raypipe.storage import Store
from raypipe.track.events import Registered, Scalars, parse

CLOSE_TIMEOUT_S = 15.0
"""Longest a run that has ended waits for a tracker to take the last figures."""

MAX_REASON_CHARS = 300

MLFLOW_URI = "MLFLOW_TRACKING_URI"

MLFLOW_ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it reports its use to its makers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # it asks an absent server for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Set before mlflow is imported, unless the user set them."""


@dataclass(frozen=True)
class About:
    """The run that is tracked.

    Attributes:
        asked: fields of the pipeline file, by dotted path.
    """

    pipeline: str
    run_id: str
    store: Store
    asked: Mapping[str, Any]


class Tracker(Protocol):
    """Where figures go. Whatever it raises ends it, and no run."""

    def take(self, message: Scalars | Registered) -> None: ...

    def close(self, *, failed: bool) -> None: ...


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse now what would fail in an hour.

    Raises:
        SpecError: a tracker's package is not installed, or it is not told where to send figures.
    """
    if "mlflow" not in names:
        return
    if find_spec("mlflow") is None:
        raise SpecError("track: mlflow is not installed here", "pip install 'raypipe[mlflow]'")
    if not os.environ.get(MLFLOW_URI):
        raise SpecError(
            f"track: mlflow has no address: {MLFLOW_URI} is not set",
            f"export {MLFLOW_URI}=http://host:5000 (or sqlite:///mlflow.db, where sqlalchemy is installed)",
        )
    refuse_userinfo(MLFLOW_URI, os.environ[MLFLOW_URI])


@contextmanager
def tracked(names: Sequence[TrackerName], about: About, progress: Progress) -> Iterator[None]:
    """Send what `progress` is told to trackers while the block runs."""
    makers: dict[TrackerName, Callable[[], Tracker]] = {
        "tensorboard": lambda: _tensorboard(about),
        "mlflow": lambda: _mlflow(about),
    }
    with ExitStack() as leave:
        for name in names:
            leave.push(_Sink(name, makers[name], progress).leave)
        yield


def _tensorboard(about: About) -> Tracker:
    from raypipe.track.tensorboard import TensorBoard

    return TensorBoard(about)


def _mlflow(about: About) -> Tracker:
    for name, value in MLFLOW_ENV.items():
        os.environ.setdefault(name, value)
    from raypipe.track.mlflow import MLflow

    return MLflow(about)


class _Sink(threading.Thread):
    """One tracker, fed from a queue; made in its own thread, which its imports need."""

    def __init__(self, name: str, make: Callable[[], Tracker], progress: Progress) -> None:
        super().__init__(name=f"raypipe-track-{name}", daemon=True)
        self._tracker, self._make, self._progress = name, make, progress
        self._queue: queue.SimpleQueue[Scalars | Registered | bool] = queue.SimpleQueue()
        progress.listeners.append(self._offer)
        self.start()

    def leave(self, kind: object, error: object, trace: object) -> None:
        """The run has ended; with the error that ended it, if one did."""
        self._queue.put(error is not None)
        self.join(CLOSE_TIMEOUT_S)
        if self.is_alive():
            self._end(f"did not take its last figures within {CLOSE_TIMEOUT_S:g} s")

    def run(self) -> None:
        try:
            tracker = self._make()
            while not isinstance(message := self._queue.get(), bool):
                tracker.take(message)
            tracker.close(failed=message)
        except Exception as error:  # of a library, or a server
            self._end(f"takes no figures of this run any more: {type(error).__name__}: {error}")

    def _offer(self, event: Mapping[str, Any]) -> None:
        message = parse(event)
        if message is not None:
            self._queue.put(message)

    def _end(self, why: str) -> None:
        if self._offer in self._progress.listeners:
            self._progress.listeners.remove(self._offer)
            self._progress.say("track", f"{self._tracker} {one_line(masked(why))[:MAX_REASON_CHARS]}")
