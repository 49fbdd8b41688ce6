"""A cluster that was there before, of two nodes, with a token: the pipeline and each stage as a Ray job."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import pick_ports
from tests.integration.conftest import RAY_ENV, S3Server
from tests.integration.nodes import node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
JOB_TIMEOUT_S = 180.0

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: import, path: "net.py:build"}
train: {epochs: 2, global_batch_size: 16, optimizer: {kind: adamw, lr: 0.05}}
"""

NET = """\
from pathlib import Path

import ray
import torch.distributed
from torch import nn

def build(input_shape, num_outputs, noted=None):
    if noted and torch.distributed.is_initialized():  # in a worker
        Path(noted, ray.get_runtime_context().get_node_id()).touch()
    return nn.Linear(input_shape[0], num_outputs)
"""


ROWS = """\
sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm
5.1,3.5,1.4,0.2
6.7,3.0,5.2,2.3
"""


@dataclass(frozen=True)
class Head:
    """A cluster of two nodes that wants a token; `url` is its dashboard, `address` where drivers and nodes join."""

    url: str
    address: str
    env: dict[str, str]

    def run(self, *words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words], env={**self.env, **env}, cwd=cwd, capture_output=True, text=True,
            timeout=JOB_TIMEOUT_S,
        )  # fmt: skip

    def ask(self, path: str) -> Any:
        """JSON from the dashboard; None while it does not answer."""
        token = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        try:
            answer = httpx.get(f"{self.url}/api/{path}", headers=token, timeout=5)
        except httpx.TransportError:  # not up yet, or busy
            return None
        return answer.json() if answer.status_code == 200 else None


@pytest.fixture(scope="module")
def head(private_dir: Path) -> Iterator[Head]:
    folder = private_dir / "h"  # short: sockets lie below it
    (folder / "home").mkdir(parents=True)
    gcs, dashboard, client = pick_ports(3)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        **{name: value for name, value in RAY_ENV.items() if name != "RAY_AUTH_MODE"},
        "HOME": str(folder / "home"),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
        # Jobs say `python`, and find it as a shell would.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    words = ["--head", "--num-cpus=4", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={client}"]  # fmt: skip
    found = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", env)
    more = [f"--address={found.address}", "--num-cpus=3"]
    of_nodes = {**env, "RAY_AUTH_MODE": "token"}
    with (
        node(of_nodes, folder / "1", words, until=lambda: found.ask("jobs/") is not None),
        node(of_nodes, folder / "2", more, until=lambda: len(_alive(found)) == 2),
    ):
        yield found


def _alive(head: Head) -> set[str]:
    """Ids of the cluster's nodes."""
    answer = head.ask("v0/nodes?detail=true")
    rows = answer["data"]["result"]["result"] if answer else []
    return {row["node_id"] for row in rows if row["state"] == "ALIVE"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(FILE)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def submit(head: Head, project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return head.run(sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--address", head.url, *words)

    return call


@pytest.fixture(scope="module")
def kept(s3: S3Server) -> str:
    """The store of the submitted pipeline and of all scripts."""
    return f"s3://{s3.bucket()}/jobs"


@pytest.fixture(scope="module")
def noted(private_dir: Path) -> Path:
    """The folder where the network notes which node it is on."""
    folder = private_dir / "noted"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def spread(noted: Path) -> list[str]:
    """Words that put a worker on each node; nodes have 4 and 3 CPUs."""
    fields = ("train.num_workers=2", "train.resources.num_cpus=2.5", f"model.args={{noted: {noted}}}")
    return [word for field in fields for word in ("--set", field)]


@pytest.mark.s3
def test_submitted_pipeline_trains_on_both_nodes_streams_its_log_and_gives_its_result_and_exit_code(
    submit: Callable[..., subprocess.CompletedProcess[str]], head: Head, kept: str, noted: Path, spread: list[str]
):
    words = ("--store", kept, *spread)
    good = submit(*words, "--json")
    assert good.returncode == 0, good.stderr
    result = json.loads(good.stdout)
    assert result["model"] == {"name": "flowers", "version": 1} and result["store"] == kept
    assert "epoch 2/2" in good.stderr and "flowers@1 registered" in good.stderr
    assert "sdk.py" not in good.stderr  # where the client of Ray says its own about uploads and sockets
    assert {path.name for path in noted.iterdir()} == _alive(head)

    bad = submit(*words, "--set", "evaluate.gates=[{metric: accuracy, min: 1.0}]")
    assert bad.returncode == 3
    assert "reused: same data and spec as" in bad.stderr and "nothing was registered" in bad.stderr


def test_submit_with_a_wrong_token_is_refused(head: Head, project: Path):
    words = (sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--address", head.url)
    answer = head.run(*words, "--store", project / "store", RAY_AUTH_TOKEN="0" * 32)
    assert answer.returncode == 4 and "token" in answer.stderr and "Traceback" not in answer.stderr


def test_submit_to_nobody_says_so(head: Head, project: Path, free_port: int):
    words = (sys.executable, "-m", "raypipe", "submit", project / "p.yaml", "--store", project / "store")
    answer = head.run(*words, "--address", f"http://127.0.0.1:{free_port}")
    assert answer.returncode == 4 and f"the cluster at http://127.0.0.1:{free_port}" in answer.stderr


# --- each script of jobs/ -----------------------------------------------------------------------------------------

SEARCH = "tune={space: {train.optimizer.lr: {choice: [0.1]}}, num_trials: 1}"
SCRIPTS = {
    "data": (["--run=r1"], "dataset", {"name": "flowers"}),
    "train": (["--run=r1"], "train", {"num_workers": 2}),
    "evaluate": (["--run=r1"], "evaluation", {"gates": []}),
    "register": (["--run=r1"], "model_version", {"version": 1}),
    "tune": (["--set", SEARCH], "tune", {"best_values": {"train.optimizer.lr": 0.1}}),
    "serve": (["--run=r1"], "endpoint", {"model": "flowers", "version": 1}),
    "pipeline": ([], "model_version", {"version": 1}),
    "predict": (["--model=flowers"], "batch", {"num_rows": 2, "version": 1}),
}
"""Script -> words, and what its record must say. In this order: each uses what those before it left in the store, and
the first ones what the submitted pipeline left, if it was run."""


@pytest.fixture(scope="module")
def sent(private_dir: Path) -> Path:
    """The folder that goes with each job."""
    folder = private_dir / "sent"
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "p.yaml").write_text(FILE)
    (folder / "net.py").write_text(NET)
    (folder / "rows.csv").write_text(ROWS)
    return folder


@pytest.mark.s3
@pytest.mark.parametrize("script", SCRIPTS)
def test_job_script_prints_its_record_last(
    script: str, head: Head, sent: Path, kept: str, spread: list[str], free_port: int
):
    words, kind, told = SCRIPTS[script]
    if script == "predict":
        words = [*words, f"--input={sent / 'rows.csv'}", f"--output={kept}-predicted"]
    else:
        words = [*words, "--config=p.yaml", *(spread if script != "tune" else ())]
    if script == "serve":
        words = [*words, "--set", f"serve={{port: {free_port}, ingress: python, resources: {{num_cpus: 0.1}}}}"]
    status, log = _job(head, sent, ["python", f"jobs/{script}.py", f"--store={kept}", *words])
    assert status == "SUCCEEDED", log[-3000:]
    record = json.loads([line for line in log.splitlines() if line.startswith("{")][-1])
    assert record["kind"] == kind and {name: record[name] for name in told} == told
    if script == "serve":  # it stays when the job has ended
        answer = httpx.post(f"{record['url']}/predict", json=record["probe"]["request"], timeout=30)
        assert answer.json()["predictions"] == record["probe"]["answer"]["predictions"]


def test_job_script_with_a_store_in_the_jobs_own_folder_exits_2(head: Head, sent: Path):
    status, log = _job(head, sent, ["python", "jobs/data.py", "--config=p.yaml", "--store=kept"])
    assert status == "FAILED" and "'kept' is relative to the job's own folder" in log
    assert "Traceback" not in log


def _job(head: Head, folder: Path, words: list[str]) -> tuple[str, str]:
    """A job's final status and log; a folder that was sent before is not sent again."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(head.url, headers={"Authorization": f"Bearer {head.env['RAY_AUTH_TOKEN']}"})
    job = client.submit_job(entrypoint=shlex.join(words), runtime_env={"working_dir": str(folder)})
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while not (status := client.get_job_status(job)).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(0.2)  # the status of a job can only be asked for
    return status.value, client.get_job_logs(job)


# --- a store on local disks -------------------------------------------------------------------------------------------


def test_local_store_on_two_nodes_is_used_only_where_both_see_it(head: Head, project: Path):
    words = (sys.executable, "-m", "raypipe", "run", project / "p.yaml", "--until", "data", "--json", "--store")
    # The same words for every process, a folder of its own in each: what a local disk is to a node.
    refused = head.run(*words, "/proc/self/cwd/kept", cwd=project, RAY_ADDRESS=head.address)
    assert refused.returncode == 2, refused.stderr
    assert "2 of the cluster's 2 nodes do not see what is written there" in refused.stderr
    assert "Traceback" not in refused.stderr and not list((project / "kept").glob("datasets/*"))

    shared = head.run(*words, project / "shared", RAY_ADDRESS=head.address)
    assert shared.returncode == 0, shared.stderr
    assert list((project / "shared").glob("datasets/*"))
