"""A replica's own server behind the real HAProxy, configured and started as Ray Serve does it, but without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions

from raypipe.serve.app import ModelApp
from raypipe.serve.direct import Direct, start_server
from raypipe.serve.ingress import BINARY, ingress_env
from raypipe.serve.protocols import Call, Reply
from raypipe.spec.serve import ServeSpec
from tests.conftest import pick_ports

START_TIMEOUT_S = 30.0


class Noting(Direct):
    """What the replica's connections ask: it notes each request, and is healthy."""

    def __init__(self, proxied: Proxied) -> None:
        super().__init__(proxied.app)
        self._proxied = proxied

    async def answer(self, call: Call, *, alone: bool) -> Reply:
        self._proxied.asked.append((call.method, call.path))
        self._proxied.headers = list(call.headers.items())
        return await super().answer(call, alone=alone)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"success"})
            return
        self._proxied.asked.append((scope["method"], scope["path"]))
        self._proxied.headers = scope["headers"]
        await super().__call__(scope, receive, send)


class Proxied:
    """A running one.

    Attributes:
        app: the application that answers behind HAProxy.
        url: where HAProxy answers.
        folder: HAProxy's private one.
        haproxy: its process.
        server: the replica's.
        asked: method and path of every request that reached the replica.
        headers: of the last of them.
    """

    def __init__(self, app: ModelApp, spec: ServeSpec, folder: Path) -> None:
        self.app = app
        self.server: Any = None
        self.asked: list[tuple[str, str]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.folder = folder
        self._replica_port, metrics, stats = pick_ports(3)
        env = ingress_env(spec, folder)
        scheme = "http" if spec.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{spec.port}"
        self.port = spec.port
        self._program = env[BINARY]
        self._socket = folder / "a.sock"
        self._config = HAProxyConfig(
            socket_path=str(self._socket),
            server_state_base=str(folder),
            server_state_file=str(folder / "server-state"),
            maxconn=int(env["RAY_SERVE_HAPROXY_MAXCONN"]),
            nbthread=1,
            stats_port=stats,
            metrics_port=metrics,
            timeout_client_s=int(env["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]),
            timeout_server_s=int(env["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]),
            retry_on=env["RAY_SERVE_HAPROXY_RETRY_ON"],
            retries=int(env["RAY_SERVE_HAPROXY_RETRIES"]),
            bufsize=int(env["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
            metrics_enabled=False,
            log_target=str(folder / "log.sock"),
            http_options=HTTPOptions(host="127.0.0.1", port=spec.port),
            grpc_options=gRPCOptions(),
            has_received_routes=True,
            has_received_servers=True,
        )
        self._spec = spec
        self.haproxy = self._begin()

    def _begin(self, *more: str) -> psutil.Popen:
        server = ServerConfig("replica", "127.0.0.1", self._replica_port)
        backend = BackendConfig("http-model", self._spec.route_prefix, servers=[server], app_name="model")
        api = HAProxyApi(self._config, {"http-model": backend}, config_file_path=str(self.folder / "haproxy.cfg"))
        api._generate_config_file_internal()
        log = (self.folder / "haproxy.log").open("ab")
        with log:
            return psutil.Popen(
                [self._program, "-db", "-f", str(self.folder / "haproxy.cfg"), "-dR", *more], stdout=log, stderr=log
            )

    def reload(self) -> None:
        """As Ray does when replicas come and go: another HAProxy takes over the sockets of the one before."""
        before = self.haproxy
        self.haproxy = self._begin("-sf", str(before.pid), "-x", str(self._socket))
        before.wait(START_TIMEOUT_S)

    def serve(self, loop: asyncio.AbstractEventLoop) -> Any:
        """The replica's server, in a loop of its own thread."""
        options = SimpleNamespace(host="127.0.0.1", port=self._replica_port, keep_alive_timeout_s=90)
        return start_server(Noting(self), options, loop)

    def wait_until_answers(self) -> None:
        """Poll HAProxy's own health, which it tells once the replica answers it."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self.haproxy.poll() is None, self.log()
            with contextlib.suppress(httpx.TransportError), httpx.Client(verify=False, trust_env=False) as client:
                if client.get(f"{self.url}/-/healthz").status_code == 200:
                    return
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)  # HAProxy tells nobody when it is ready

    def log(self) -> str:
        """What HAProxy and its launcher said."""
        return (self.folder / "haproxy.log").read_text(errors="replace")[-4000:]

    def end_replica(self) -> None:
        """As if it had been killed: its port is closed, and HAProxy sees that."""
        self.server.should_exit = self.server.force_exit = True
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.server.started:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._replica_port), timeout=1):
                assert time.monotonic() < deadline
                time.sleep(0.05)
                continue
            return

    def stop(self) -> None:
        """End HAProxy."""
        if self.haproxy.poll() is None:
            self.haproxy.terminate()
            try:
                self.haproxy.wait(5)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                self.haproxy.kill()
                self.haproxy.wait(5)


@contextlib.contextmanager
def proxied(app: ModelApp, spec: ServeSpec, folder: Path) -> Iterator[Proxied]:
    """The application, answering behind HAProxy while the block runs.

    Args:
        spec: as the application's; its port must be free.
        folder: of this test alone, with a short name.
    """
    found = Proxied(app, spec, folder)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        task, server = found.serve(loop)
        found.server = server
        loop.call_soon(ready.set)
        loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run, name="replica")
    thread.start()
    try:
        assert ready.wait(START_TIMEOUT_S)
        found.wait_until_answers()
        yield found
    finally:
        found.stop()
        found.server.should_exit = True
        found.server.force_exit = True
        thread.join(START_TIMEOUT_S)
