"""What this machine, its store and its cluster lack for a run: looked at without starting anything."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from raypipe.errors import RaypipeError, SpecError
from raypipe.runtime.memory import available_bytes
from raypipe.runtime.private import parents
from raypipe.runtime.touch import check_answers
from raypipe.storage import open_store

State = Literal["ok", "warning", "problem"]

GIB = 2**30

ENOUGH_MEMORY_BYTES = 2 * GIB
"""Ray's own processes take about one GiB before any row is read."""

OBJECT_STORE_SHARE = 0.3
"""Of the memory, as Ray sizes its object store; it lies in SHARED_MEMORY where that has so much room."""

SHARED_MEMORY = Path("/dev/shm")

ENOUGH_DISK_BYTES = 2 * GIB

ENOUGH_FILES = 4096
"""Open files: each worker and each connection of a replica takes some."""

CLOCK_WARNING_S, CLOCK_PROBLEM_S = 60.0, 900.0
"""S3 refuses requests that are signed more than fifteen minutes off its own time."""

PACKAGES = ("raypipe", "ray", "torch", "pyarrow", "numpy")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: e.g. "memory".
        text: what was found.
        remedy: what to do; empty where nothing has to be done.
    """

    what: str
    state: State
    text: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """As a JSON mapping."""
        return asdict(self)


def check_up(store: str | None, address: str | None, host: str, port: int) -> Iterator[Finding]:
    """Look at one thing after another.

    Args:
        store: address of the store; None is the usual one.
        address: of a cluster that is there; None is a Ray of this machine's own.
        host, port: where an endpoint shall listen.
    """
    yield _versions()
    yield _gpu()
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _temporary_folder()
    yield _open_files()
    if address:
        yield _asked("cluster", lambda: check_answers(address), f"a Ray head answers at {address}")
    else:
        yield _port(host, port)
    yield from _store(store)


def _asked(what: str, check: Callable[[], object], text: str) -> Finding:
    """A check of our own that raises what is wrong."""
    try:
        check()
    except RaypipeError as error:
        return Finding(what, "problem", error.message, error.hint)
    return Finding(what, "ok", text)


def _versions() -> Finding:
    there = {name: _version(name) for name in PACKAGES}
    text = ", ".join(f"{name} {version}" for name, version in there.items() if version)
    missing = [name for name, version in there.items() if not version]
    text = f"Python {sys.version.split()[0]}, {text}"
    if missing:
        return Finding("versions", "problem", f"{text}; {', '.join(missing)} cannot be found", "pip install raypipe")
    return Finding("versions", "ok", text)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> Finding:
    has_driver, torch = shutil.which("nvidia-smi") is not None, _version("torch") or ""
    if has_driver and torch.endswith("+cpu"):
        return Finding(
            "gpu", "warning", f"there is an NVIDIA driver, and torch {torch} cannot use it", "install torch with CUDA"
        )
    return Finding("gpu", "ok", "an NVIDIA driver is here" if has_driver else "no NVIDIA driver: training on CPUs")


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 2:
        return Finding("cores", "warning", "1 core: everything runs, one thing after another", "two make it a pleasure")
    return Finding("cores", "ok", f"{count} cores")


def _memory() -> Finding:
    free = available_bytes()
    if free < ENOUGH_MEMORY_BYTES:
        return Finding(
            "memory", "problem", f"{_gib(free)} are free; {_gib(ENOUGH_MEMORY_BYTES)} are needed",
            "close other programs, or give the container more",
        )  # fmt: skip
    return Finding("memory", "ok", f"{_gib(free)} are free")


def _shared_memory() -> Finding:
    what, wanted = "shared memory", int(OBJECT_STORE_SHARE * available_bytes())
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return Finding(what, "ok", f"no {SHARED_MEMORY} here; Ray keeps its objects elsewhere")
    if free < wanted:
        return Finding(
            what, "warning",
            f"{SHARED_MEMORY} has room for {_gib(free)}; Ray wants {_gib(wanted)}, and is slow on a disk instead",
            f"docker run --shm-size={wanted // GIB + 1}g, or mount it larger",
        )  # fmt: skip
    return Finding(what, "ok", f"{SHARED_MEMORY} has room for {_gib(free)}")


def _temporary_folder() -> Finding:
    what = "temporary files"
    try:
        usable = parents()
    except RaypipeError as error:
        return Finding(what, "problem", error.message, error.hint)
    if not usable:
        return Finding(what, "problem", "no folder for them can be written", "set TMPDIR to one that can")
    free = shutil.disk_usage(usable[0]).free
    if free < ENOUGH_DISK_BYTES:
        return Finding(
            what, "warning", f"{usable[0]} has room for {_gib(free)}; data larger than memory is kept there meanwhile",
            "make room, or set RAY_TMPDIR to a larger disk",
        )  # fmt: skip
    return Finding(what, "ok", f"{usable[0]} has room for {_gib(free)}")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        highest = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        return Finding("open files", "warning", f"{soft} at a time are few for many workers", f"ulimit -n {highest}")
    return Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at a time")


def _port(host: str, port: int) -> Finding:
    from raypipe.serve.ingress import check_port_free

    return _asked("port", lambda: check_port_free(host, port), f"{port} on {host} is free for an endpoint")


def _store(uri: str | None) -> Iterator[Finding]:
    try:
        store = open_store(uri)
        store.check()
    except SpecError as error:  # no address at all: nobody to ask for the time
        yield Finding("store", "problem", error.message, error.hint)
        return
    except RaypipeError as error:
        yield Finding("store", "problem", error.message, error.hint)
    else:
        yield Finding("store", "ok", f"{store.uri} takes, gives back and deletes objects")
    if (uri or os.environ.get("RAYPIPE_STORE", "")).startswith("s3://"):
        yield _clock()


def _clock() -> Finding:
    """How far this machine's time is from the S3 server's."""
    import httpx

    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    url = next((os.environ[name] for name in variables if os.environ.get(name)), "https://s3.amazonaws.com")
    try:
        answer = httpx.head(url, timeout=10)
        off = abs(time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp())
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError) as error:
        return Finding("clock", "warning", f"the S3 server does not tell its time: {type(error).__name__}")
    state: State = "problem" if off > CLOCK_PROBLEM_S else "warning" if off > CLOCK_WARNING_S else "ok"
    remedy = "" if state == "ok" else "set this machine's clock: timedatectl set-ntp true"
    return Finding("clock", state, f"{off:.0f} s off the S3 server's", remedy)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
