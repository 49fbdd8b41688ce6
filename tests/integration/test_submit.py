"""The same pipeline as a Ray job: a real cluster with tokens, logs, exit codes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import ray  # noqa: F401  (brings psutil along)

from tests.integration.conftest import stop_leftovers

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 3.0
JOB_TIMEOUT_S = 180.0

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: import, path: "net.py:build"}
train: {epochs: 2, global_batch_size: 16, optimizer: {kind: adamw, lr: 0.05}}
"""

NET = """\
from torch import nn

def build(input_shape, num_outputs):
    return nn.Linear(input_shape[0], num_outputs)
"""


@dataclass(frozen=True)
class Head:
    """A cluster of one node that wants a token."""

    url: str
    env: dict[str, str]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words], env=self.env, capture_output=True, text=True, timeout=JOB_TIMEOUT_S
        )


@pytest.fixture(scope="module")
def head(private_dir: Path) -> Iterator[Head]:
    from tests.conftest import pick_ports

    folder = private_dir / "h"  # short: sockets lie below it
    (folder / "home").mkdir(parents=True)
    gcs, dashboard, client, agent, metrics = pick_ports(5)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(folder / "home"),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
        # Jobs say `python`, and find it as a shell would.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    words = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus=4",
             "--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1",
             f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
             f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]  # fmt: skip
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen([str(word) for word in words], env=env, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait_until_jobs_answer(url, env["RAY_AUTH_TOKEN"], process, log)
        yield Head(url, {name: value for name, value in env.items() if name != "RAY_AUTH_MODE"})
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the head and everything it started, by their own pids."""
    import psutil

    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
    stop_leftovers(children)


def _wait_until_jobs_answer(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=5)
            if answer.status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the cluster did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(FILE)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def submit(head: Head, project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--address", head.url)
        return head.run(*command, "--store", project / "store", *words)

    return call


def test_submitted_pipeline_streams_its_log_and_gives_its_result_and_exit_code(
    submit: Callable[..., subprocess.CompletedProcess[str]], project: Path
):
    good = submit("--json")
    assert good.returncode == 0, good.stderr
    result = json.loads(good.stdout)
    assert result["model"] == {"name": "flowers", "version": 1} and result["store"] == str(project / "store")
    assert "epoch 2/2" in good.stderr and "flowers@1 registered" in good.stderr

    bad = submit("--set", "evaluate.gates=[{metric: accuracy, min: 1.0}]")
    assert bad.returncode == 3
    assert "reused: same data and spec as" in bad.stderr and "nothing was registered" in bad.stderr


def test_job_script_of_the_whole_pipeline_prints_the_last_record(head: Head, project: Path):
    (project / "pipeline.py").write_text((ROOT / "jobs" / "pipeline.py").read_text())
    submit = Path(sys.executable).parent / "ray"
    done = subprocess.run(
        [str(submit), "job", "submit", "--address", head.url, "--working-dir", str(project), "--",
         "python", "pipeline.py", "--config", "p.yaml", "--store", str(project / "store"), "--set", "train.epochs=1"],
        env={**head.env, "RAY_AUTH_MODE": "token"}, capture_output=True, text=True, timeout=JOB_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [line for line in done.stdout.splitlines() if line.startswith('{"kind":"model_version"')]
    assert json.loads(record)["version"] == 1


def test_submit_with_a_wrong_token_is_refused(head: Head, project: Path):
    words = (sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--address", head.url)
    wrong = Head(head.url, {**head.env, "RAY_AUTH_TOKEN": "0" * 32})
    answer = wrong.run(*words, "--store", project / "store")
    assert answer.returncode == 4 and "token" in answer.stderr and "Traceback" not in answer.stderr


def test_submit_to_nobody_says_so(head: Head, project: Path, free_port: int):
    words = (sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--store", project / "store")
    answer = head.run(*words, "--address", f"http://127.0.0.1:{free_port}")
    assert answer.returncode == 4 and f"the cluster at http://127.0.0.1:{free_port}" in answer.stderr
