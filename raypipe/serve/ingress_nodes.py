"""HAProxy on a cluster of several nodes: it is prepared on each node by whatever process of Serve comes there first.

Ray Serve runs a proxy on the head and on every node with a replica, those included that join the cluster later. Nobody
but Ray knows where the next one starts. So nothing is sent ahead: the controller's environment, which all processes of
Serve inherit, names `prepare` as what Ray calls when a process of it starts, before Serve is imported there. It writes
rules and launcher on its own node, takes the certificate from that node's own files, and points Serve at the launcher.
Until then the program that Serve starts as HAProxy is named by a sentence, which is no file. A node that cannot be
prepared has no ingress; it never has an open one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raypipe.errors import PortInUseError, RaypipeError, ServeError
from raypipe.runtime.each_node import HEAD, Node, addresses_of, ask_each
from raypipe.serve import certificate, running
from raypipe.serve.ingress import (
    BINARY,
    THREADS,
    USUAL_PORTS,
    check_port_free,
    haproxy_binary,
    node_env,
    private_folder,
    shared_env,
)
from raypipe.spec.serve import ServeSpec

HOOK = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Names a function that Ray calls when a process has started, before it does anything else there. What Ray's
`worker_process_setup_hook` sets for a whole job; here it is for the processes of Serve alone."""

ASKED = "RAYPIPE_INGRESS"
"""What `prepare` is told: {"start": which Serve this is, "binary": HAProxy, "spec": of the first application}. No
secret is in it: keys and certificates are named by their files."""

NOT_PREPARED = "raypipe has not prepared this node"
PREPARED = "prepared.json"
"""In HAProxy's folder on a node: which Serve it was prepared for, and its environment."""

FOLDER = "/tmp/raypipe-{port}-{node}"
"""Short and on every node; of the node's id the first characters, so that two nodes may share a machine."""

ID_CHARS = 8


def cluster_env(spec: ServeSpec) -> dict[str, str]:
    """Environment that Ray Serve's controller needs, wherever its proxies run.

    Raises:
        ServeError: this job has such a function of its own.
    """
    import ray

    hook = f"{__name__}.{prepare.__name__}"
    other = (ray.get_runtime_context().runtime_env.get("env_vars") or {}).get(HOOK, hook)
    if other != hook:
        raise ServeError(
            "HAProxy on several nodes needs worker_process_setup_hook, which this job's runtime_env sets already",
            "leave it out of the job that deploys, or set serve.ingress: python",
        )
    asked = {
        "start": secrets.token_hex(8),
        "binary": os.environ.get(BINARY, ""),
        "spec": spec.model_dump(mode="json"),
    }
    users = {name: os.environ[name] for name in (THREADS, *USUAL_PORTS) if name in os.environ}
    return shared_env(spec) | users | {BINARY: NOT_PREPARED, HOOK: hook, ASKED: json.dumps(asked)}


def check_nodes(spec: ServeSpec, nodes: list[Node]) -> None:
    """See on each node that is there now whether HAProxy can start as the file says; on the head the ports as well.

    Raises:
        PortInUseError: another program listens on a port of the head.
        ServeError: a node lacks HAProxy, or its own files of `serve.tls` cannot be served with.
        ClusterError: a node did not answer.
    """
    lacking = ask_each(nodes, _lacks, spec.model_dump_json(), os.environ.get(BINARY, ""))
    found = [(node, lacks) for node, lacks in zip(nodes, lacking, strict=True) if lacks is not None]
    if found:
        message, hint = found[0][1]
        same = [node for node, lacks in found if lacks == found[0][1]]
        raise ServeError(
            f"{message} (on {len(same)} of the cluster's {len(nodes)} nodes: {addresses_of(same)}); HAProxy may run on "
            "any of them",
            hint,
        )
    (taken,) = ask_each([node for node in nodes if HEAD in node["Resources"]][:1], _taken, spec.model_dump_json())
    if taken is not None:
        raise (PortInUseError if taken[2] else ServeError)(f"{taken[0]} (on the head node)", taken[1])


def _lacks(spec_json: str, binary: str) -> tuple[str, str] | None:
    """Message and hint; None where this node lacks nothing."""
    spec = ServeSpec.model_validate_json(spec_json)
    try:
        _name_binary(binary)
        haproxy_binary()
        if spec.tls is not None:
            certificate.check(spec.tls)
    except ServeError as error:
        return error.message, error.hint
    return None


def _taken(spec_json: str) -> tuple[str, str, bool] | None:
    """Message, hint, and whether another program has it; None where this node's ports can be listened on."""
    spec = ServeSpec.model_validate_json(spec_json)
    try:
        check_port_free(spec.host, spec.port)
        if spec.grpc_port is not None:
            check_port_free(spec.host, spec.grpc_port, "serve.grpc_port")
    except ServeError as error:
        return error.message, error.hint, isinstance(error, PortInUseError)
    return None


def prepare() -> None:
    """In a process of Serve that starts: have HAProxy ready on this node, or say why it is not.

    Never raises: Ray would end the process, and start it again for ever.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    reason = ""
    try:
        if "ray.serve._private.constants" in sys.modules:
            raise ServeError("Ray Serve was imported before raypipe was called")  # it has read that there is no program
        asked = json.loads(os.environ[ASKED])
        _name_binary(asked["binary"])
        os.environ.update(_prepared(ServeSpec.model_validate(asked["spec"]), asked["start"], node))
    except Exception as error:
        reason = error.message if isinstance(error, RaypipeError) else f"{type(error).__name__}: {error}"
        os.environ[BINARY] = f"raypipe does not start HAProxy on {socket.gethostname()}: {reason}"
    with suppress(Exception):  # only a note
        running.note_unprepared(node, reason)


def _prepared(spec: ServeSpec, start: str, node: str) -> dict[str, str]:
    """Environment of this node's processes of Serve, made by the first of them."""
    folder = private_folder(folder_of(spec.port, node))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / PREPARED
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("start") != start:
            path.unlink(missing_ok=True)
            kept = {"start": start, "env": node_env(spec, folder)}
            path.write_text(json.dumps(kept), encoding="utf-8")
    return kept["env"]


def _name_binary(binary: str) -> None:
    """What `haproxy_binary` looks at first: the one that the driver's user has named, or none."""
    os.environ.pop(BINARY, None)
    if binary:
        os.environ[BINARY] = binary


def folder_of(port: int, node: str) -> Path:
    """Of HAProxy on a node; the same for all of Serve's processes there."""
    return Path(FOLDER.format(port=port, node=node[:ID_CHARS]))


def forget_on(nodes: list[Node], port: int) -> None:
    """Remove HAProxy's files on these nodes, once it has stopped.

    Raises:
        ClusterError: a node did not answer.
    """
    ask_each(nodes, _forgetting(), FOLDER, port, ID_CHARS)


def _forgetting() -> Callable[[str, int, int], None]:
    def forget(folder: str, port: int, id_chars: int) -> None:
        """Local, and so sent whole: who stops an endpoint does not send raypipe to the nodes."""
        import shutil

        import ray

        node = ray.get_runtime_context().get_node_id()
        shutil.rmtree(folder.format(port=port, node=node[:id_chars]), ignore_errors=True)

    return forget
