"""Real servers for the stories: SeaweedFS as S3, Ray as the cluster. Loopback only, one of each per session.

The S3 address and keys are fixed before anything starts and are in the environment from the first test on. So Ray
workers inherit them whichever server comes up first, and nothing here can reach a real bucket by mistake.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.conftest import pick_ports
from tests.integration.s3_server import S3Address, S3Server, starting_s3

if TYPE_CHECKING:
    from raypipe.runtime.context import RunContext

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
    "RAY_worker_niceness": "0",  # at Ray's own 15 workers hardly move beside the half of the tests that needs no Ray
}


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


@pytest.fixture(scope="session", autouse=True)
def s3_starting(
    request: pytest.FixtureRequest, cluster_environment: None, s3_address: S3Address, private_dir: Path
) -> Iterator[Callable[[], S3Server]]:
    """SeaweedFS starts with the session where one of its tests asks for it: seconds pass before it answers."""
    with contextlib.ExitStack() as ends:

        @cache
        def started() -> Callable[[], S3Server]:
            return ends.enter_context(starting_s3(s3_address, private_dir / "s3"))

        if any("s3" in getattr(item, "fixturenames", ()) for item in request.session.items):
            with contextlib.suppress(RuntimeError):  # not installed: told by the test that asks for it
                started()
        yield lambda: started()()


@pytest.fixture(scope="session")
def s3(s3_starting: Callable[[], S3Server]) -> S3Server:
    """SeaweedFS with one identity, stopped by its own handle."""
    return s3_starting()


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
