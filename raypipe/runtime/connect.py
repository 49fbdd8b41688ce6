"""The only file that calls ray.init; checks that the request can fit before anything waits for it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from raypipe.errors import ClusterError, ResourceError, SpecError, causes, masked
from raypipe.runtime.local import announced
from raypipe.runtime.resources import MAX_OVERSUBSCRIPTION, Demand, can_grow, check_fits
from raypipe.spec.addresses import refuse_userinfo
from raypipe.spec.code import ALLOW_MODULES

ANY_ENV = {
    # Train drains its report queue once per poll, and datasource V2 starts up to 32 actors to read one small file.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""Set in this process and in those of any cluster, unless the user set them."""

PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION", ALLOW_MODULES)
"""Where a store is, never how to get in: credentials are the cluster's own. Job settings are shown in its dashboard.
And which installed modules the caller lets a model name."""

LOCAL_ENV = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Set as well before a local Ray starts: workers prestarted for nothing slow a laptop down. Measured to halve the
start of a small run. RAY_AUTH_MODE is not among them: a local Ray asks for a token by itself, and setting it once ray
is imported makes the server want a token that was never made."""

PACKAGE = Path(__file__).parent.parent
"""This raypipe, as a cluster gets it."""

UPLOAD_EXCLUDES = [".git/", ".venv/", "__pycache__/", ".raypipe/"]

TOO_LARGE = re.compile(r"exceeds the maximum size of (?P<mib>[\d.]+)MiB|body size (?P<bytes>\d+) exceeded")
"""How Ray's client and its dashboard refuse a folder."""

QUIET = (
    *("ray", "ray.data", "ray.train", "ray.tune", "ray.serve"),
    *("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"),  # the client of jobs
)


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
) -> Iterator[Cluster]:
    """Be on a Ray cluster while the block runs.

    Starts Ray in this process unless `address` or $RAY_ADDRESS names a cluster. A local Ray gets the logical CPUs the
    demand needs, up to MAX_OVERSUBSCRIPTION a core, so that a two-core laptop neither refuses nor deadlocks.

    Args:
        demand: what will run at once; checked before anything starts.
        address: cluster to join; `auto` finds the one on this machine.
        code_dir: folder the user's own modules are imported from, made importable in every worker.
    Raises:
        ResourceError: the demand can never fit.
        ClusterError: the cluster does not answer.
        SpecError: `code_dir` is too large to send to it.
    """
    import ray

    hush()
    if ray.is_initialized():
        yield _joined(demand, started_here=False)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    refuse_userinfo("the cluster's address (--address, RAY_ADDRESS)", address or "")
    started_here = not address or address == "local"
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with ExitStack() as leave:
        if started_here:
            _start(demand, code_dir)
        else:
            _join(str(address), demand, code_dir)
        leave.callback(ray.shutdown)
        _set_sigterm(on_sigterm)
        if started_here:
            leave.enter_context(announced(ray.get_runtime_context().gcs_address))
        yield _joined(demand, started_here=started_here)


def _set_sigterm(handler: Any) -> None:
    """Give back what ray.init took: its own handler prints a stack and leaves what was started behind."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def hush() -> None:
    """Keep Ray's own log lines off the screen; Serve turns its own on again when it is imported."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _start(demand: Demand, code_dir: Path | None) -> None:
    import ray

    cores = os.cpu_count() or 1
    limit = cores * MAX_OVERSUBSCRIPTION
    if demand.num_cpus - demand.data_cpus > limit:
        raise ResourceError(
            f"the file asks for {demand.num_cpus - demand.data_cpus:g} CPUs at once; this machine has {cores} cores, "
            f"and a Ray started here lends at most {limit} logical CPUs",
            "lower the worker count or num_cpus of one worker, or run on a cluster: RAY_ADDRESS or raypipe submit",
        )
    for name, value in {**ANY_ENV, **LOCAL_ENV}.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_AUTH_MODE", "token") == "token":
        _ensure_token()
    if code_dir is not None:
        _put_on_path(code_dir)
    try:
        # The dashboard stays on: Ray Train asks it which of its runs died, and frees what they held.
        ray.init(
            address="local",
            num_cpus=max(cores, ceil(demand.num_cpus), ceil(min(demand.wanted_cpus, limit))),
            include_dashboard=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (RuntimeError, OSError, ValueError, ConnectionError, TimeoutError) as error:
        raise ClusterError(
            f"Ray did not start on this machine: {first_line(error)}",
            f"run it again; its logs are under {os.environ.get('RAY_TMPDIR', '/tmp')}/ray",
        ) from None


def _join(address: str, demand: Demand, code_dir: Path | None) -> None:
    import ray

    use_token_if_any()
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
    try:
        with sending(code_dir or PACKAGE):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except SpecError:
        raise
    except Exception as error:  # ray.init raises many unrelated types when a cluster does not answer
        raise ClusterError(
            f"no Ray cluster answers at {address}: {first_line(error)}",
            "check the address and RAY_AUTH_TOKEN, or unset RAY_ADDRESS to run on this machine",
        ) from None


@contextmanager
def sending(folder: Path) -> Iterator[None]:
    """Ray packs a folder and sends it to a cluster in the block.

    Raises:
        SpecError: it is larger than Ray takes.
    """
    try:
        yield
    except Exception as error:  # Ray has a type of its own for each way a folder can go
        found = next(filter(None, (TOO_LARGE.search(str(each)) for each in causes(error))), None)
        if found is None:
            raise
        limit_mib = float(found["mib"] or int(found["bytes"]) / 2**20)
        raise SpecError(
            f"{folder} is too large to send to the cluster: zipped, it must be below {limit_mib:.0f} MiB",
            "name what the model's code does not need in a .gitignore or .rayignore there; keep data in s3://",
        ) from None


def passed_on() -> dict[str, str]:
    """What processes of a cluster that runs already must be told of this one's environment.

    Raises:
        SpecError: an address holds a password, which everyone who sees the cluster's dashboard would see.
    """
    told = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for name, value in told.items():
        refuse_userinfo(name, value)
    return told


def in_job() -> bool:
    """Whether this process is the driver of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def use_token_if_any() -> None:
    """Authenticate to a cluster when this machine has a token; clients do not by themselves."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    hush()
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _ensure_token() -> None:
    """A token for clusters of this user, readable by nobody else; the one Ray makes is readable by everybody."""
    path = Path.home() / ".ray" / "auth_token"
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):  # there is one, perhaps since a moment ago
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))


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


def _put_on_path(code_dir: Path) -> None:
    """Workers of a Ray started here inherit PYTHONPATH; the driver's own path is set by hand."""
    sys.path.insert(0, str(code_dir))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(code_dir) + (os.pathsep + before if before else "")
