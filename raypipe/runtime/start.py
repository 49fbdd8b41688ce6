"""Starting Ray without being at its mercy: signals are obeyed meanwhile, and a start that fails is tried again."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from raypipe.errors import ClusterError, masked

ATTEMPTS = 2
"""The raylet gives its agents 15 s and cannot be told to wait longer; the second time they are in the file cache."""

PATIENCE_ENV = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_py_gcs_connect_timeout_s": "120",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_raylet_client_num_connect_attempts": "120",
    "RAY_worker_register_timeout_seconds": "180",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_health_check_timeout_ms": "60000",
}
"""How long Ray's processes wait for each other where Ray lets us say so: a busy laptop needs longer than its defaults.

A driver that cannot reach its raylet in time is ended by Ray's C++ code without a word, so no exception could tell.
"""

MAX_REASON_CHARS = 300

TELLING = re.compile(r"timed? ?out|fail|error|exception|cannot|no space|refused|killed", re.IGNORECASE)
"""What makes a line of a log the one to show."""

LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out", "dashboard.err", "dashboard.log")


class RayThread(threading.Thread):
    """Starts Ray, stays as long as Ray runs, and lets the caller wait in Python.

    Ray starts in C++ code that holds its thread for up to a minute, in which no signal could be handled. Its processes
    are set to die with the thread that made them: so this one stays, and what a failed start left dies with it.

    Args:
        start: starts or joins Ray.
        stop: undoes it; called here if `start` ends after nobody waits for it any more.
    """

    def __init__(self, start: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(name="raypipe-ray", daemon=True)
        self._start_ray, self._stop_ray = start, stop
        self._ready, self._leave = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._given_up = False

    def run(self) -> None:
        try:
            self._start_ray()
        except BaseException as error:
            self._error = error
            self._ready.set()
            return
        self._ready.set()
        self._leave.wait()
        if self._given_up:
            self._stop_ray()

    def wait_started(self, timeout_s: float | None = None) -> None:
        """Return when Ray runs.

        Raises:
            TimeoutError: it does not after `timeout_s`.
            BaseException: what `start` raised, or what the handler of a signal did.
        """
        self.start()
        try:
            if not self._ready.wait(timeout_s):
                raise TimeoutError(f"no answer in {timeout_s:g} s")
        except BaseException:
            self._given_up = True
            self._leave.set()
            raise
        if self._error is not None:
            self.join()
            raise self._error

    def close(self) -> None:
        """Stop Ray, in the calling thread."""
        try:
            self._stop_ray()
        finally:
            self._leave.set()
            self.join()


def start_patiently(
    start: Callable[[], None], stop: Callable[[], None], logs: Path, say: Callable[[str], None]
) -> RayThread:
    """Start Ray; a start that fails is tried once more.

    Args:
        logs: folder below which Ray's sessions are.
        say: told in one line that a start failed and is repeated.
    Raises:
        ClusterError: with Ray's reason, and how busy the machine is.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        began = time.monotonic()
        thread = RayThread(start, stop)
        try:
            thread.wait_started()
            return thread
        except Exception as error:  # ray.init raises a bare Exception for two of the ways a start can fail
            reason = f"{reason_of(error, logs)} (after {time.monotonic() - began:.0f} s; {_load()})"
        if attempts_left:
            say(f"Ray did not start: {reason}; trying once more")
    raise ClusterError(
        f"Ray did not start on this machine, tried {ATTEMPTS} times: {reason}",
        f"end other programs and run it again; Ray's logs are under {logs}",
    )


def reason_of(error: BaseException, logs: Path) -> str:
    """Why Ray did not start, in one line: its own message, and the line of its logs that says more."""
    lines = [line.strip() for line in masked(str(error)).strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("The last "):  # a quoted log: its last line is the error
        return lines[-1][:MAX_REASON_CHARS]
    said = lines[0] if lines else type(error).__name__
    logged = _last_telling_line(logs)
    if "Timed out waiting for file" in logged:
        return "its agents did not come up in the 15 s that it gives them"
    if "timed out during startup" in said:
        said = "its node did not come up in 30 s"
    return said[:MAX_REASON_CHARS] + (f"; its log says: {logged}" if logged else "")


def _last_telling_line(logs: Path) -> str:
    """The last line about a failure in the newest session's logs; empty where there is none."""
    sessions = sorted(logs.glob("session_2*"))
    for name in LOGS if sessions else ():
        try:
            lines = (sessions[-1] / "logs" / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in reversed(lines):
            if TELLING.search(line):
                return masked(_without_prefix(line))[:MAX_REASON_CHARS]
    return ""


def _without_prefix(line: str) -> str:
    """Ray's line without `[2026-01-01 00:00:00,000 E 12 12] (raylet) file.cc:12: `."""
    return re.sub(r"^\[[^\]]*\]\s*(\(\w+\)\s*)?([\w./]+:\d+:\s*)?", "", line).strip()


def _load() -> str:
    busy = os.getloadavg()[0]
    return f"{busy:.1f} busy processes on {os.cpu_count() or 1} cores"
