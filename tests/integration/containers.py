"""The program of the container image as a process of a test, on loopback by RAYPIPE_HOST and else as in the image."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.conftest import pick_ports

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
"""What the platforms give a container between SIGTERM and SIGKILL."""


@dataclass
class Running:
    """A container's program."""

    process: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list)
    """Lines of its stderr."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_healthy(self, path: str) -> httpx.Response:
        """As platforms do: ask until the answer is 200. Every answer before that is a refusal or no connection."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(self.url + path, trust_env=False, timeout=2)
                if answer.status_code == 200:
                    return answer
            time.sleep(0.05)  # between two questions, as a platform waits
        raise AssertionError(f"not healthy; status {self.process.poll()}, it said {self.said}")

    def post(self, path: str, **kwargs: Any) -> httpx.Response:
        return httpx.post(self.url + path, trust_env=False, timeout=20, **kwargs)

    def processes(self) -> list[psutil.Process]:
        """It and all below it."""
        whole = psutil.Process(self.process.pid)
        return [whole, *whole.children(recursive=True)]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def container(environ: dict[str, str], *, port_variable: str = "RAYPIPE_PORT") -> Iterator[Running]:
    """The image's entry point with a platform's variables, and none of ours but the address."""
    (port,) = pick_ports(1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "raypipe.serve.container", "serve"],
        env={**kept, "OMP_NUM_THREADS": "1", "RAYPIPE_HOST": "127.0.0.1", port_variable: str(port), **environ},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process, port)
    assert process.stderr is not None
    reader = threading.Thread(target=lambda lines: running.said.extend(lines), args=(process.stderr,))
    reader.start()
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()  # its children die with it
        process.wait()
        reader.join()
        process.stderr.close()
