"""Requests go from the replica's HTTP server straight to the application, and answers leave in one piece.

Ray 2.60's own way there makes three tasks, a request context and a dozen wrappers a request: half of the 350 us that a
small model's answer took (measured), and what it refuses itself (a full queue, a time limit) it refuses in plain text.
The counts and latencies by which Ray scales, drains and reports on replicas are kept up.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raypipe.serve.replica_port import rays_replica

START_SERVER = "start_asgi_http_server"
"""The function of Ray's replica that starts the HTTP server; there is no setting."""

RAYS_PATHS = "/-/"
"""Health and routes of the replica, which HAProxy asks for."""

IN_FLIGHT = "raypipe.in_flight"
"""In a request's scope: the requests that have reached this replica, itself among them."""

HAS_ARRIVED = "raypipe.has_arrived"
"""In a request's scope: whether all of its body is here."""

STATUS = "raypipe.status"
"""In a request's scope, once it is answered: with what."""

BATCH = 64
"""Requests told of together; telling takes some ten microseconds each, and the event loop is for everybody."""

TELL_S = 1.0
"""Longest until Ray is told."""

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Together:
    """A transport that can hold what is written: header and body of an answer then leave in one call.

    Args:
        inner: the connection.
        in_flight: the server's requests.
    """

    def __init__(self, inner: Any, in_flight: Collection[Any]) -> None:
        self._inner = inner
        self.in_flight = in_flight
        self._held: list[bytes] | None = None

    def hold(self) -> None:
        """Keep what is written from now on until `release`."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Send what is held."""
        held, self._held = self._held, None
        if held and not self._inner.is_closing():
            self._inner.write(b"".join(held))

    def write(self, data: bytes) -> None:
        """Send, or hold."""
        if self._held is None:
            self._inner.write(data)
        else:
            self._held.append(data)

    def close(self) -> None:
        self.release()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TogetherProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Together(transport, self.tasks))  # pyright: ignore[reportArgumentType]


def answer_directly(application: Asgi) -> None:
    """In a replica, before Ray starts its server: have it start ours, which calls this application.

    Args:
        application: ASGI; called for every request below the route prefix that is not Ray's own.
    """
    replica = rays_replica()
    if replica is None:
        return

    async def start(
        rays: Asgi, options: Any, *, event_loop: asyncio.AbstractEventLoop, enable_so_reuseport: bool = False
    ) -> tuple[asyncio.Task[None], uvicorn.Server]:
        return start_server(_direct(rays, application), options, event_loop)

    setattr(replica, START_SERVER, start)


def in_one_piece(application: Asgi) -> Asgi:
    """The application for a server with TogetherProtocol: header and body of its answers leave in one call."""

    async def together(scope: Any, receive: Any, send: Any) -> None:
        cycle = send.__self__  # uvicorn's request
        transport = cycle.transport
        scope[IN_FLIGHT] = transport.in_flight
        scope[HAS_ARRIVED] = not cycle.more_body

        async def held(message: Any) -> None:
            if message["type"] == "http.response.start":
                scope[STATUS] = str(message["status"])
                transport.hold()
            await send(message)
            if message["type"] == "http.response.body":
                transport.release()

        try:
            await application(scope, receive, held)
        finally:
            transport.release()

    return together


def start_server(
    application: Asgi, options: Any, loop: asyncio.AbstractEventLoop
) -> tuple[asyncio.Task[None], uvicorn.Server]:
    """Listen as Ray's HTTPOptions say; the task ends with the server.

    Raises:
        RuntimeError: the port cannot be listened on; Ray then tries another.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        raise RuntimeError(f"cannot listen on {options.host}:{options.port}") from error
    config = uvicorn.Config(
        lambda: application,
        factory=True,
        http=TogetherProtocol,
        ws="none",
        lifespan="off",
        loop="none",
        timeout_keep_alive=options.keep_alive_timeout_s,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    return loop.create_task(server.serve(sockets=[listener])), server


class Metrics:
    """What Ray's replica counts a request, told to it in batches: one by one it takes a tenth of a request's time."""

    def __init__(self, replica: Any) -> None:
        from ray.serve._private.common import RequestMetadata, RequestProtocol

        self._metrics = replica._metrics_manager
        self._protocol = RequestProtocol.HTTP
        self._route = replica._route_prefix or "/"
        self._name = replica._deployment_id
        self._request = RequestMetadata(
            request_id="",
            internal_request_id="",
            is_streaming=True,
            _request_protocol=RequestProtocol.HTTP,
            is_direct_ingress=True,
        )
        self._ended: list[tuple[str, str, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A request is in flight."""
        self._metrics.inc_num_ongoing_requests(self._request)

    def end(self, method: str, status: str, latency_s: float) -> None:
        """It no longer is.

        Args:
            status: HTTP's; empty where no answer was sent.
        """
        self._metrics.dec_num_ongoing_requests(self._request)
        self._ended.append((method, status, latency_s * 1000))
        if len(self._ended) >= BATCH:
            self.tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_S, self.tell)

    def tell(self) -> None:
        """Tell Ray what has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        for method, status, latency_ms in ended:
            self._metrics.record_request_metrics(
                route=self._route, latency_ms=latency_ms, is_error=not status or status >= "500"
            )
            self._metrics.record_ingress_request_metrics(
                protocol=self._protocol,
                method=method,
                route=self._route,
                app_name=self._name.app_name,
                deployment_name=self._name.name,
                latency_ms=latency_ms,
                is_error=not status or status >= "400",
                status_code=status or "499",
            )


def _direct(rays: Asgi, application: Asgi) -> Asgi:
    """Ray's application, but for requests that belong to ours.

    Args:
        rays: a method of Ray's replica.
    """
    replica: Any = rays.__self__  # pyright: ignore[reportFunctionMemberAccess]
    prefix = (replica._route_prefix or "").rstrip("/")
    metrics = Metrics(replica)
    answer = in_one_piece(application)

    async def direct(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path.startswith(RAYS_PATHS) or not path.startswith(prefix):
            await rays(scope, receive, send)
            return
        scope["root_path"] = prefix
        start = time.perf_counter()
        metrics.begin()
        try:
            await answer(scope, receive, send)
        finally:
            metrics.end(scope["method"], scope.get(STATUS, ""), time.perf_counter() - start)

    return direct
