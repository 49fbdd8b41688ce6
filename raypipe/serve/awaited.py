"""Replicas that start before their model is there: processes and imports beside the training.

begin -> the replicas wait within their constructor, so the application stays DEPLOYING and answers nobody -> tell:
they load what they were told, as do replicas that come later -> RUNNING
"""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from pathlib import Path

from raypipe.errors import ServeError
from raypipe.records import ModelVersion
from raypipe.serve import running
from raypipe.serve.app import ModelApp
from raypipe.serve.deployment import run_application
from raypipe.serve.keys import own_digest
from raypipe.serve.ray_serve import start
from raypipe.spec.serve import ServeSpec

POLL_S = 0.05

NOTHING_COMES = "null"
"""In place of a ModelVersion as JSON; what was told nothing yet is an empty text."""


class AwaitedApp(ModelApp):
    """ModelApp for the model version that is told under a name, once there is one.

    Raises:
        ServeError: it was told that none will come.
    """

    def __init__(self, store_uri: str, name: str, code_dir: str | None, spec: str, own_digest: str = "") -> None:
        import_module("raypipe.model.predictor")  # the longest part of a start, beside the wait
        super().__init__(store_uri, _wait_for_model(name), code_dir, spec, own_digest)


def begin(spec: ServeSpec, name: str, store_uri: str, code_dir: Path | None) -> None:
    """Start Serve, and deploy the application that will serve a model of this name.

    Raises:
        PortInUseError, ServeError: as `ray_serve.start`.
    """
    running.note_awaited(name, "")
    folder = None if code_dir is None else str(code_dir)
    args = (store_uri, name, folder, spec.model_dump_json(), own_digest(spec.auth))
    start(spec, beside=partial(run_application, spec, name, AwaitedApp, args))


def is_awaited(name: str) -> bool:
    """Whether an application that waits for a model of this name was begun and has been told nothing."""
    return running.noted_awaited(name) == ""


def tell(name: str, model: ModelVersion) -> bool:
    """Tell the replicas that wait under the model's name what to load.

    Returns:
        Whether they still wait; if not, for they were lost, nobody waits any more.
    """
    waits = running.state_of(name) == "DEPLOYING"
    running.note_awaited(name, model.model_dump_json() if waits else NOTHING_COMES)
    return waits


def give_up(name: str) -> None:
    """Have the replicas that still wait end: no model will come."""
    if is_awaited(name):
        running.note_awaited(name, NOTHING_COMES)


def _wait_for_model(name: str) -> str:
    """The ModelVersion as JSON, when it is told."""
    while not (model := running.noted_awaited(name)):
        time.sleep(POLL_S)  # Ray's key-value store tells nobody when a value changes
    if model == NOTHING_COMES:
        raise ServeError(f"the run that would have made a version of {name} ended without one")
    return model
