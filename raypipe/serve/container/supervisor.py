"""The processes of a container: model processes first, HAProxy once all of them answer; they end together.

SIGTERM -> HAProxy takes no new connection and finishes what it has -> model processes end -> exit status 0. Where one
process ends by itself, all do, with an error: a container that serves no more is the platform's to start again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from raypipe.errors import ServeError
from raypipe.records import ModelVersion
from raypipe.serve.container.front import command, write_config
from raypipe.serve.container.settings import Settings
from raypipe.serve.container.worker import Work

STOP_TIMEOUT_S = 20.0
"""For requests that are under way at SIGTERM. The platforms kill a container 30 s after it."""

LEAVE_TIMEOUT_S = 3.0
"""For a process that has nothing more to do."""

POLL_S = 0.05

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
"""Waited for, never handled: so nothing is interrupted halfway."""

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


class Stopped(Exception):
    """SIGTERM or SIGINT came."""


class Container:
    """Runs the processes of one container from start to end.

    Args:
        model: what each model process loads.
        store_uri: from where.
    """

    def __init__(self, settings: Settings, model: ModelVersion, store_uri: str) -> None:
        self._settings = settings
        self._model = model
        self._store_uri = store_uri
        self._workers: list[subprocess.Popen[bytes]] = []
        self._front: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; returns once everything has ended.

        Raises:
            ServeError: a process ended by itself; the message says which.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
            try:
                self._start(Path(folder))
                self._say("ready")
                while True:
                    self._wait(None)
            except Stopped:
                self._say("stopping")
            finally:
                self._end()

    def _start(self, folder: Path) -> None:
        settings = self._settings
        sockets = [folder / f"{i}.sock" for i in range(settings.num_workers)]
        self._workers = [self._start_worker(path) for path in sockets]
        deadline = time.monotonic() + settings.spec.start_timeout_s
        self._wait_until_all_answer([(socket.AF_UNIX, str(path)) for path in sockets], deadline)
        file = folder / "haproxy.cfg"
        write_config(settings.spec, sockets, STOP_TIMEOUT_S, file)
        self._front = _start(command(file))
        family, _, _, _, address = socket.getaddrinfo(reached_at(settings.spec.host), settings.spec.port)[0]
        self._wait_until_all_answer([(family, address)], deadline)

    def _start_worker(self, path: Path) -> subprocess.Popen[bytes]:
        settings = self._settings
        work = Work(
            socket=path,
            spec=settings.spec.model_dump_json(),
            model=self._model.model_dump_json(),
            store_uri=self._store_uri,
            code_dir=settings.code_dir,
            paths=settings.paths,
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        worker = _start([sys.executable, "-m", "raypipe.serve.container.worker"])
        assert worker.stdin is not None
        with suppress(BrokenPipeError), worker.stdin as pipe:  # it ended already, which is seen in a moment
            pipe.write(work.model_dump_json().encode())
        return worker

    def _wait_until_all_answer(self, addresses: Sequence[tuple[int, object]], deadline: float) -> None:
        waiting = list(addresses)
        while waiting := [each for each in waiting if not _answers(*each)]:
            if time.monotonic() > deadline:
                raise ServeError(
                    f"{len(waiting)} of {len(addresses)} processes do not answer after "
                    f"{self._settings.spec.start_timeout_s:g} s",
                    'give it longer: RAYPIPE_SERVE={"start_timeout_s": 600}',
                )
            self._wait(POLL_S)

    def _wait(self, timeout_s: float | None) -> None:
        """Until a signal comes, or the time is over.

        Raises:
            Stopped: it is time to end.
            ServeError: a process ended by itself.
        """
        came = signal.sigwaitinfo(SIGNALS) if timeout_s is None else signal.sigtimedwait(SIGNALS, timeout_s)
        if came is not None and came.si_signo != signal.SIGCHLD:
            raise Stopped
        for what, process in self._processes():
            if process.poll() is not None:
                raise ServeError(f"{what} ended by itself, status {process.returncode}", "its last words are above")

    def _processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        front = [] if self._front is None else [("HAProxy", self._front)]
        return [*front, *((f"model process {i}", worker) for i, worker in enumerate(self._workers))]

    def _end(self) -> None:
        """HAProxy first: it ends when its last request has its answer."""
        deadline = time.monotonic() + STOP_TIMEOUT_S + LEAVE_TIMEOUT_S
        if self._front is not None:
            _tell([self._front], signal.SIGUSR1)
            _leave([self._front], deadline)
        _tell(self._workers, signal.SIGTERM)
        _leave(self._workers, max(deadline, time.monotonic() + LEAVE_TIMEOUT_S))

    def _say(self, what: str) -> None:
        spec, model = self._settings.spec, self._model
        print(f"{what}: {model.model}@{model.version} on {spec.host} port {spec.port}", file=sys.stderr, flush=True)


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, preexec_fn=_in_the_child)


def _in_the_child() -> None:
    """Take signals again, and do not outlive the supervisor, even if it is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def reached_at(host: str) -> str:
    """Where a listener on `host` is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _answers(family: int, address: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)  # pyright: ignore[reportArgumentType]  (a name or a tuple, by the family)
        except OSError:
            return False
        return True


def _tell(processes: Sequence[subprocess.Popen[bytes]], signum: int) -> None:
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, signum)


def _leave(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
