"""Faults to put in: storage that loses answers or gives none, workers that are killed, nodes that go at once."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from raypipe.errors import StoreError
from raypipe.testing.fakes import MemoryStore


class LosingStore(MemoryStore):
    """A store in memory whose next conditional writes end without an answer.

    Args:
        landed: one entry a write to come: whether it took place although the caller is told it may not have.
    """

    def __init__(self, *landed: bool) -> None:
        super().__init__()
        self.landed = list(landed)

    def write_if_absent(self, key: str, data: bytes) -> None:
        """As the contract says, until the answer is lost."""
        if not self.landed or self.landed[0]:
            super().write_if_absent(key, data)
        self._lose(key)

    def write_if_unchanged(self, key: str, data: bytes, etag: str) -> None:
        """As the contract says, until the answer is lost."""
        if not self.landed or self.landed[0]:
            super().write_if_unchanged(key, data, etag)
        self._lose(key)

    def _lose(self, key: str) -> None:
        if self.landed:
            self.landed.pop(0)
            raise StoreError(f"{self.uri}/{key}: storage did not answer")


@contextmanager
def silent_port() -> Iterator[int]:
    """A loopback port that takes connections and never answers, while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def kill_tree(process: subprocess.Popen[Any], timeout_s: float = 10.0) -> None:
    """Kill a process and everything it started, each by its own pid: a node that goes without a word.

    Raises:
        subprocess.TimeoutExpired: it still runs after `timeout_s`.
    """
    started = psutil.Process(process.pid).children(recursive=True)
    for each in (process, *started):
        with suppress(psutil.NoSuchProcess):  # psutil refuses when the pid has been reused
            each.kill()
    process.wait(timeout_s)
    psutil.wait_procs(started, timeout=timeout_s)


def is_gone(pid: int) -> bool:
    """Whether no such process runs."""
    return not Path(f"/proc/{pid}").exists()


FAULTY_NETWORK = """
import os
import signal
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


class Faulty(nn.Module):
    \"\"\"Each line of plan.txt, `RANK CALL`, kills that rank at that training call of an attempt of its own.

    It waits until the checkpoint under way is written, as in a training whose steps take longer than that. More words
    may follow: `at_once` does not wait, `stop` stops the process (SIGSTOP), `term` asks it to end (SIGTERM), `memory`
    takes more of it than the control group allows that the file `group` names, `hold` kills nobody and holds the step
    until there is a file `go`.
    \"\"\"

    def __init__(self, folder, raises, dropout_frac, step_s):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(dropout_frac), nn.Linear(16, 2))
        self.folder, self.raises, self.step_s, self.calls = Path(folder), raises, step_s, 0
        self.done = len(list(self.folder.glob("killed-*")))  # now: another rank's kill is of this attempt

    def forward(self, x):
        if self.training:
            self.calls += 1
            time.sleep(self.step_s)  # a step that takes as long
            plan = (self.folder / "plan.txt").read_text().split("\\n") if (self.folder / "plan.txt").exists() else []
            words = plan[self.done].split() if self.done < len(plan) else []
            if words[:2] == [str(dist.get_rank()), str(self.calls)]:
                for thread in threading.enumerate():
                    if thread.name.startswith("checkpoint-") and "at_once" not in words:
                        thread.join(60)
                (self.folder / f"killed-{self.done:02d}").write_text(f"{os.getpid()} {self.calls}")
                if "memory" in words:
                    (Path((self.folder / "group").read_text()) / "cgroup.procs").write_text(str(os.getpid()))
                    taken = [bytearray(2**24) for _ in range(2**6)]
                if "hold" in words:
                    while not (self.folder / "go").exists():
                        time.sleep(0.05)  # the fault itself: a step that takes long
                else:
                    kinds = {"stop": signal.SIGSTOP, "term": signal.SIGTERM}
                    os.kill(os.getpid(), kinds.get(words[-1], signal.SIGKILL))
            if self.raises and self.calls == self.raises and dist.get_rank() == 1:
                raise RuntimeError("the network does not feel like it")
        return self.layers(x)


def build(folder, raises=0, dropout_frac=0.5, step_s=0.0):
    return Faulty(folder, raises, dropout_frac, step_s)
"""


def write_network(folder: Path, plan: list[str]) -> Path:
    """A code_dir with the network, and the kills that it shall do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faulty_model.py").write_text(FAULTY_NETWORK)
    (folder / "plan.txt").write_text("\n".join(plan))
    return folder


def kills(folder: Path) -> list[tuple[int, int]]:
    """(pid, call) of each kill that was done."""
    pairs = (path.read_text().split() for path in sorted(folder.glob("killed-*")))
    return [(int(pid), int(call)) for pid, call in pairs]


FAULTY_TRIAL = """\
import os
import time

from torch import nn


class Network(nn.Module):
    def __init__(self, fault, step_s):
        super().__init__()
        self.fault, self.step_s, self.layer = fault, step_s, nn.Linear(3, 2)

    def forward(self, x):
        if self.training:
            time.sleep(self.step_s)  # a step that takes as long
        return self.layer(x) * (float("inf") if self.fault == "diverges" and self.training else 1.0)


def build(fault, step_s=0.0):
    if fault == "process ends":
        os._exit(9)
    if fault == "hangs":
        time.sleep(100_000)
    if fault == "out of memory":
        raise MemoryError("cannot allocate 1 TB")
    return Network(fault, step_s)
"""

TRIAL_FAULTS = {"process ends": "failed", "hangs": "failed", "out of memory": "failed", "diverges": "diverged"}
"""What `fault` may be in FAULTY_TRIAL, and the status that such a trial ends with; by any other name it is sound."""


class ThrottlingProxy:
    """An HTTP server in front of another one: answers late, and some requests with 503 SlowDown.

    Attributes:
        port: on loopback.
        is_away: as long as it is True requests are taken and none is answered.
        num_requests, num_refused: so far.

    Args:
        to_port: where the other one listens, on loopback.
        refused_frac: so many of every REFUSED_OUT_OF requests that follow each other, drawn by `seed`.
        latency_s: before every answer.
    """

    REFUSED_OUT_OF = 10

    def __init__(self, to_port: int, *, refused_frac: float = 0.0, latency_s: float = 0.0, seed: int = 0) -> None:
        self.to_port, self.latency_s = to_port, latency_s
        self.num_requests = self.num_refused = 0
        self.is_away = False
        self._num_refused_each = round(refused_frac * self.REFUSED_OUT_OF)
        self._draw = random.Random(seed)
        self._coming: list[bool] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> ThrottlingProxy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _is_refused(self) -> bool:
        with self._lock:
            if not self._coming:
                refused = self._num_refused_each
                self._coming = [True] * refused + [False] * (self.REFUSED_OUT_OF - refused)
                self._draw.shuffle(self._coming)
            is_refused = self._coming.pop()
            self.num_requests += 1
            self.num_refused += is_refused
            return is_refused

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                time.sleep(proxy.latency_s)  # the fault itself, nothing waits for readiness
                if proxy.is_away:
                    while proxy.is_away:
                        time.sleep(0.05)  # as above
                    self.close_connection = True
                    return
                if proxy._is_refused():
                    self.reply(503, {"content-type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
                    return
                onward = http.client.HTTPConnection("127.0.0.1", proxy.to_port, timeout=60)
                try:
                    onward.request(self.command, self.path, body or None, dict(self.headers))  # the Host is signed
                    answer = onward.getresponse()
                    self.reply(answer.status, dict(answer.getheaders()), answer.read())
                finally:
                    onward.close()

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                kept = {name.lower(): value for name, value in headers.items()}
                kept.pop("transfer-encoding", None)
                kept.setdefault("content-length", str(len(body)))  # of HEAD: that of the object
                for name, value in kept.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        return Handler
