"""Ranks without Ray: a program of this folder that starts one process a rank, run to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def run_to_its_end(program: ModuleType, folder: Path, timeout_s: float) -> None:
    """Run it; what it was asked and what its ranks answered are files of the folder.

    Raises:
        AssertionError: it failed; with what it said.
        subprocess.TimeoutExpired: a rank waits for another. All of them are ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning", "-m", program.__name__, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, said
