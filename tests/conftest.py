"""What every test gets without asking: a private home, a private temporary folder, no real credentials."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker has one core; threads that spin would take its neighbour's
    os.environ["OMP_NUM_THREADS"] = "1"

# Drawing examples is a quarter of the unit tests' time, so `make check` draws few, and `make integration` all of them.
# No example has a deadline: how long one takes says how busy the machine is.
THOROUGH_EXAMPLES, QUICK_EXAMPLES = 100, 30
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=THOROUGH_EXAMPLES)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=QUICK_EXAMPLES)
hypothesis.settings.load_profile("quick")


def examples(count: int) -> int:
    """`max_examples` of a test that is to draw `count` of them; fewer, by the same share for all, in a quick look."""
    return -(-count * hypothesis.settings().max_examples // THOROUGH_EXAMPLES)


FIRST_PORT, LAST_PORT = 20_000, 29_999
"""Below the ephemeral range, above Ray's worker ports (10002-19999), below Serve's replicas (30000+)."""

CLEARED = ("AWS_", "RAY_", "RAYPIPE_", "SERVE_")
"""Settings of the person who runs the tests; none of them may change a result."""

FREE_PORT_TRIES = 1_000

MNT_DETACH = 2


def pytest_collection() -> None:
    """What collection imports stays: looking through it again and again takes a seventh of collection's time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor is it looked through later, which takes a tenth of the unit tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pick_ports(count: int, *, twin_offset: int = 0) -> list[int]:
    """Distinct loopback ports nobody listens on now.

    Args:
        count: how many.
        twin_offset: when not 0, `port + twin_offset` must be free as well (SeaweedFS derives gRPC ports so).
    Raises:
        RuntimeError: too few free ports between FIRST_PORT and LAST_PORT.
    """
    found: list[int] = []
    draw = random.SystemRandom()
    for _ in range(FREE_PORT_TRIES):
        port = draw.randint(FIRST_PORT, LAST_PORT)
        wanted = {port, port + twin_offset}
        if port not in found and all(_is_free(number) for number in wanted):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"found {len(found)} of {count} free ports in {FIRST_PORT}-{LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:  # taken
            return False
        return True


@pytest.fixture(scope="session")
def private_dir() -> Iterator[Path]:
    """One short folder per session. Short, because a socket path below it must stay under 107 characters."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="rp-", dir=parent)).resolve()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def private_environment(private_dir: Path) -> Iterator[pytest.MonkeyPatch]:
    """HOME, temporary files and credentials of this session only; yields the patch that later fixtures extend."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(CLEARED):
                patch.delenv(name)
        for variable, folder in {"HOME": "home", "TMPDIR": "tmp"}.items():
            (private_dir / folder).mkdir()
            patch.setenv(variable, str(private_dir / folder))
        patch.setattr(tempfile, "tempdir", None)  # forget the folder found before TMPDIR was set
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(private_dir / "home" / "no-aws-config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(private_dir / "home" / "no-aws-credentials"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield patch


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell that starts the suite in the background makes all of it deaf to SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def installer() -> ModuleType:
    """The program `make install` runs, which is no part of the package."""
    file = Path(__file__).parents[1] / ".ci" / "install.py"
    spec = importlib.util.spec_from_file_location("installer", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def free_port() -> int:
    """One free loopback port."""
    return pick_ports(1)[0]


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """`free_ports(3)`: that many distinct free loopback ports."""
    return pick_ports


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MB of memory mounted as a disk of its own; skips where mounting is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=4m") != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield disk
    # Detached: a thread of the backend may still be closing the file it gave up on.
    assert libc.umount2(str(disk).encode(), MNT_DETACH) == 0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch as in a worker that has one CPU: small networks wait for threads longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
