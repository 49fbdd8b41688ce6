"""Starting something that hangs, fails or ends too late, as Ray does on a busy machine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raypipe.errors import ClusterError
from raypipe.runtime import start
from raypipe.runtime.start import RayThread, reason_of, start_patiently

HANGS = """
import sys, threading
from raypipe.cli.output import exit_codes
from raypipe.runtime.start import RayThread
from tests.unit.runtime.test_start import deaf_to_python
with exit_codes():
    try:
        RayThread(deaf_to_python, lambda: None).wait_started()
    finally:
        print("unwound", flush=True)
"""


def deaf_to_python() -> None:
    """As Ray's C++ code: the thread is away for minutes and no Python handler could run in it."""
    print("started", flush=True)
    ctypes.CDLL(None).sleep(600)


def test_start_that_fails_once_is_told_and_tried_again(tmp_path: Path):
    attempts: list[int] = []
    said: list[str] = []
    stopped: list[int] = []

    def start_ray() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise Exception("The current node timed out during startup.")  # Ray raises just that

    running = start_patiently(start_ray, lambda: stopped.append(1), tmp_path, said.append)
    assert len(attempts) == 2 and "did not come up in 30 s" in said[0] and "trying once more" in said[0]
    assert not stopped
    running.close()
    assert stopped == [1] and not running.is_alive()


def test_start_that_fails_twice_is_a_cluster_error_with_reason_load_and_logs(tmp_path: Path):
    logs = tmp_path / "session_2026-01-01" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text(
        "[2026-01-01 00:00:00,000 I 1 1] (raylet) main.cc:1: starting\n"
        "[2026-01-01 00:00:30,000 C 1 1] (raylet) port.cc:9: Check failed: Timed out waiting for file /tmp/port\n"
    )

    def start_ray() -> None:
        raise Exception("The current node timed out during startup.")

    with pytest.raises(ClusterError, match="tried 2 times: its agents did not come up in the 15 s") as raised:
        start_patiently(start_ray, lambda: None, tmp_path, lambda _: None)
    assert raised.value.exit_code == 4
    assert f"on {os.cpu_count()} cores" in raised.value.message and str(tmp_path) in raised.value.hint


def test_quoted_log_is_told_by_its_last_line(tmp_path: Path):
    said = "\nThe last 20 lines of /x/dashboard.log (it contains the error): \nTraceback\nOSError: no space\n"
    assert reason_of(Exception(said), tmp_path) == "OSError: no space"


def test_sigterm_is_obeyed_while_ray_starts():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "unwound\n"
        assert process.wait(30) == 143


def test_start_that_ends_after_nobody_waits_any_more_is_undone():
    may_end, stopped = threading.Event(), threading.Event()
    thread = RayThread(lambda: _wait(may_end), stopped.set)
    with pytest.raises(TimeoutError, match="no answer"):
        thread.wait_started(timeout_s=0.01)
    may_end.set()
    assert stopped.wait(30)
    thread.join(30)


def _wait(event: threading.Event) -> None:
    event.wait(30)


def test_ray_is_given_longer_wherever_it_lets_us():
    from ray._private import ray_constants

    assert "RAY_DASHBOARD_STARTUP_TIMEOUT_S" in start.PATIENCE_ENV
    assert hasattr(ray_constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S")
    raylet = Path(ray_constants.__file__).parents[1] / "core/src/ray/raylet/raylet"
    program = raylet.read_bytes()
    settings = [name for name in start.PATIENCE_ENV if name.encode() in program]
    assert len(settings) >= 6  # names this Ray's C++ code knows
