"""Nodes of a cluster that no test process started Ray in: `ray start`, each in folders of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from raypipe.testing.faults import kill_tree
from tests.conftest import pick_ports

START_TIMEOUT_S = 90.0


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
