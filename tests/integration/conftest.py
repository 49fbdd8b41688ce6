"""Real servers for the stories: SeaweedFS as S3, Ray as the cluster. Loopback only, one of each per session.

The S3 address and keys are fixed before anything starts and are in the environment from the first test on. So Ray
workers inherit them whichever server comes up first, and nothing here can reach a real bucket by mistake.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.conftest import pick_ports

if TYPE_CHECKING:
    from raypipe.runtime.context import RunContext

S3_START_TIMEOUT_S = 90.0
S3_STOP_TIMEOUT_S = 15.0
RAY_STOP_TIMEOUT_S = 2.0
RAY_CPUS = 4
"""Logical, on two physical cores: Data needs one that Train workers do not own."""

MAX_RAY_TMPDIR_CHARS = 40
"""107 for a socket path, less /ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store."""

RAY_ENV = {
    "RAY_AUTH_MODE": "disabled",  # loopback tests only; test_tokens starts its own cluster
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # the default lets one report through every 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # V2 starts up to 32 reader actors per epoch
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class S3Address:
    """Where this session's S3 server is, or will be once the `s3` fixture is asked for."""

    port: int
    access_key: str = field(default_factory=lambda: "test-" + secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    region: str = "us-east-1"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The usual AWS variables, for a process that shall use this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 S3 client that fails fast; use it as a context manager, or close it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10
            ),
        )


@dataclass(frozen=True)
class S3Server(S3Address):
    """A running server; `bucket()` makes a fresh bucket."""

    def bucket(self) -> str:
        name = "t-" + secrets.token_hex(6)
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def s3_address() -> S3Address:
    return S3Address(port=pick_ports(1, twin_offset=10_000)[0])


@pytest.fixture(scope="session", autouse=True)
def cluster_environment(private_environment: pytest.MonkeyPatch, private_dir: Path, s3_address: S3Address) -> None:
    """Ray and AWS settings, before the first import of either reads them."""
    assert len(str(private_dir)) <= MAX_RAY_TMPDIR_CHARS, f"{private_dir} is too long for Ray's sockets"
    private_environment.setenv("RAY_TMPDIR", str(private_dir))
    for name, value in {**RAY_ENV, **s3_address.env}.items():
        private_environment.setenv(name, value)


@pytest.fixture(scope="session")
def s3(s3_address: S3Address, private_dir: Path) -> Iterator[S3Server]:
    """SeaweedFS with one identity, stopped by its own handle."""
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        pytest.fail(f"{weed} is missing; run: make install-dev")
    folder = private_dir / "s3"
    folder.mkdir()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": s3_address.access_key, "secretKey": s3_address.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "identities.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    master, volume, filer = pick_ports(3, twin_offset=10_000)
    command = [
        str(weed),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={s3_address.port}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",  # its default clashes with other programs
        "-s3.port.lance=0",  # its default is Serve HAProxy's metrics port
        "-volume.max=400",
        "-master.volumeSizeLimitMB=64",
    ]
    server = S3Server(**vars(s3_address))
    log_path = folder / "weed.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_answers(server, process, log_path)
        yield server
    finally:
        process.kill()  # a polite stop takes 15 s, and its folder goes with it
        process.wait(S3_STOP_TIMEOUT_S)


def _wait_until_answers(server: S3Server, process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Poll until a bucket can be made and an object comes back: the S3 port opens before volumes are ready."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + S3_START_TIMEOUT_S
    seen: Exception | None = None
    while time.monotonic() < deadline and process.poll() is None:
        try:
            bucket = server.bucket()
            with contextlib.closing(server.client()) as client:
                client.put_object(Bucket=bucket, Key="probe", Body=b"x")
                assert client.get_object(Bucket=bucket, Key="probe")["Body"].read() == b"x"
            return
        except (BotoCoreError, ClientError) as error:
            seen = error
        time.sleep(0.25)  # between two tries; the server tells nobody when it is ready
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-20:])
    state = "still runs" if process.poll() is None else f"exited with {process.returncode}"
    pytest.fail(f"SeaweedFS {state} but did not answer in {S3_START_TIMEOUT_S:.0f} s ({seen})\n{tail}")


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A fresh bucket of this test alone."""
    return s3.bucket()


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    """A run whose store is a folder of this test alone."""
    from raypipe.storage import open_store
    from raypipe.testing.fakes import run_context

    return run_context(open_store(str(tmp_path / "store")))


@pytest.fixture(scope="session")
def ray_cluster(private_dir: Path) -> Iterator[SimpleNamespace]:
    """A local Ray cluster with RAY_CPUS logical CPUs; yields `address`, `dashboard_url` and `temp_dir`."""
    import ray

    context = ray.init(num_cpus=RAY_CPUS, include_dashboard=True, log_to_driver=False)
    try:
        yield SimpleNamespace(
            address=str(ray.get_runtime_context().gcs_address),
            dashboard_url=f"http://{context.dashboard_url}",
            temp_dir=private_dir,
        )
    finally:
        processes = session_processes(private_dir)
        ray.shutdown()
        stop_leftovers(processes)


def session_processes(temp_dir: Path) -> list[psutil.Process]:
    """Every Ray process whose command line names this session's folder, and all their descendants.

    Call it before `ray.shutdown()`: workers rename themselves, so only the tree tells whose they are.
    """
    found: dict[psutil.Process, None] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if any(_names(temp_dir / "ray", word) for word in process.cmdline()):
                found[process] = None
                found.update(dict.fromkeys(process.children(recursive=True)))
    return list(found)


def _names(folder: Path, word: str) -> bool:
    return str(folder) + "/" in word or word.endswith(str(folder))


def stop_leftovers(processes: list[psutil.Process]) -> None:
    """Give processes time to leave by themselves, then terminate, then kill those that remain, each by its own pid."""
    _, alive = psutil.wait_procs(processes, timeout=RAY_STOP_TIMEOUT_S)
    for stop in ("terminate", "kill"):
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, stop)()  # psutil refuses when the pid has been reused
        _, alive = psutil.wait_procs(alive, timeout=RAY_STOP_TIMEOUT_S)
