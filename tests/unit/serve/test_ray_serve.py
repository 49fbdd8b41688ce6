"""Starting Serve and an application beside it: which of two errors counts. Patched, as no real start is timed so."""

from __future__ import annotations

import re
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
    monkeypatch.setattr(ray_serve, "alive_nodes", list)
    monkeypatch.setattr(ray_serve, "is_on_this_machine_alone", lambda: True)
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


TWO_NODES = [{"Alive": True, "Resources": {}, "Labels": {}}] * 2


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": "127.0.0.1"}, "serve.host: 127.0.0.1 reaches one machine only"),
        ({"host": "10.0.0.7"}, "serve.host: 10.0.0.7 reaches one machine only"),
        (
            {"host": "0.0.0.0", "auth": {"keys_env": "K"}, "tls": {"cert_file": "/c", "key_file": "/k"}},
            "would send keys in the clear from the node that a client asks to the one that answers, with serve.tls too",
        ),
    ],
)
def test_what_cannot_hold_on_several_nodes_is_refused_before_anything_starts(
    fields: dict[str, object], told: str, spec: ServeSpec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_serve, "alive_nodes", lambda: TWO_NODES)
    monkeypatch.setattr(ray_serve, "_start_serve", fails(AssertionError("it was started")))
    with pytest.raises(ServeError, match=re.escape(told)):
        start(ServeSpec.model_validate({"ingress": "haproxy", "port": spec.port, **fields}))
