"""What is told when Serve does not start."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from raypipe.errors import ServeError
from raypipe.serve import ray_serve, running
from raypipe.serve.running import logged_reason
from raypipe.spec.serve import ServeSpec


def test_reason_is_the_last_failure_of_the_newest_log(tmp_path: Path):
    old, new = tmp_path / "controller_1.log", tmp_path / "proxy_1.log"
    old.write_text("ERROR 2026 controller -- ValueError: of yesterday\n")
    os.utime(old, (0, 0))
    new.write_text(
        "INFO 2026 proxy -- starting\n"
        "RuntimeError: first\n"
        "    raise RuntimeError('in between')\n"
        "RuntimeError: HAProxy crashed during startup: [ALERT] cannot bind socket\n"
        "INFO 2026 proxy -- leaving\n"
    )
    assert logged_reason(tmp_path).endswith("HAProxy crashed during startup: [ALERT] cannot bind socket")
    new.write_text("INFO 2026 proxy -- starting\n")
    assert logged_reason(tmp_path).endswith("ValueError: of yesterday")


def test_reason_of_haproxy_is_what_it_says_alarms_it_not_what_it_notices(tmp_path: Path):
    (tmp_path / "proxy_1.log").write_text(
        "RuntimeError: HAProxy crashed during startup: [NOTICE]   (7) : haproxy version is 2.8.25\n"
        "[WARNING]  (7) : config : log format ignored\n"
        "[ALERT]    (7) : Starting frontend prometheus: cannot bind socket (Address already in use)\n"
        "[ALERT]    (7) : [haproxy.main()] Some protocols failed to start their listeners! Exiting.\n"
    )
    reason = "HAProxy crashed during startup: Starting frontend prometheus: cannot bind socket (Address already in use)"
    assert logged_reason(tmp_path) == f"RuntimeError: {reason}"


def test_no_log_is_no_reason(tmp_path: Path):
    assert logged_reason(tmp_path / "nowhere") == ""


def test_reason_of_a_failed_start_survives_the_undoing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def start(**_: Any) -> None:
        raise RuntimeError("ray::ServeController.__init__()\nTraceback ...\nOSError: port 9 is in use")

    def shut_down(port: int | None = None) -> None:
        raise ActorDiedError  # the controller it asks is dead

    monkeypatch.setattr("ray.serve.start", start)  # a Serve that fails needs a Ray of its own
    monkeypatch.setattr(ray_serve, "shut_down", shut_down)
    monkeypatch.setattr(ray_serve, "session_logs", lambda: tmp_path)
    monkeypatch.setattr(ray_serve, "folder_of_ray_here", lambda: tmp_path)
    monkeypatch.setattr(ray_serve, "is_on_this_machine_alone", lambda: True)
    monkeypatch.setattr(running, "note_listener", lambda _: None)
    with pytest.raises(ServeError, match="OSError: port 9 is in use"):
        ray_serve._start_serve(ServeSpec(ingress="python"))


def test_shutting_down_a_serve_whose_controller_died_is_no_error(monkeypatch: pytest.MonkeyPatch):
    def remote(**_: Any) -> None:
        return None

    def get(*_: Any, **__: Any) -> None:
        raise ActorDiedError

    controllers = iter([SimpleNamespace(graceful_shutdown=SimpleNamespace(remote=remote))])

    def get_actor(*_: Any, **__: Any) -> Any:
        try:
            return next(controllers)
        except StopIteration:
            raise ValueError("no such actor") from None

    monkeypatch.setattr("ray.get_actor", get_actor)
    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.serve.shutdown", lambda: None)
    running.shut_down()
