"""Nodes of a cluster that no test process started Ray in: `ray start`, each in folders of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest

from raypipe.testing.faults import kill_tree
from tests.conftest import pick_ports
from tests.integration.conftest import RAY_ENV

START_TIMEOUT_S = 90.0
ROOT = Path(__file__).parents[2]
HEALTH_CHECK = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}


@contextmanager
def node(
    env: Mapping[str, str], folder: Path, words: list[str], *, until: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """A node with these words of `ray start`, in folders of its own as on another machine, while the block runs.

    Args:
        folder: not there yet, and short: sockets lie below it.
        until: whether the node is up.
    """
    folder.mkdir()
    agent, metrics = pick_ports(2)
    words = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--node-ip-address=127.0.0.1",
             f"--temp-dir={folder}", f"--dashboard-agent-listen-port={agent}",
             f"--metrics-export-port={metrics}", *words]  # fmt: skip
    log = folder / "node.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, env=dict(env), cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not until():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the node did not come up:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)  # a node announces itself to nobody but its cluster
        yield process
    finally:
        if process.poll() is None:
            kill_tree(process)


@dataclass(frozen=True)
class Head:
    """A node with one CPU, where drivers and other nodes join at `address`; `url` is its dashboard."""

    url: str
    address: str
    env: dict[str, str]
    folder: Path
    numbers: Iterator[int] = field(default_factory=count)

    def num_nodes(self) -> int:
        """Nodes that are alive; 0 while the dashboard does not answer."""
        try:
            answer = httpx.get(f"{self.url}/api/v0/nodes", timeout=5)
        except httpx.TransportError:  # not up yet
            return 0
        rows = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
        return sum(row["state"] == "ALIVE" for row in rows)

    @contextmanager
    def joined(self, num_cpus: int) -> Iterator[subprocess.Popen[bytes]]:
        """A second node, while the block runs."""
        words = [f"--address={self.address}", f"--num-cpus={num_cpus}"]
        with node(self.env, self.folder / str(next(self.numbers)), words, until=lambda: self.num_nodes() == 2) as found:
            yield found


@contextmanager
def running_head(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Head]:
    """A cluster of one node, while the block runs.

    Args:
        folder: not there yet, and short: sockets lie below it.
        env: further settings of the node.
    """
    folder.mkdir()
    gcs, dashboard, client = pick_ports(3)
    env = {**os.environ, **RAY_ENV, "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **(env or {})}
    found = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", env, folder)
    words = ["--head", "--num-cpus=1", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={client}", f"--system-config={json.dumps(HEALTH_CHECK)}"]  # fmt: skip
    with node(env, folder / "head", words, until=lambda: found.num_nodes() == 1):
        yield found
