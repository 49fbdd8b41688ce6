"""Ray Serve itself, before any application: started once or joined, and shut down."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from raypipe.errors import ClusterError, ServeError
from raypipe.runtime.connect import folder_of_ray_here, is_on_this_machine_alone, session_logs
from raypipe.runtime.each_node import alive_nodes
from raypipe.runtime.resources import can_grow
from raypipe.serve import ingress_nodes, running
from raypipe.serve.grpc_inference import grpc_env, grpc_options
from raypipe.serve.ingress import check_port_free, choose_ingress, forget_files, ingress_env
from raypipe.serve.running import Listener
from raypipe.spec.serve import EVERYWHERE, LOOPBACK, ServeSpec

TIMEOUT_GRACE_S = 1.0
"""A replica answers a late request itself, in JSON; Serve's own deadline comes after that."""

MAX_REASON_CHARS = 500

POLL_S = 0.05


def start(spec: ServeSpec, beside: Callable[[], None] | None = None) -> Listener:
    """Start Serve, or join the one that runs.

    Args:
        beside: an application to deploy, done as soon as Serve's controller is up: replicas need not wait for proxies.
    Raises:
        PortInUseError: another program listens on the port.
        ServeError: it does not start, or listens elsewhere, or what `beside` raises.
    """
    import ray.serve  # noqa: F401  (importing it turns INFO on, which the next line undoes)

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    _check_keys(spec)
    found = running.listener()
    if found is not None and (found.host, found.port) != (spec.host, spec.port):
        raise ServeError(
            f"Ray Serve listens on {found.host}:{found.port} on this cluster already; "
            f"the file asks for {spec.host}:{spec.port}",
            f"--set serve.host={found.host} --set serve.port={found.port}, or stop it first: raypipe stop",
        )
    if found is not None and found.cert_file != _cert_file(spec):
        raise ServeError(
            f"Ray Serve listens on {found.host}:{found.port} on this cluster already, "
            f"{f'with the certificate {found.cert_file}' if found.cert_file else 'without TLS'}",
            "give the same serve.tls, or stop it first: raypipe stop",
        )
    if found is not None:
        _check_grpc(spec, found)
        if beside is not None:
            beside()
        return found
    _check_host(spec)
    _check_start(spec)
    with ThreadPoolExecutor(1, "raypipe-serve") as pool:
        started = pool.submit(_start_serve, spec)
        while beside is not None and not started.done() and not running.has_controller():
            time.sleep(POLL_S)  # Ray tells nobody when an actor has come
        if beside is not None and (not started.done() or started.exception() is None):
            try:
                beside()
            except Exception:
                started.result()  # where Serve itself did not start, its reason is the one that counts
                raise
        return started.result()


def _check_grpc(spec: ServeSpec, found: Listener) -> None:
    if spec.grpc_port not in (None, found.grpc_port):
        raise ServeError(
            f"Ray Serve runs on this cluster already {_with_grpc(found.grpc_port)}; the file asks for serve.grpc_port: "
            f"{spec.grpc_port}",
            "leave serve.grpc_port as it runs, or stop it first: raypipe stop",
        )


def _with_grpc(port: int | None) -> str:
    return "without gRPC" if port is None else f"with gRPC on port {port}"


def _check_host(spec: ServeSpec) -> None:
    """HAProxy of one node reaches replicas of others at the address they listen on, which is `serve.host` too."""
    if not _has_several_nodes() or choose_ingress(spec) != "haproxy":
        return
    is_number = ":" in spec.host or not spec.host.strip("0123456789.")
    if spec.host in LOOPBACK or (is_number and spec.host not in EVERYWHERE):
        raise ServeError(
            f"serve.host: {spec.host} reaches one machine only, but replicas of this cluster may run on others",
            "--set serve.host=0.0.0.0 on a network you control, or --set serve.ingress=python",
        )


def _check_keys(spec: ServeSpec) -> None:
    """Whoever takes TLS off hands keys on to replicas, which check them, as they are."""
    if spec.auth is not None and not spec.allow_plaintext_keys and _has_several_nodes():
        raise ServeError(
            "serve.auth on a cluster of several nodes would send keys in the clear from the node that a client asks to "
            "the one that answers, with serve.tls too",
            "--set serve.allow_plaintext_keys=true where the network between the nodes is yours alone or encrypted",
        )


def _has_several_nodes() -> bool:
    nodes = alive_nodes()
    return len(nodes) > 1 or can_grow(nodes)


def _check_start(spec: ServeSpec) -> None:
    """What can be known to fail is told before anything starts."""
    if not is_on_this_machine_alone() and choose_ingress(spec) == "haproxy":
        ingress_nodes.check_nodes(spec, alive_nodes())
        return
    check_port_free(spec.host, spec.port)
    if spec.grpc_port is not None:
        check_port_free(spec.host, spec.grpc_port, "serve.grpc_port")


def _start_serve(spec: ServeSpec) -> Listener:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.schema import LoggingConfig

    alone = is_on_this_machine_alone()
    with_haproxy = choose_ingress(spec) == "haproxy"
    # HAProxy reaches replicas of its own machine over loopback; nobody else needs to reach them beside it.
    is_hidden = alone and with_haproxy and spec.host not in LOOPBACK
    host = running.BEHIND_HAPROXY if is_hidden else spec.host
    timeout_s = spec.request_timeout_s + TIMEOUT_GRACE_S
    http = {"host": host, "port": spec.port, "request_timeout_s": timeout_s}
    # Reaches the controller of a Ray that runs already; the driver's own environment would not.
    by_node = with_haproxy and not alone
    env = ingress_nodes.cluster_env(spec) if by_node else ingress_env(spec, folder_of_ray_here())
    controller = {"runtime_env": {"env_vars": env | grpc_env(spec, host)}}
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    try:
        serve.start(
            http_options=http,
            grpc_options=grpc_options(spec, timeout_s),
            logging_config=quiet,
            controller_options=controller,
        )
    except (RayError, RuntimeError, TimeoutError) as error:
        reason = running.logged_reason(session_logs() / "serve") or last_line(str(error))
        with suppress(RayError, ServeError):  # the first reason is the one that counts
            shut_down(spec.port)
        raise ServeError(
            f"Ray Serve did not start on port {spec.port}: {reason}",
            f"see the logs under {session_logs() / 'serve'}, or set serve.ingress: python",
        ) from None
    started = listener_of(spec)
    running.note_listener(started)
    return started


def listener_of(spec: ServeSpec) -> Listener:
    """Where a Serve that is started as the file says listens."""
    return Listener(spec.host, spec.port, choose_ingress(spec), spec.grpc_port, _cert_file(spec))


def _cert_file(spec: ServeSpec) -> str:
    return "" if spec.tls is None else spec.tls.cert_file


def shut_down(port: int | None = None) -> None:
    """Stop Serve with all its applications and remove HAProxy's files, on this machine and on the cluster's nodes.

    Args:
        port: where Serve listens; unset: it is asked.
    Raises:
        ServeError: it does not stop in time.
    """
    listener = running.listener()
    if port is None:
        port = None if listener is None else listener.port
    running.shut_down(behind_haproxy=listener is not None and listener.ingress == "haproxy")
    running.forget_unprepared()
    if port is not None:
        forget_files(port)
        if not is_on_this_machine_alone():
            with suppress(ClusterError):  # a node that does not answer keeps them, in a folder of its user's alone
                ingress_nodes.forget_on(alive_nodes(), port)


def last_line(text: str) -> str:
    """The error itself, out of a quoted traceback or a message in many lines."""
    errors = re.findall(r"^(?:[\w.]+\.)?([A-Z]\w+): (.+)$", text, re.MULTILINE)
    if "Traceback" in text or "ray::" in text:
        return ": ".join(errors[-1]) if errors else text.strip().splitlines()[-1]
    return " ".join(text.split())[:MAX_REASON_CHARS]
