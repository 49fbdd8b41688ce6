"""The only file that calls ray.init; checks that the request can fit before anything waits for it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import raypipe
from raypipe.errors import ClusterError, ResourceError
from raypipe.runtime.resources import MAX_OVERSUBSCRIPTION, Demand, check_fits

ANY_ENV = {
    # Train drains its report queue once per poll, and datasource V2 starts up to 32 actors to read one small file.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""Set in this process on any cluster, unless the user set them; Ray hands them on."""

LOCAL_ENV = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
}
"""Set as well before a local Ray starts: workers prestarted for nothing slow a laptop down. Measured to halve the
start of a small run."""

NODE_GROUP = "ray.io/node-group"
"""Label of nodes that `ray up` or KubeRay started: only there can an autoscaler add more."""

UPLOAD_EXCLUDES = [".git/", ".venv/", "__pycache__/", ".raypipe/"]

QUIET = ("ray", "ray.data", "ray.train", "ray.tune", "ray.serve")


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
    env: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Be on a Ray cluster while the block runs.

    Starts Ray in this process unless `address` or $RAY_ADDRESS names a cluster. A local Ray gets the logical CPUs the
    demand needs, up to MAX_OVERSUBSCRIPTION a core, so that a two-core laptop neither refuses nor deadlocks.

    Args:
        demand: what will run at once; checked before anything starts.
        address: cluster to join; `auto` finds the one on this machine.
        code_dir: folder the user's own modules are imported from, made importable in every worker.
        env: variables for a Ray started here (e.g. what Ray Serve reads when its controller starts).
    Raises:
        ResourceError: the demand can never fit.
        ClusterError: the cluster does not answer.
    """
    import ray

    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _joined(demand, started_here=False)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        _join(address, code_dir, env or {})
    else:
        _start(demand, code_dir, env or {})
    try:
        yield _joined(demand, started_here=not address or address == "local")
    finally:
        ray.shutdown()


def _start(demand: Demand, code_dir: Path | None, env: Mapping[str, str]) -> None:
    import ray

    cores = os.cpu_count() or 1
    limit = cores * MAX_OVERSUBSCRIPTION
    if demand.num_cpus - demand.data_cpus > limit:
        raise ResourceError(
            f"the file asks for {demand.num_cpus - demand.data_cpus:g} CPUs at once; this machine has {cores} cores, "
            f"and a Ray started here lends at most {limit} logical CPUs",
            "lower the worker count or num_cpus of one worker, or run on a cluster: RAY_ADDRESS or raypipe submit",
        )
    for name, value in {**ANY_ENV, **LOCAL_ENV, **env}.items():
        os.environ.setdefault(name, value)
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
            f"Ray did not start on this machine: {first_line(error)}", "run it again; see the logs in /tmp/ray"
        ) from None


def _join(address: str, code_dir: Path | None, env: Mapping[str, str]) -> None:
    import ray

    use_token_if_any()
    for name, value in ANY_ENV.items():
        os.environ.setdefault(name, value)
    if code_dir is not None:
        sys.path.insert(0, str(code_dir))
    # Serve's controller reads these when it starts, on whatever node that is. Names that are set here were set by
    # the job's own runtime_env, or by the user.
    runtime_env: dict[str, Any] = {"env_vars": {k: v for k, v in env.items() if k not in os.environ}}
    if not in_job():
        # The cluster runs this raypipe and this model code, whatever is installed there. A job brought both along.
        runtime_env |= {"py_modules": [str(Path(raypipe.__file__).parent)], "excludes": UPLOAD_EXCLUDES}
        if code_dir is not None:
            runtime_env["working_dir"] = str(code_dir)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except Exception as error:  # ray.init raises many unrelated types when a cluster does not answer
        raise ClusterError(
            f"no Ray cluster answers at {address}: {first_line(error)}",
            "check the address and RAY_AUTH_TOKEN, or unset RAY_ADDRESS to run on this machine",
        ) from None


def in_job() -> bool:
    """Whether this process is the driver of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def use_token_if_any() -> None:
    """Authenticate to a cluster when this machine has a token: clients do not by themselves."""
    has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if has_token or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _joined(demand: Demand, *, started_here: bool) -> Cluster:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    can_grow = not started_here and any(node.get("Labels", {}).get(NODE_GROUP) for node in nodes)
    if not can_grow:
        check_fits(demand, [node["Resources"] for node in nodes])
    return Cluster(started_here=started_here, can_grow=can_grow)


def _put_on_path(code_dir: Path) -> None:
    """Workers of a Ray started here inherit PYTHONPATH; the driver's own path is set by hand."""
    sys.path.insert(0, str(code_dir))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(code_dir) + (os.pathsep + before if before else "")
