"""What Ray Serve runs on this cluster, and what raypipe noted down about it in Ray's key-value store."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raypipe.errors import ServeError, masked
from raypipe.records import Endpoint, ModelVersion, Record
from raypipe.spec.serve import ServeSpec

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

ENDPOINTS = "raypipe/serve/endpoints/"
SWAPS = "raypipe/serve/swaps/"
AWAITED = "raypipe/serve/awaited/"
LISTENER = "raypipe/serve/listener"
UNPREPARED = "raypipe/serve/unprepared/"
NOT_STARTED = "NOT_STARTED"
"""How Serve says that there is no such application."""

BEHIND_HAPROXY = "127.0.0.1"
"""Where all of Serve but HAProxy itself listens on a single machine, whatever `serve.host` is."""

POLL_S = 0.05
SHUTDOWN_TIMEOUT_S = 60.0
MAX_REASON_CHARS = 300

FAILURE = re.compile(
    r"^.*?((?:HAProxy crashed during startup|HAProxy \(pid=\d+\) did not|\w+Error): .+)$", re.MULTILINE
)
"""How Serve's processes write down what ended them."""

ALERT = re.compile(r"^\[ALERT\] +\(\d+\) : (?:config : )?(.+)$", re.MULTILINE)
"""How HAProxy writes down why it does not start; what it only notices stands before."""


@dataclass(frozen=True)
class Listener:
    """Where and how the running Serve listens; fixed when it starts.

    Attributes:
        cert_file: of HTTPS; empty: HTTP.
    """

    host: str
    port: int
    ingress: str
    grpc_port: int | None = None
    cert_file: str = ""


class Deployed(Record):
    """An application that answered as it should, and all that brings it back."""

    endpoint: Endpoint
    model: ModelVersion
    spec: ServeSpec
    store_uri: str
    code_dir: str | None


def applications() -> dict[str, ApplicationStatusOverview]:
    """Name -> status of every application; empty where Serve does not run."""
    from ray import serve

    return dict(serve.status().applications)


def state_of(name: str) -> str:
    """Of an application: RUNNING, DEPLOYING, DEPLOY_FAILED, ...; NOT_STARTED where there is none.

    A question that may be asked often: for `applications` the controller describes all of Serve, and this process
    validates that.
    """
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return NOT_STARTED if client is None else str(client.get_serve_status(name).app_status.status.value)


def listener() -> Listener | None:
    """The running Serve's address, None where it does not run."""
    # serve.status() does not tell the address, and a Serve started by others is not in our notes
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    http = client.http_config
    noted = _get(LISTENER)
    if noted is not None:
        known = Listener(**json.loads(noted))
        if known.port == http.port and http.host in (known.host, BEHIND_HAPROXY):
            return known
    return Listener(str(http.host), int(http.port), "python")


def shut_down(*, behind_haproxy: bool = False) -> None:
    """Stop Serve with all its applications; replicas finish what they have, where their clients still hear it.

    Args:
        behind_haproxy: it is the only way to the replicas.
    Raises:
        ServeError: it still runs after SHUTDOWN_TIMEOUT_S.
    """
    import ray
    from ray import serve
    from ray.exceptions import RayActorError

    # serve.shutdown() alone waits on a call that dies with the controller, and Ray prints that on the driver's stdout,
    # where only results belong. So: ask, see the controller go, and only then let Serve drop its client.
    controller = _controller()
    if controller is None:
        return
    with suppress(RayActorError):  # it never came up, or goes at this moment
        ray.get(controller.graceful_shutdown.remote(wait=False), timeout=SHUTDOWN_TIMEOUT_S)
        if behind_haproxy:
            _end_replicas()
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
    while has_controller():
        if time.monotonic() > deadline:
            raise ServeError(f"Ray Serve still runs {SHUTDOWN_TIMEOUT_S:g} s after it was told to stop", "raypipe stop")
        time.sleep(POLL_S)  # Ray tells nobody when an actor has gone
    serve.shutdown()


def delete(name: str) -> None:
    """Take one application down; its replicas finish what they have.

    Raises:
        ServeError: it is still there after SHUTDOWN_TIMEOUT_S.
    """
    from ray import serve

    serve.delete(name, _blocking=False)  # which looks once a second
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
    while state_of(name) != NOT_STARTED:
        if time.monotonic() > deadline:
            raise ServeError(
                f"{name} is still there {SHUTDOWN_TIMEOUT_S:g} s after it was told to stop", "raypipe status"
            )
        time.sleep(POLL_S)  # Serve tells nobody when an application has gone


def _end_replicas() -> None:
    """Of a Serve that shuts down, which ends HAProxy at once: they would go on for a while, so that it can forget them
    without an error."""
    import ray
    from ray.serve._private.common import REPLICA_ID_FULL_ID_STR_PREFIX
    from ray.serve._private.constants import SERVE_NAMESPACE

    actors: list[Any] = ray.util.list_named_actors(all_namespaces=True)  # Ray's annotation is of the other form
    for actor in actors:
        if actor["namespace"] == SERVE_NAMESPACE and actor["name"].startswith(REPLICA_ID_FULL_ID_STR_PREFIX):
            with suppress(ValueError):  # it has gone meanwhile
                ray.kill(ray.get_actor(**actor))


def logged_reason(logs: Path) -> str:
    """Why Serve's controller or a proxy says it failed, which its answer to us does not tell; empty where nothing does.

    Args:
        logs: the folder `logs/serve` of a session of Ray on this machine.
    """
    files = sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        failures = list(FAILURE.finditer(text))
        if failures:
            reason = failures[-1][1].strip()
            alerts = ALERT.findall(text, failures[-1].end()) if "HAProxy" in reason else []
            return masked(": ".join([reason.partition(": [NOTICE]")[0], *alerts[:1]]))[:MAX_REASON_CHARS]
    return ""


def has_controller() -> bool:
    """Whether Serve runs, or comes up, or goes."""
    return _controller() is not None


def _controller() -> Any:
    """Of Serve; None where Ray knows none."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:  # how Ray says no
        return None


def note_listener(started: Listener) -> None:
    """Remember how Serve was started."""
    _put(LISTENER, json.dumps(asdict(started)))


def note_deployed(deployed: Deployed) -> None:
    """Remember what an application serves; a swap to it has ended."""
    _put(ENDPOINTS + deployed.endpoint.name, deployed.to_json().decode())
    forget_swap(deployed.endpoint.name)


def noted_deployed(name: str) -> Deployed | None:
    """What raypipe deployed under this application name; None for others' applications, and older raypipes'."""
    noted = _get(ENDPOINTS + name)
    try:
        return None if noted is None else Deployed.model_validate_json(noted)
    except ValidationError:
        return None


def forget_endpoint(name: str) -> None:
    """Drop the notes of an application that is gone."""
    _delete(ENDPOINTS + name)
    forget_swap(name)


def note_swap(name: str, version: int) -> None:
    """Remember that a version is about to take an application over, until that is done or undone."""
    _put(SWAPS + name, str(version))


def noted_swap(name: str) -> int | None:
    """The version whose swap began and has not ended: it goes on now, or its command was killed."""
    noted = _get(SWAPS + name)
    return None if noted is None else int(noted)


def forget_swap(name: str) -> None:
    """The swap was done or undone."""
    _delete(SWAPS + name)


def note_awaited(name: str, model: str) -> None:
    """Tell replicas of an application that wait for their model; see serve/awaited.py for the values."""
    _put(AWAITED + name, model)


def noted_awaited(name: str) -> str | None:
    """What replicas that wait were told; empty: nothing yet; None where none ever waited."""
    noted = _get(AWAITED + name)
    return None if noted is None else noted.decode()


def note_unprepared(node: str, reason: str) -> None:
    """Remember why a node, given by its id, has no ingress; an empty reason: it has one."""
    if reason:
        _put(UNPREPARED + node, reason)
    else:
        _delete(UNPREPARED + node)


def noted_unprepared() -> dict[str, str]:
    """Id of a node, which may be gone -> why it has no ingress."""
    from ray.experimental import internal_kv

    ids = [key.decode().removeprefix(UNPREPARED) for key in internal_kv._internal_kv_list(UNPREPARED)]
    return {each: found.decode() for each in ids if (found := _get(UNPREPARED + each)) is not None}


def forget_unprepared() -> None:
    """Of the Serve that has ended, or is about to start."""
    for node in noted_unprepared():
        _delete(UNPREPARED + node)


def _delete(key: str) -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(key)


def _get(key: str) -> bytes | None:
    from ray.experimental import internal_kv

    return internal_kv._internal_kv_get(key)


def _put(key: str, value: str) -> None:
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(key, value, overwrite=True)
