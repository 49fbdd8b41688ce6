"""The only file that calls ray.init; checks that the request can fit before anything waits for it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from raypipe.errors import ClusterError, ResourceError, SpecError, masked
from raypipe.runtime import kept
from raypipe.runtime.environment import (
    ANY_ENV,
    LOCAL_ENV,
    constants_of_environment,
    hush,
    loopback_env,
    passed_on,
    put_on_path,
    without_watchers,
)
from raypipe.runtime.local import announced, ensure_token, token_of
from raypipe.runtime.private import LOCK, SESSIONS, is_private, private_folder
from raypipe.runtime.progress import Progress
from raypipe.runtime.resources import MAX_OVERSUBSCRIPTION, Demand, can_grow, check_fits
from raypipe.runtime.sending import PACKAGE, UPLOAD_EXCLUDES, sending
from raypipe.runtime.start import RayThread, start_patiently
from raypipe.runtime.touch import HINT, check_answers, is_loopback
from raypipe.spec.addresses import refuse_userinfo


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster a command runs on.

    Attributes:
        started_here: this process started it, and it ends with this process.
        can_grow: an autoscaler may add nodes.
    """

    started_here: bool
    can_grow: bool


@contextmanager
def connect(
    demand: Demand,
    *,
    address: str | None = None,
    code_dir: Path | None = None,
    progress: Progress | None = None,
    while_starting: Callable[[], None] | None = None,
) -> Iterator[Cluster]:
    """Be on a Ray cluster while the block runs.

    Joins the cluster that `address` or $RAY_ADDRESS names, else the one that `raypipe up` keeps, else starts Ray in
    this process; `local` always does. A local Ray gets the logical CPUs the
    demand needs, up to MAX_OVERSUBSCRIPTION a core, so that a two-core laptop neither refuses nor deadlocks. It listens
    on loopback only and lives in a folder of this user's alone.

    Args:
        demand: what will run at once; checked before anything starts.
        address: cluster to join; `auto` finds the one on this machine.
        code_dir: folder the user's own modules are imported from, made importable in every worker.
        progress: where it is told what is waited for, and what takes longer than it should.
        while_starting: done in a thread while Ray starts here, which is mostly waiting: imports.
    Raises:
        ResourceError: the demand can never fit.
        ClusterError: the cluster does not answer, or Ray does not start here.
        SpecError: `code_dir` is too large to send to it, or RAY_TMPDIR cannot be used.
    """
    hush()
    if is_connected():
        yield _joined(demand, started_here=False)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    refuse_userinfo("the cluster's address (--address, RAY_ADDRESS)", address or "")
    progress = progress or Progress("", None)
    kept_here = None if address else kept.find()
    if kept_here is not None and kept_here.unlike_here:
        progress.say("ray", f"the Ray that raypipe up keeps {kept_here.unlike_here}: this command starts its own")
        kept_here = None
    started_here = kept_here is None and (not address or address == "local")
    with ExitStack() as leave:
        if kept_here is not None:
            with progress.awaiting("ray", f"joining the Ray that raypipe up keeps at {kept_here.address}"):
                leave.enter_context(_on_kept(kept_here.address, code_dir))
        elif started_here:
            with progress.awaiting("ray", "starting Ray on this machine"):
                leave.enter_context(_started(demand, code_dir, partial(progress.say, "ray"), while_starting))
        else:
            with progress.awaiting("ray", f"joining the cluster at {address}"):
                leave.enter_context(_on_cluster(str(address), demand, code_dir))
        yield _joined(demand, started_here=started_here)


def is_connected() -> bool:
    """Whether this process is on a Ray cluster already; imports nothing."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def is_on_this_machine_alone() -> bool:
    """Whether all of the cluster this process is on runs here, as this user, and stays so."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) != 1 or can_grow(nodes):
        return False
    with suppress(OSError):
        return session_logs().stat().st_uid == os.getuid()
    return False


def session_logs() -> Path:
    """Where the processes of the cluster this process is on write their logs; on another machine it is not there."""
    import ray

    return Path(_temp_dir(), ray.get_runtime_context().get_session_name(), "logs")


def folder_of_ray_here() -> Path | None:
    """The folder of this user's alone that a Ray started by raypipe on this machine lives in; None on another Ray."""
    folder = Path(_temp_dir()).parent
    return folder if is_private(folder) and (folder / LOCK).exists() else None


def _temp_dir() -> str:
    import ray

    return ray.get_runtime_context().get_temp_dir() or ""


@contextmanager
def _started(
    demand: Demand, code_dir: Path | None, say: Callable[[str], None], while_starting: Callable[[], None] | None
) -> Iterator[None]:
    cores = os.cpu_count() or 1
    limit = cores * MAX_OVERSUBSCRIPTION
    if demand.num_cpus - demand.data_cpus > limit:
        raise ResourceError(
            f"the file asks for {demand.num_cpus - demand.data_cpus:g} CPUs at once; this machine has {cores} cores, "
            f"and a Ray started here lends at most {limit} logical CPUs",
            "lower the worker count or num_cpus of one worker, or run on a cluster: RAY_ADDRESS or raypipe submit",
        )
    num_cpus = max(cores, ceil(demand.num_cpus), ceil(min(demand.wanted_cpus, limit)))
    for name, value in {**ANY_ENV, **LOCAL_ENV, **loopback_env()}.items():
        os.environ.setdefault(name, value)
    if code_dir is not None:
        put_on_path(code_dir)
    with ExitStack() as leave:
        folder = leave.enter_context(private_folder())
        if os.environ.get("RAY_AUTH_MODE", "token") == "token":
            leave.enter_context(ensure_token(folder))
        import ray

        sessions = folder / SESSIONS
        with _beside(while_starting), _sigterm_kept(), constants_of_environment():
            thread = start_patiently(
                lambda: _init_here(sessions, num_cpus, dashboard=demand.ray_train), ray.shutdown, sessions, say
            )
        leave.callback(thread.close)
        leave.enter_context(announced(ray.get_runtime_context().gcs_address, folder))
        yield


def _init_here(sessions: Path, num_cpus: int, *, dashboard: bool) -> None:
    import ray

    with nullcontext() if dashboard else without_watchers():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=dashboard,  # eleven processes, which few of these runs need
            log_to_driver=False,
            logging_level=logging.CRITICAL,  # why a start failed is told by us
            configure_logging=True,
            _temp_dir=str(sessions),
        )


@contextmanager
def _beside(work: Callable[[], None] | None) -> Iterator[None]:
    """Do some work in a thread meanwhile; the block's end waits for it.

    Ray's modules import each other in circles, which two threads that import them at once find half made. And a process
    that ends while a thread imports may end with an abort.
    """
    import ray  # noqa: F401

    thread = threading.Thread(target=work, name="raypipe-imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def _on_kept(address: str, code_dir: Path | None) -> Iterator[None]:
    """Its workers are this installation's, on this machine: only the user's modules are somewhere they do not look."""
    for name, value in {**ANY_ENV, **LOCAL_ENV, **loopback_env()}.items():
        os.environ.setdefault(name, value)
    runtime_env: dict[str, Any] = {}
    if code_dir is not None:
        put_on_path(code_dir)
        runtime_env = {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}
    with _joining(address, runtime_env, code_dir):
        yield


@contextmanager
def _on_cluster(address: str, demand: Demand, code_dir: Path | None) -> Iterator[None]:
    for name, value in ANY_ENV.items():
        os.environ.setdefault(name, value)
    if code_dir is not None:
        sys.path.insert(0, str(code_dir))
    runtime_env: dict[str, Any] = {}
    if demand.num_cpus > 0 and not in_job():
        # The cluster runs this raypipe and this model code, whatever is installed there. A job brought both along.
        runtime_env = {"py_modules": [str(PACKAGE)], "excludes": UPLOAD_EXCLUDES}
        runtime_env["env_vars"] = {**ANY_ENV, **passed_on()}
        if code_dir is not None:
            runtime_env["working_dir"] = str(code_dir)
    with _joining(address, runtime_env, code_dir):
        yield


@contextmanager
def _joining(address: str, runtime_env: dict[str, Any], code_dir: Path | None) -> Iterator[None]:
    """Be a driver of the cluster at an address. Raises ClusterError where none answers, SpecError of `sending`."""
    use_token_if_any(address)
    where = _answering_address(address)

    def join() -> None:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)

    import ray

    thread = RayThread(join, ray.shutdown)
    try:
        with (
            sending(code_dir or PACKAGE),
            _sigterm_kept(),
            constants_of_environment(loopback=is_loopback(where)),
        ):
            thread.wait_started()
    except SpecError:
        raise
    except Exception as error:  # ray.init raises many unrelated types when a cluster does not answer
        raise ClusterError(f"no Ray cluster answers at {address}: {first_line(error)}", HINT) from None
    try:
        yield
    finally:
        thread.close()


def _answering_address(address: str) -> str:
    """The address a head answers at. Ray takes a loopback address for the machine's own one, where ours do not listen.

    Raises:
        ClusterError: nothing answers.
    """
    if address == "auto":
        from ray._private.services import find_bootstrap_address

        address = find_bootstrap_address(None) or address
    try:
        check_answers(address)
    except ClusterError:
        if not is_loopback(address):
            raise
        import ray

        other = f"{ray.util.get_node_ip_address()}:{address.rpartition(':')[2]}"
        if is_loopback(other):
            raise
        check_answers(other)
        return other
    return address


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Give back what Ray's C++ code takes when it starts: its handler prints a stack and leaves behind what runs."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def in_job() -> bool:
    """Whether this process is the driver of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def use_token_if_any(address: str = "") -> None:
    """Authenticate to a cluster when this machine has a token; clients do not by themselves.

    Args:
        address: where a Ray of this user's may have told where its own token is.
    """
    token = token_of(address)
    if token is not None:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", token)
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    hush()
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for one line."""
    return (masked(str(error)).strip().splitlines() or [type(error).__name__])[0][:300]


def _joined(demand: Demand, *, started_here: bool) -> Cluster:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    grows = can_grow(nodes)
    if not grows:
        check_fits(demand, [node["Resources"] for node in nodes])
    return Cluster(started_here=started_here, can_grow=grows)
