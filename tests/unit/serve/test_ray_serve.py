"""Starting Serve and an application beside it: which of two errors counts. Patched, as no real start is timed so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from raypipe.errors import ServeError
from raypipe.serve import ray_serve, running
from raypipe.serve.ray_serve import listener_of, start
from raypipe.spec.serve import ServeSpec
from tests.conftest import pick_ports


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ServeSpec:
    """Of a Serve that is not there yet, whose controller is seen at once."""
    monkeypatch.setattr(running, "listener", lambda: None)
    monkeypatch.setattr(running, "has_controller", lambda: True)
    monkeypatch.setattr(ray_serve, "_check_host", lambda spec: None)
    return ServeSpec(port=pick_ports(1)[0])


def fails(error: Exception, also: Callable[[], object] = lambda: None) -> Callable[..., None]:
    def fail(*args: object) -> None:
        also()
        raise error

    return fail


def test_start_that_fails_is_told_and_not_what_its_end_did_to_the_application(
    spec: ServeSpec, monkeypatch: pytest.MonkeyPatch
):
    deploying = threading.Event()
    reason = ServeError("Ray Serve did not start on port 1: HAProxy crashed")
    monkeypatch.setattr(ray_serve, "_start_serve", fails(reason, deploying.wait))
    with pytest.raises(ServeError, match="HAProxy crashed"):
        start(spec, beside=fails(RuntimeError("the controller is gone"), deploying.set))


def test_application_that_is_refused_beside_a_start_that_goes_well_is_told(
    spec: ServeSpec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_serve, "_start_serve", lambda spec: listener_of(spec))
    with pytest.raises(ServeError, match="refused"):
        start(spec, beside=fails(ServeError("refused")))
