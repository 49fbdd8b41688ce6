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
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


class Faulty(nn.Module):
    \"\"\"Each line of plan.txt, `RANK CALL`, kills that rank at that training call of an attempt of its own.\"\"\"

    def __init__(self, folder, raises):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
        self.folder, self.raises, self.calls = Path(folder), raises, 0
        self.done = len(list(self.folder.glob("killed-*")))  # now: another rank's kill is of this attempt

    def forward(self, x):
        if self.training:
            self.calls += 1
            plan = (self.folder / "plan.txt").read_text().split("\\n") if (self.folder / "plan.txt").exists() else []
            if self.done < len(plan) and plan[self.done] == f"{dist.get_rank()} {self.calls}":
                (self.folder / f"killed-{self.done:02d}").write_text(f"{os.getpid()} {self.calls}")
                os.kill(os.getpid(), signal.SIGKILL)
            if self.raises and self.calls == self.raises and dist.get_rank() == 1:
                raise RuntimeError("the network does not feel like it")
        return self.layers(x)


def build(folder, raises=0):
    return Faulty(folder, raises)
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


class ThrottlingProxy:
    """An HTTP server in front of another one: answers late, and some requests with 503 SlowDown.

    Attributes:
        port: on loopback.
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
