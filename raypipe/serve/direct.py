"""Requests go from the replica's HTTP server straight to the application, and answers leave in one piece.

Ray 2.60's own way there makes three tasks, a request context and a dozen wrappers a request: half of the 350 us that a
small model's answer took (measured), and what it refuses itself (a full queue, a time limit) it refuses in plain text.
The counts and latencies by which Ray scales, drains and reports on replicas are kept up.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

START_SERVER = "start_asgi_http_server"
"""The function of Ray's replica that starts the HTTP server; there is no setting."""

RAYS_PATHS = "/-/"
"""Health and routes of the replica, which HAProxy asks for."""

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Together(asyncio.Transport):
    """A transport whose writes of one turn of the event loop leave in one call: header and body of an answer.

    Args:
        inner: the connection.
    """

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: Any) -> None:
        """Send with whatever else is written before the loop turns."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def flush(self) -> None:
        """Send what is held."""
        held, self._held = self._held, []
        if held and not self._inner.is_closing():
            self._inner.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._inner.close()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TogetherProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Together(transport, self.loop))  # pyright: ignore[reportArgumentType]


def answer_directly(application: Asgi) -> None:
    """In a replica, before Ray starts its server: have it start ours, which calls this application.

    Args:
        application: ASGI; called for every request below the route prefix that is not Ray's own.
    """
    import ray

    if not ray.is_initialized():  # no replica: the application alone
        return
    from ray.serve._private import replica

    async def start(
        rays: Asgi, options: Any, *, event_loop: asyncio.AbstractEventLoop, enable_so_reuseport: bool = False
    ) -> tuple[asyncio.Task[None], uvicorn.Server]:
        return start_server(_direct(rays, application), options, event_loop)

    setattr(replica, START_SERVER, start)


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


def _direct(rays: Asgi, application: Asgi) -> Asgi:
    """Ray's application, but for requests that belong to ours.

    Args:
        rays: a method of Ray's replica.
    """
    from ray.serve._private.common import RequestMetadata, RequestProtocol

    replica: Any = rays.__self__  # pyright: ignore[reportFunctionMemberAccess]
    metrics = replica._metrics_manager
    prefix = (replica._route_prefix or "").rstrip("/")
    name = replica._deployment_id
    request = RequestMetadata(
        request_id="",
        internal_request_id="",
        is_streaming=True,
        _request_protocol=RequestProtocol.HTTP,
        is_direct_ingress=True,
    )

    async def direct(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path.startswith(RAYS_PATHS) or not path.startswith(prefix):
            await rays(scope, receive, send)
            return
        scope["root_path"] = prefix
        status = ""

        async def noting(message: Any) -> None:
            nonlocal status
            if not status:
                status = str(message["status"])
            await send(message)

        start = time.perf_counter()
        metrics.inc_num_ongoing_requests(request)
        try:
            await application(scope, receive, noting)
        finally:
            metrics.dec_num_ongoing_requests(request)
            latency_ms = (time.perf_counter() - start) * 1000
            route = prefix or "/"
            metrics.record_request_metrics(route=route, latency_ms=latency_ms, is_error=not status or status >= "500")
            metrics.record_ingress_request_metrics(
                protocol=RequestProtocol.HTTP,
                method=scope["method"],
                route=route,
                app_name=name.app_name,
                deployment_name=name.name,
                latency_ms=latency_ms,
                is_error=not status or status >= "400",
                status_code=status or "499",
            )

    return direct
