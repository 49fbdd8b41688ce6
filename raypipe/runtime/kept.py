"""A Ray that stays up between commands: `raypipe up` keeps it, later commands of this user join it, `down` ends it.

One process keeps it, apart from any terminal. A note in the user's home says where it is; a lock beside the note, held
by that process, says that it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from raypipe.errors import ClusterError
from raypipe.runtime.local import state_folder
from raypipe.runtime.process import ProcessId
from raypipe.spec.code import ALLOW_MODULES

NOTE, LOCK, LOG = "kept.json", "kept.lock", "kept.log"

IDLE_S = 3600.0
"""After so long without a command's work or an endpoint it ends by itself."""

POLL_S = 1.0

ENVIRONMENT = ("AWS_", "CUDA_", "OMP_", "PYTHONPATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", ALLOW_MODULES)
"""How variables begin that Ray's workers take from the process that started it: where these differ, a command's
workers would read another store, or other code, than the command itself."""


@dataclass(frozen=True)
class Kept:
    """A Ray that `raypipe up` keeps.

    Attributes:
        address: where its head answers.
        installation: of raypipe, Ray and Python, that its workers import.
        environment: digest of the variables that its workers have; no value can be read from it.
        process: of the one that keeps it.
        since: seconds since 1970.
    """

    address: str
    installation: str
    environment: str
    process: ProcessId
    since: float

    @property
    def unlike_here(self) -> str:
        """Why a command of this process cannot join it; empty where it can."""
        if self.installation != _installation():
            return f"is of {self.installation}, and this is {_installation()}"
        if self.environment != environment_digest(os.environ):
            return f"has other settings ({', '.join(name + '*' for name in ENVIRONMENT[:3])}, ...) than this shell"
        return ""


def find() -> Kept | None:
    """The one that is up on this machine for this user."""
    folder = state_folder()
    if folder is None:
        return None
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        kept = Kept(**{**note, "process": ProcessId.parse(note["process"])})
    except (OSError, ValueError, TypeError, KeyError):  # none, half written, or another release's
        return None
    return kept if kept.process.lives else None


def joinable() -> Kept | None:
    """The one that commands of this process join where nobody names another."""
    kept = None if os.environ.get("RAY_ADDRESS") else find()
    return kept if kept is not None and not kept.unlike_here else None


def environment_digest(environment: Mapping[str, str]) -> str:
    """Of the variables that matter to workers, in one short text."""
    told = sorted((name, value) for name, value in environment.items() if name.upper().startswith(ENVIRONMENT))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def keep(idle_s: float) -> None:
    """Keep a Ray until SIGTERM, or until nothing used it for `idle_s`; for a process of its own.

    Raises:
        ClusterError: another process keeps one, the home cannot be written, or Ray does not start.
    """
    from raypipe.runtime.connect import connect
    from raypipe.runtime.resources import MAX_OVERSUBSCRIPTION, Demand

    folder = writable_folder()
    environment = environment_digest(os.environ)  # as the shell has it, before Ray's own settings
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ClusterError("another process keeps a Ray for this user", "raypipe down ends it") from None
        limit = (os.cpu_count() or 1) * MAX_OVERSUBSCRIPTION
        with connect(Demand(data_cpus=limit, ray_train=True), address="local"):
            import ray

            address = ray.get_runtime_context().gcs_address
            kept = Kept(address, _installation(), environment, ProcessId.own(), time.time())
            _write(folder / NOTE, json.dumps(asdict(kept)))
            try:
                _wait_until_idle(idle_s)
            finally:
                with suppress(OSError):
                    (folder / NOTE).unlink()


def end(kept: Kept, timeout_s: float = 60.0) -> None:
    """Have it end, with all that runs on it.

    Raises:
        ClusterError: it still lives after `timeout_s`.
    """
    with suppress(ProcessLookupError):
        os.kill(kept.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while kept.process.lives:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"process {kept.process.pid}, which keeps Ray, was told to end {timeout_s:g} s ago and still lives",
                f"kill -9 {kept.process.pid}: Ray's processes end with it",
            )
        time.sleep(0.05)


def writable_folder() -> Path:
    """Where note, lock and log lie. Raises ClusterError where there is no such place."""
    folder = state_folder()
    if folder is None:
        raise ClusterError("a Ray that stays up is noted in your home, and there is none", "set HOME or XDG_STATE_HOME")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / LOG, "")
    except OSError as error:
        raise ClusterError(
            f"a Ray that stays up is noted in {folder}, which cannot be written: {error.strerror}",
            "make it writable, or set XDG_STATE_HOME",
        ) from None
    return folder


def _wait_until_idle(idle_s: float) -> None:
    never = threading.Event()
    used = time.monotonic()
    while time.monotonic() - used < idle_s:
        never.wait(min(POLL_S, idle_s))
        if _is_used():
            used = time.monotonic()


def _is_used() -> bool:
    """Whether a driver beside this process is connected, or Serve is up."""
    import ray
    from ray._private.state import state
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    own = ray.get_runtime_context().get_job_id()
    if any(not job["IsDead"] and job["JobID"] != own for job in state.job_table()):
        return True
    return {"name": SERVE_CONTROLLER_NAME, "namespace": SERVE_NAMESPACE} in ray.util.list_named_actors(True)


def _write(file: Path, text: str) -> None:
    """Whole or not at all, readable by this user alone."""
    new = file.with_name(f"{file.name}.{os.getpid()}")
    handle = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    new.replace(file)


def _installation() -> str:
    versions = []
    for name in ("raypipe", "ray"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # from a folder on PYTHONPATH
            versions.append(f"{name} of a folder")
    return f"{', '.join(versions)}, Python {'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}"
