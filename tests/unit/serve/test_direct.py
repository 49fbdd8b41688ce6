from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.serve import direct
from raypipe.serve.app import ModelApp
from raypipe.serve.direct import Direct, Metrics, start_server

GOOD = json.dumps({"instances": [{"age": 33.5, "color": "red"}]}).encode()


@asynccontextmanager
async def served(app: ModelApp) -> AsyncIterator[int]:
    """The application on a port, through the server that a replica starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    replica = SimpleNamespace(
        _route_prefix="/",
        _deployment_id=SimpleNamespace(app_name="a", name="d"),
        _metrics_manager=Counting(),
    )

    async def rays(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"rays"})

    options = SimpleNamespace(host="127.0.0.1", port=port, keep_alive_timeout_s=5)
    application = Direct(app, rays.__get__(replica))
    task, server = start_server(application, options, asyncio.get_running_loop())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await task


class Counting:
    """Ray's metrics of a replica: what is told."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.most = 0
        self.statuses: list[str] = []
        self.errors: list[bool] = []

    def inc_num_ongoing_requests(self, request: Any) -> None:
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)

    def dec_num_ongoing_requests(self, request: Any) -> None:
        self.ongoing -= 1

    def record_request_metrics(self, *, route: str, latency_ms: float, is_error: bool) -> None:
        assert route == "/" and latency_ms >= 0
        self.errors.append(is_error)

    def record_ingress_request_metrics(self, *, status_code: str, **named: Any) -> None:
        self.statuses.append(status_code)


async def exchange(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    found = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return found


def post(body: bytes, *fields: str) -> bytes:
    lines = ("POST /predict HTTP/1.1", "host: x", f"content-length: {len(body)}", *fields)
    return "\r\n".join((*lines, "", "")).encode() + body


def test_server_answers_two_requests_of_a_connection_and_rays_own_paths(regressor: ModelApp):
    async def run() -> bytes:
        async with served(regressor) as port:
            rays = b"GET /-/healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            return await exchange(port, post(GOOD) + rays + post(GOOD, "connection: close"))

    found = asyncio.run(run())
    assert found.count(b"HTTP/1.1 200 OK") == 3 and found.count(b'"predictions"') == 2 and b"\r\n\r\nrays" in found


def test_body_larger_than_the_limit_is_refused_and_the_connection_ends(regressor: ModelApp):
    chunk = b"%x\r\n" % 65536 + b"[" * 65536 + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

    async def run() -> bytes:
        async with served(regressor) as port:
            return await exchange(port, head + chunk * 40 + b"0\r\n\r\n" + post(GOOD, "connection: close"))

    found = asyncio.run(run())
    assert found.startswith(b"HTTP/1.1 413") and b"connection: close" in found and found.count(b"HTTP/1.1") == 1


def test_client_that_waits_to_be_told_to_send_is_told(regressor: ModelApp):
    async def run() -> tuple[bytes, bytes]:
        async with served(regressor) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head, body = post(GOOD, "expect: 100-continue", "connection: close").split(b"\r\n\r\n", 1)
            writer.write(head + b"\r\n\r\n")
            told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            writer.write(body)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return told, answer

    told, answer = asyncio.run(run())
    assert told.startswith(b"HTTP/1.1 100") and answer.startswith(b"HTTP/1.1 200")


def test_request_id_goes_back_and_head_has_no_body(regressor: ModelApp):
    async def run() -> bytes:
        async with served(regressor) as port:
            head = b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: abc-1\r\nconnection: close\r\n\r\n"
            return await exchange(port, head)

    found = asyncio.run(run())
    assert found.startswith(b"HTTP/1.1 200") and b"x-request-id: abc-1" in found and found.endswith(b"\r\n\r\n")


def test_small_pieces_leave_at_once_and_wait_for_no_acknowledgement(regressor: ModelApp):
    async def story() -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            options = SimpleNamespace(host="127.0.0.1", port=probe.getsockname()[1], keep_alive_timeout_s=10)
        task, server = start_server(Direct(regressor), options, asyncio.get_running_loop())
        while not server.started:
            await asyncio.sleep(0)
        _, writer = await asyncio.open_connection("127.0.0.1", options.port)
        while not server.server_state.connections:
            await asyncio.sleep(0)
        sockets = [each.transport.get_extra_info("socket") for each in server.server_state.connections]
        found = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets]
        writer.close()
        server.should_exit = True
        await task
        return found

    assert all(asyncio.run(story()))


def test_port_that_is_taken_is_a_runtime_error_so_that_ray_tries_another(regressor: ModelApp):
    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            options = SimpleNamespace(host="127.0.0.1", port=taken.getsockname()[1], keep_alive_timeout_s=5)
            with pytest.raises(RuntimeError, match="cannot listen on"):
                start_server(Direct(regressor), options, asyncio.get_running_loop())

    asyncio.run(run())


def test_ray_is_told_of_every_request_once_it_has_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct, "BATCH", 3)
    counted = Counting()
    name = SimpleNamespace(app_name="a", name="d")
    replica = SimpleNamespace(_route_prefix="/", _deployment_id=name, _metrics_manager=counted)

    async def run() -> None:
        metrics = Metrics(replica)
        for status in ("200", "404", "500", ""):
            metrics.end("POST", status, metrics.begin())
        assert counted.statuses == ["200", "404", "500"]  # a batch
        metrics.tell()

    asyncio.run(run())
    assert counted.statuses == ["200", "404", "500", "499"] and counted.errors == [False, False, True, True]
    assert counted.ongoing == 0 and counted.most == 1


def test_of_many_requests_ray_counts_all_and_gets_some_latencies_evenly_chosen():
    from ray.serve._private.common import RequestProtocol
    from ray.serve._private.replica import ReplicaMetricsManager

    class Noting:
        def __init__(self) -> None:
            self.points: list[float] = []
            self.count = 0

        def observe(self, value: float, tags: Any) -> None:
            self.points.append(value)

        def inc(self, count: int, tags: Any) -> None:
            self.count += count

        def set(self, value: float) -> None:
            pass

        def add(self, value: float) -> None:
            self.count += 1

    rays_own: Any = ReplicaMetricsManager

    class Rays(rays_own):  # Ray's own counting, without what it counts for
        def __init__(self) -> None:
            self._cached_metrics_enabled = self._ingress = True
            self._cached_latencies = defaultdict(deque)
            self._cached_request_counter = defaultdict(int)
            self._cached_error_counter = defaultdict(int)
            self._cached_ingress_request_counter = defaultdict(lambda: defaultdict(int))
            self._cached_ingress_processing_latencies = defaultdict(lambda: defaultdict(deque))
            self._cached_ingress_request_error_counter = defaultdict(lambda: defaultdict(int))
            self._cached_deployment_request_error_counter = defaultdict(lambda: defaultdict(int))
            self._user_code_time_accumulator = self.used = Noting()
            self._max_processing_latency_trackers = defaultdict(Noting)
            self._processing_latency_tracker = self.latency = Noting()
            self._request_counter, self._num_ongoing_requests_gauge = Noting(), Noting()
            self._num_ongoing_requests, self._ingress_ongoing_requests = 0, {RequestProtocol.HTTP: 0}
            self.http = SimpleNamespace(
                request_counter=Noting(), processing_latency_tracker=Noting(), set_num_ongoing_requests=lambda _: None
            )
            self._ingress_metrics = {RequestProtocol.HTTP: self.http}

        _is_direct_ingress = True

        def _should_emit_request_ingress_metrics(self, protocol: Any) -> bool:
            return True

        def inc_num_ongoing_requests(self, request: Any) -> None:
            pass

        dec_num_ongoing_requests = inc_num_ongoing_requests

    async def run(num_requests: int) -> Any:
        rays = Rays()
        name = SimpleNamespace(app_name="a", name="d")
        metrics = Metrics(SimpleNamespace(_route_prefix="/", _deployment_id=name, _metrics_manager=rays))
        for place in range(num_requests):
            metrics.end("POST", "200", time.perf_counter() - place)  # of `place` seconds
        metrics.tell()
        rays._report_cached_metrics()
        return rays

    few, many = asyncio.run(run(direct.LATENCIES)), asyncio.run(run(1000))
    for rays, number in ((few, direct.LATENCIES), (many, 1000)):
        assert rays._request_counter.count == rays.http.request_counter.count == rays.used.count == number
        assert rays.latency.points == rays.http.processing_latency_tracker.points
    assert len(few.latency.points) == direct.LATENCIES
    assert direct.LATENCIES // 2 <= len(many.latency.points) <= direct.LATENCIES
    assert many.latency.points[0] < 300_000 and many.latency.points[-1] > 900_000
