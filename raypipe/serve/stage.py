"""ModelVersion -> Endpoint: start, wait until healthy, ask it over HTTP, or undo.

start Serve (the port is free) -> the model is tried in another process -> deploy -> healthy -> probe -> Endpoint
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from raypipe.errors import RaypipeError, ServeError, find_known
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import task_of
from raypipe.records import Endpoint, ModelVersion
from raypipe.runtime.connect import is_on_this_machine_alone
from raypipe.runtime.context import RunContext
from raypipe.runtime.each_node import HEAD, addresses_of, alive_nodes
from raypipe.runtime.resources import ray_bundle
from raypipe.serve import awaited, running
from raypipe.serve.app import ModelApp
from raypipe.serve.deployment import prefix, run_application
from raypipe.serve.keys import own_digest
from raypipe.serve.probe import expected_answers, probe, wait_reachable
from raypipe.serve.ray_serve import last_line, listener_of, shut_down, start
from raypipe.serve.running import Deployed, Listener
from raypipe.spec.serve import EVERYWHERE, ServeSpec

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

STAGE = "serve"
POLL_S = 0.1

__all__ = ["deploy", "status", "stop"]


def deploy(
    spec: ServeSpec, model: ModelVersion, ctx: RunContext, *, probe_rows: list[dict[str, Any]] | None = None
) -> Endpoint:
    """Serve a model version on the Ray cluster this process is connected to.

    Args:
        probe_rows: rows to ask the new endpoint; its answers must equal those of another process to 1e-6.
    Returns:
        The endpoint, with the probe's request and answer.
    Raises:
        PortInUseError: another program listens on the port; nothing was started.
        ServeError: it did not become healthy in time (with the replica's own reason), or answers wrongly. What was
            served under this name before is put back; a first version is taken down.
        DigestMismatch, ArtifactError, ModelError: the model cannot be loaded; what was served before is.
    """
    tried = _try(model, probe_rows, spec, ctx)
    is_first = running.listener() is None
    listener = listener_of(spec) if is_first else start(spec)
    endpoint = _endpoint(spec, model, listener)
    deployed = Deployed(
        endpoint=endpoint,
        model=model,
        spec=spec,
        store_uri=ctx.store.uri,
        code_dir=None if ctx.code_dir is None else str(ctx.code_dir),
    )
    was_awaited = not is_first and awaited.is_awaited(endpoint.name)
    begun = was_awaited and awaited.tell(endpoint.name, model)
    is_swap = not is_first and not was_awaited and running.state_of(endpoint.name) != running.NOT_STARTED
    expected = tried() if is_swap else None
    ctx.progress.say(STAGE, f"{model.model}@{model.version} starts behind {listener.ingress} on port {listener.port}")
    deadline = time.monotonic() + spec.start_timeout_s
    if is_swap:
        running.note_swap(endpoint.name, model.version)
    try:
        if is_first:
            start(spec, beside=partial(_run, deployed))
        elif not begun:
            _run(deployed)
        if not is_swap:  # nobody is served yet: the replica starts while the model is tried
            expected = tried()
        _wait_running(endpoint.name, deadline, spec)
        wait_reachable(endpoint, deadline)
        if probe_rows and expected is not None:
            task = task_of(model.signature)
            details = [column.name for column in task.columns_of("detail")]
            writes = task if task.answers_texts else None
            answered = probe(endpoint, probe_rows, expected, spec, deadline, details=details, writes=writes)
            endpoint = endpoint.model_copy(update={"probe": answered})
    except BaseException as error:
        undone = _undo(endpoint.name, is_swap=is_swap)
        if undone:
            ctx.progress.say(STAGE, undone)
        if isinstance(error, ServeError) and undone:
            raise ServeError(f"{error.message}; {undone}", error.hint) from error
        raise
    running.note_deployed(deployed.model_copy(update={"endpoint": endpoint}))
    ctx.progress.say(STAGE, f"{model.model}@{model.version} answers at {endpoint.url}", url=endpoint.url)
    return endpoint


def _try(model: ModelVersion, rows: list[dict[str, Any]] | None, spec: ServeSpec, ctx: RunContext) -> Callable[[], Any]:
    """Begins to try keys and model apart from this process, where loading torch would take longer than the rest.

    Returns:
        Waits for what it answers. Raises what `deploy` does where it cannot be loaded.
    """
    import ray

    # On a cluster the keys may be where replicas run and nowhere else.
    auth = spec.auth if is_on_this_machine_alone() else None
    args = (ctx.store.uri, model.artifact, ctx.code_dir, rows, spec.max_request_rows, auth)
    in_trained = ctx.workers.call(expected_answers, *args) if ctx.workers else None
    task = ray.remote(expected_answers).options(num_cpus=0)
    return partial(_tried, in_trained or task.remote(*args), partial(task.remote, *args))


def _tried(trying: Any, again: Callable[[], Any] | None) -> Predictions | None:
    import ray
    from ray.exceptions import RayError

    try:
        outcome: Any = ray.get(trying)
    except RayError as error:
        if again is not None:
            return _tried(again(), None)
        raise find_known(error) or ServeError(
            f"the model could not be tried: {last_line(str(error))}", "see the cluster's memory: ray status"
        ) from None
    if isinstance(outcome, RaypipeError):
        raise outcome
    return outcome


def _undo(name: str, *, is_swap: bool) -> str:
    """Take down what failed, and put back what was served under its name before.

    Returns:
        What came of it, in words; empty where there was nothing before.
    """
    if not is_swap:
        if running.state_of(name) != running.NOT_STARTED:
            stop(name)
        return ""
    before = running.noted_deployed(name)
    if before is None:
        running.forget_endpoint(name)  # a note that says no more than its version would not be true now
        return (
            f"what was served as '{name}' before was not deployed by this raypipe and cannot be put back: the version "
            f"that failed may still answer (raypipe status, raypipe stop {name})"
        )
    version = f"{before.model.model}@{before.model.version}"
    deadline = time.monotonic() + before.spec.start_timeout_s
    try:
        _run(before)
        _wait_running(name, deadline, before.spec)
        wait_reachable(before.endpoint, deadline)
    except ServeError as error:
        return f"{version}, which was served before, could not be put back: {error.message}"
    running.forget_swap(name)
    return f"{version}, which was served before, answers again"


def status() -> list[dict[str, Any]]:
    """Applications of this cluster: name, state, replicas, message; url, model, version where raypipe deployed it."""
    closed = _nodes_without_ingress()
    return [_row(name, application, closed) for name, application in sorted(running.applications().items())]


def _nodes_without_ingress() -> str:
    """Which nodes, that may have replicas, do not answer clients themselves, and the first one's reason."""
    reasons = running.noted_unprepared()
    nodes = [node for node in alive_nodes() if node["NodeID"] in reasons] if reasons else []
    return f"no ingress on {addresses_of(nodes)}: {reasons[nodes[0]['NodeID']]}" if nodes else ""


def stop(name: str | None = None) -> list[str]:
    """Delete an application, or all; Serve itself stops with the last one.

    Returns:
        Names of what was deleted.
    Raises:
        ServeError: no such application, or it does not end in time.
    """
    there = sorted(running.applications())
    if name is not None and name not in there:
        raise ServeError(
            f"no application '{name}' runs on this cluster; running: {', '.join(there) or 'none'}", "raypipe status"
        )
    leaving = there if name is None else [name]
    for each in leaving:
        awaited.give_up(each)
    listener = running.listener()
    if leaving == there and listener is not None:
        shut_down(listener.port)
    elif leaving:
        running.delete(leaving[0])
    for each in leaving:
        running.forget_endpoint(each)
    return leaving


def _run(deployed: Deployed) -> None:
    spec, model = deployed.spec, deployed.model
    args = (
        deployed.store_uri,
        model.model_dump_json(),
        deployed.code_dir,
        spec.model_dump_json(),
        own_digest(spec.auth),
    )
    run_application(spec, model.model, ModelApp, args)


def _wait_running(name: str, deadline: float, spec: ServeSpec) -> None:
    while (state := running.state_of(name)) != "RUNNING":
        if state in ("DEPLOY_FAILED", "UNHEALTHY"):
            reason = _reason(running.applications().get(name))
            raise ServeError(f"{name} did not start: {reason}", "see the replica's log: raypipe status")
        if time.monotonic() > deadline:
            raise ServeError(
                f"{name} was not healthy within {spec.start_timeout_s:g} s: {_why_late(name, spec)}",
                "lower serve.resources or serve.min_replicas, add nodes, or raise serve.start_timeout_s",
            )
        time.sleep(POLL_S)  # Serve tells nobody when a state changes


def _why_late(name: str, spec: ServeSpec) -> str:
    """What a replica that never came up waits for, as far as one can see from here."""
    import ray

    said = _reason(running.applications().get(name))
    needs, free = ray_bundle(spec.resources), ray.available_resources()
    lacking = [f"{kind} {amount:g}, free {free.get(kind, 0.0):g}" for kind, amount in needs.items()]
    if any(amount > free.get(kind, 0.0) for kind, amount in needs.items()):
        said = f"one replica needs {'; '.join(lacking)}. {said}"
    return said.strip() or "its replicas are still loading the model"


def _reason(application: ApplicationStatusOverview | None) -> str:
    """The replica's own words, out of Serve's message about it; empty where Serve says nothing."""
    if application is None:
        return ""
    texts = [deployment.message for deployment in application.deployments.values()] + [application.message]
    return last_line(next((text for text in texts if text), ""))


def _row(name: str, application: ApplicationStatusOverview, closed: str) -> dict[str, Any]:
    known = running.noted_deployed(name)
    swap = running.noted_swap(name)
    states = [deployment.replica_states for deployment in application.deployments.values()]
    # A state is its own name, as text; the type that says so is private to Serve.
    replicas = sum(each.get("RUNNING", 0) for each in states)  # pyright: ignore[reportCallIssue, reportArgumentType]
    noted = (
        known.endpoint.model_dump(include={"model", "version", "url", "min_replicas", "max_replicas", "ingress"})
        if known
        else {}
    )
    state = application.status.value
    return {
        "name": name,
        "state": state,
        "replicas": replicas,
        "message": "; ".join(each for each in (_message(state, application, swap), closed) if each),
    } | noted


def _message(state: str, application: ApplicationStatusOverview, swap: int | None) -> str:
    said = "" if state == "RUNNING" else _reason(application)
    if swap is None:
        return said
    return f"a swap to version {swap} has begun and not ended; either version may answer. {said}".rstrip()


def _endpoint(spec: ServeSpec, model: ModelVersion, listener: Listener) -> Endpoint:
    host = _reachable(listener.host)
    return Endpoint(
        name=model.model,
        url=f"{'http' if spec.tls is None else 'https'}://{host}:{listener.port}{prefix(spec)}",
        grpc=None if spec.grpc_port is None else f"{host}:{spec.grpc_port}",
        model=model.model,
        version=model.version,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        ingress="haproxy" if listener.ingress == "haproxy" else "python",
        needs_key=spec.auth is not None,
        cert_file=None if spec.tls is None else spec.tls.cert_file,
    )


def _reachable(host: str) -> str:
    """An address to call: a server that listens everywhere is reached at the head, where Serve always has a proxy."""
    if host in EVERYWHERE:
        (address,) = [node["NodeManagerAddress"] for node in alive_nodes() if HEAD in node["Resources"]]
        host = str(address)
    return f"[{host}]" if ":" in host else host
