"""Requests go from the replica's HTTP server straight to the application.

Ray 2.60's own way there makes three tasks, a request context and a dozen wrappers a request: half of the 350 us that a
small model's answer took (measured), and what it refuses itself (a full queue, a time limit) it refuses in plain text.
The counts and latencies by which Ray scales, drains and reports on replicas are kept up.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from raypipe.serve.connection import Application, Company, Connection
from raypipe.serve.polling import Polling
from raypipe.serve.protocols import Call, Reply
from raypipe.serve.replica_port import rays_replica

if TYPE_CHECKING:
    from raypipe.serve.app import ModelApp

START_SERVER = "start_asgi_http_server"
"""The function of Ray's replica that starts the HTTP server; there is no setting."""

RAYS_PATHS = "/-/"
"""Health and routes of the replica, which HAProxy asks for."""

BATCH = 64
"""Requests told of together; telling takes some ten microseconds each, and the event loop is for everybody."""

TELL_S = 1.0
"""Longest until Ray is told."""

LATENCIES = 16
"""Of the requests that ended since Ray last passed on what it was told, a tenth of a second ago: so many latencies at
most become points of its histograms, evenly chosen; the counters count every request. Two points a request, passed on
in one go, held the event loop for milliseconds, and took Ray's agent 15 us of CPU (measured)."""

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Direct:
    """A connection's Application: ours, and Ray's own paths where this process is a replica.

    Args:
        app: answers every request below the route prefix that is not Ray's own.
        rays: a method of Ray's replica; None: there is no Ray.
    """

    def __init__(self, app: ModelApp, rays: Asgi | None = None) -> None:
        self.app = app
        self.company = Company()
        self.polling = Polling()
        self._rays = rays
        replica: Any = rays.__self__ if rays else None  # pyright: ignore[reportFunctionMemberAccess]
        self._prefix = (replica._route_prefix or "").rstrip("/") if rays else ""
        self._metrics = Metrics(replica) if rays else Uncounted()

    def takes(self, path: str) -> bool:
        """Whether a path is ours, and all of its answer comes at once."""
        return self._is_ours(path) and not self.app.routes.streams(path[len(self._prefix) :])

    def _is_ours(self, path: str) -> bool:
        return not path.startswith(RAYS_PATHS) and path.startswith(self._prefix)

    async def answer(self, call: Call, *, alone: bool) -> Reply:
        """Answer one request that is here whole."""
        if self._prefix:
            call.path = call.path[len(self._prefix) :] or "/"
        start, status = self._metrics.begin(), ""
        try:
            reply = await self.app.answer(call, alone=alone)
            status = str(reply.status)
            return reply
        finally:
            self._metrics.end(call.method, status, start)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request whose body still comes, or whose answer comes in pieces; or hand it to Ray."""
        if scope["type"] != "http" or not self._is_ours(scope.get("path", "")):
            await (self._rays or self.app.asgi)(scope, receive, send)
            return
        scope["root_path"] = self._prefix
        start, status = self._metrics.begin(), ""
        try:
            status = str(await self.app.answer_asgi(scope, receive, send))
        finally:
            self._metrics.end(scope["method"], status, start)


def answer_directly(app: ModelApp) -> None:
    """In a replica, before Ray starts its server: have it start ours, which asks this application."""
    replica = rays_replica()
    if replica is None:
        return

    async def start(
        rays: Asgi, options: Any, *, event_loop: asyncio.AbstractEventLoop, enable_so_reuseport: bool = False
    ) -> tuple[asyncio.Task[None], uvicorn.Server]:
        return start_server(Direct(app, rays), options, event_loop)

    setattr(replica, START_SERVER, start)


def start_server(
    application: Application, options: Any, loop: asyncio.AbstractEventLoop
) -> tuple[asyncio.Task[None], uvicorn.Server]:
    """Listen as Ray's HTTPOptions say; the task ends with the server.

    Raises:
        RuntimeError: the port cannot be listened on; Ray then tries another.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Only of a socket that says it is TCP's does asyncio let small pieces leave at once: else each token of a text
    # would wait until the client has acknowledged the one before, up to 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        raise RuntimeError(f"cannot listen on {options.host}:{options.port}") from error
    config = uvicorn.Config(
        lambda: application,
        factory=True,
        http=Connection,
        interface="asgi3",
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


class Uncounted:
    """Metrics of a process that nobody asks for any."""

    def begin(self) -> float:
        """See Metrics."""
        return 0.0

    def end(self, method: str, status: str, start: float) -> None:
        """See Metrics."""


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

    def begin(self) -> float:
        """A request is in flight, from the time returned."""
        self._metrics.inc_num_ongoing_requests(self._request)
        return time.perf_counter()

    def end(self, method: str, status: str, start: float) -> None:
        """It no longer is.

        Args:
            status: HTTP's; empty where no answer was sent.
            start: what `begin` returned.
        """
        self._metrics.dec_num_ongoing_requests(self._request)
        self._ended.append((method, status, (time.perf_counter() - start) * 1000))
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
        self._choose_latencies()

    def _choose_latencies(self) -> None:
        cached = vars(self._metrics)
        by_route = cached.get("_cached_latencies", {})
        by_tags = cached.get("_cached_ingress_processing_latencies", {}).get(self._protocol, {})
        for latencies_ms in (*by_route.values(), *by_tags.values()):
            if len(latencies_ms) > LATENCIES:
                chosen = list(latencies_ms)[:: math.ceil(len(latencies_ms) / LATENCIES)]
                latencies_ms.clear()
                latencies_ms.extend(chosen)
