"""What Ray and its processes find in their environment, and what they say to the terminal."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from raypipe.runtime.start import PATIENCE_ENV
from raypipe.spec.addresses import refuse_userinfo
from raypipe.spec.code import ALLOW_MODULES

ANY_ENV = {
    # Train drains its report queue once per poll, and datasource V2 starts up to 32 actors to read one small file.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # What Ray Data finds wrong is told by us, in the user's words; its loggers take their level when they are imported.
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
}
"""Set in this process and in those of any cluster, unless the user set them."""

PASSED_ON = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION"),
    *("MLFLOW_TRACKING_URI", ALLOW_MODULES),
)
"""Where a store is and where figures go, never how to get in: credentials are the cluster's own. Job settings are shown
in its dashboard. And which installed modules the caller lets a model name."""

LOCAL_ENV = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray gives its workers the least share of a core there is (nice 15): beside a busy editor or browser nothing moves.
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Whatever the name says: off, every Ray process takes the loopback address for its node's, and listens there alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **PATIENCE_ENV,
}
"""Set as well before a local Ray starts: workers prestarted for nothing slow a laptop down. Measured to halve the
start of a small run. RAY_AUTH_MODE is not among them: a local Ray asks for a token by itself, and setting it once ray
is imported makes the server want a token that was never made."""

QUIET = (
    *("ray", "ray.train", "ray.tune", "ray.serve"),
    *("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"),  # the client of jobs
)


QUIET_DATA = ("ray.data",)


def hush() -> None:
    """Keep Ray's own log lines off the screen; Serve turns its own on again when it is imported."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in QUIET_DATA:
        logging.getLogger(name).setLevel(os.environ.get("RAY_DATA_LOG_LEVEL") or ANY_ENV["RAY_DATA_LOG_LEVEL"])


def loopback_env() -> dict[str, str]:
    """Where training processes of one machine find each other: gloo and NCCL look for a network on their own."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {variable: names[0] for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if names}


@contextmanager
def constants_of_environment(*, loopback: bool | None = None) -> Iterator[None]:
    """Ray as it would be if it had been imported just now: it reads two of our settings once, when it is imported.

    Args:
        loopback: whether this machine's address is the loopback one; unset: as the environment says.
    """
    from ray._private import ray_constants as constants

    before = constants.ENABLE_RAY_CLUSTER, constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S
    if loopback is None:
        loopback = os.environ.get(constants.ENABLE_RAY_CLUSTERS_ENV_VAR) == "0"
    constants.ENABLE_RAY_CLUSTER = not loopback
    constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = int(os.environ.get("RAY_DASHBOARD_STARTUP_TIMEOUT_S", before[1]))
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER, constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = before


@contextmanager
def without_watchers() -> Iterator[None]:
    """Ray starts without its autoscaler, the process that brings logs to the driver, and the server that shows a
    cluster's state (`include_dashboard=False` leaves a smaller one): here is one machine, which nobody looks at from
    outside. They take 1.7 CPU-seconds, and `ray.init` has no argument for them."""
    from ray._private import parameter
    from ray._private.node import Node

    before = parameter.RayParams, Node.start_api_server
    parameter.RayParams = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)  # pyright: ignore[reportArgumentType]  (Ray's annotation is wrong)
    Node.start_api_server = lambda self, *, include_dashboard, raise_on_failure: None
    try:
        yield
    finally:
        parameter.RayParams, Node.start_api_server = before


def passed_on() -> dict[str, str]:
    """What processes of a cluster that runs already must be told of this one's environment.

    Raises:
        SpecError: an address holds a password, which everyone who sees the cluster's dashboard would see.
    """
    told = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for name, value in told.items():
        refuse_userinfo(name, value)
    return told


def put_on_path(code_dir: Path) -> None:
    """Workers of a Ray started here inherit PYTHONPATH; the driver's own path is set by hand."""
    sys.path.insert(0, str(code_dir))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(code_dir) + (os.pathsep + before if before else "")
