"""Clients that send or read slowly, or only hold connections, at the real HAProxy: all are cut, nobody else notices."""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from raypipe.model.predictions import Predictions
from raypipe.serve.app import ModelApp
from raypipe.serve.batching import Features
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_app, model_version
from tests.conftest import pick_ports
from tests.integration.proxied import Proxied, proxied

pytestmark = pytest.mark.timeout(180)

CUT_S = 15.0
"""By then every one of them must be gone, whatever it does."""

HEAD = b"POST /predict HTTP/1.1\r\nhost: model\r\ncontent-type: application/json\r\n"
ROW = [[7] * 3] * 4
ANSWERED = json.dumps({"instances": [{"image": ROW}]}).encode()
LARGE = json.dumps({"instances": [{"image": ROW}] * 2000}).encode()

H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_headers(stream: int, *, end: bool = True) -> bytes:
    """GET /healthz, or a begun POST of it."""
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/healthz"), (b":authority", b"model"))
    block = b"".join(b"\x00" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)
    return frame(1, 0x4 | end, stream, block)


@pytest.fixture(scope="module")
def spec() -> ServeSpec:
    return ServeSpec(port=pick_ports(1)[0], limits=LimitsSpec(max_connections_per_client=2000, idle_timeout_s=5))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, spec: ServeSpec) -> ModelApp:
    store = LocalFolder(str(tmp_path_factory.mktemp("store")))
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 3), np.uint8)
    return model_app(store, model_version(store, tiny_dataset(store, {"image": images}, np.arange(12) % 3)), spec)


@pytest.fixture(scope="module")
def served(app: ModelApp, spec: ServeSpec) -> Iterator[Proxied]:
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, proxied(app, spec, Path(folder)) as running:
        yield running


class Neighbour(threading.Thread):
    """Somebody who asks all the while, and notes how long each answer took."""

    def __init__(self, url: str) -> None:
        super().__init__(name="neighbour")
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._url = url
        self._over = threading.Event()

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=10, headers={"content-type": "application/json"}) as client:
            while not self._over.wait(0.02):
                start = time.perf_counter()
                try:
                    status = client.post(f"{self._url}/predict", content=ANSWERED).status_code
                    if status != 200:
                        self.failures.append(str(status))
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                self.seconds.append(time.perf_counter() - start)

    def __enter__(self) -> Neighbour:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()


def connected(port: int, *, small: bool = False) -> socket.socket:
    client = socket.socket()
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(5)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    return client


def still_open(served: Proxied, ports: set[int]) -> int:
    """Of these clients' ports, as HAProxy has them: a client that does not read would not hear of an end."""
    return sum(
        found.status == psutil.CONN_ESTABLISHED and bool(found.raddr) and found.raddr.port in ports
        for found in served.haproxy.net_connections("tcp")
    )


def wait_until_held(served: Proxied, ports: set[int]) -> None:
    """HAProxy has most of them; some may have gone already."""
    start = time.monotonic()
    while still_open(served, ports) < 0.5 * len(ports):
        assert time.monotonic() - start < 5, "they were not connected"


def seconds_until_cut(
    served: Proxied, clients: list[socket.socket], every_s: float, drip: bytes, *, read: bool
) -> float:
    """How long until HAProxy holds none of these any more, while each sends a little more from time to time."""
    ports = {client.getsockname()[1] for client in clients}
    wait_until_held(served, ports)
    start = at = time.monotonic()
    with selectors.DefaultSelector() as reading:
        for client in clients:
            client.setblocking(False)
            if read:
                reading.register(client, selectors.EVENT_READ)
        while still_open(served, ports):
            assert time.monotonic() - start < CUT_S + 5, f"{still_open(served, ports)} are still held"
            for key, _ in reading.select(timeout=0.1):
                ended = True
                with suppress(BlockingIOError, ConnectionError):
                    ended = key.fileobj.recv(65536) == b""  # pyright: ignore[reportAttributeAccessIssue]
                if ended:
                    reading.unregister(key.fileobj)
            if not read:
                time.sleep(0.1)
            if drip and time.monotonic() - at >= every_s:
                at = time.monotonic()
                for client in clients:
                    with suppress(OSError):
                        client.send(drip)
    return time.monotonic() - start


SLOW: dict[str, tuple[int, bytes, bytes]] = {
    "half a header": (300, b"GET /healthz HTTP/1.1\r\nhost: model\r\n", b"x: y\r\n"),
    "nothing at all": (500, b"", b""),
    "a body that does not come": (100, HEAD + b"content-length: 100\r\n\r\n{", b""),
    "a body a byte a second": (100, HEAD + b"content-length: 100000\r\n\r\n", b"1"),
    "a large body a byte a second": (20, HEAD + b"content-length: 300000\r\n\r\n" + b"1" * 200_000, b"1"),
    "chunks of a byte": (100, HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n1\r\n"),
    "on and on after its refusal": (50, HEAD + b"content-length: 1000000000\r\n\r\n", b"1"),
    "a body that nobody asked for": (50, b"GET /healthz HTTP/1.1\r\nhost: m\r\ncontent-length: 300000\r\n\r\n", b"1"),
    "no second request": (50, b"GET /healthz HTTP/1.1\r\nhost: model\r\n\r\n", b""),
    "HTTP/2 no second request": (50, H2 + h2_headers(1), b""),
    "HTTP/2 half a header": (100, H2 + frame(1, 0, 1, b"\x82"), b""),
    "HTTP/2 a stream that never ends": (50, H2 + h2_headers(1, end=False), b""),
}


@pytest.mark.parametrize("kind", SLOW)
def test_client_that_sends_slowly_is_cut_and_nobody_else_notices(kind: str, served: Proxied):
    count, start, drip = SLOW[kind]
    with ExitStack() as stack, Neighbour(served.url) as neighbour:
        clients = [stack.enter_context(connected(served.port)) for _ in range(count)]
        for client in clients:
            client.sendall(start)
        seconds = seconds_until_cut(served, clients, 1.0, drip, read=True)
    assert seconds <= CUT_S
    assert not neighbour.failures and len(neighbour.seconds) > 50
    assert statistics.quantiles(neighbour.seconds, n=100)[-1] < 1.0


@pytest.fixture(scope="module")
def patient(app: ModelApp, spec: ServeSpec) -> Iterator[Proxied]:
    """Behind a HAProxy with the usual limits, which keeps idle connections for a minute."""
    usual = spec.model_copy(update={"port": pick_ports(1)[0], "limits": LimitsSpec()})
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, proxied(app, usual, Path(folder)) as running:
        yield running


@pytest.mark.parametrize("reads", [0, 1], ids=["not at all", "a byte at a time"])
def test_client_that_does_not_read_its_answer_is_cut(reads: int, patient: Proxied):
    with ExitStack() as stack, Neighbour(patient.url) as neighbour:
        clients = [stack.enter_context(connected(patient.port, small=True)) for _ in range(10)]
        for client in clients:
            client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(LARGE) + LARGE)
        ports = {client.getsockname()[1] for client in clients}
        wait_until_held(patient, ports)
        start = time.monotonic()
        while still_open(patient, ports):
            assert time.monotonic() - start < CUT_S + 5  # the answers take a moment
            time.sleep(0.2)
            for client in clients:
                with suppress(OSError):
                    client.recv(reads)
        assert time.monotonic() - start > 5, "the kernel holds what is not read"
    assert not neighbour.failures


FLOODS: dict[str, Callable[[int], bytes]] = {
    "streams begun and reset": lambda i: h2_headers(2 * i + 1) + frame(3, 0, 2 * i + 1, b"\x00\x00\x00\x08"),
    "pings": lambda i: frame(6, 0, 0, i.to_bytes(8, "big")),
    "settings": lambda i: frame(4, 0, 0),
    "empty data": lambda i: h2_headers(1, end=False) if i == 0 else frame(0, 0, 1),
    "continuation without end": lambda i: frame(1, 0, 1, b"\x82") if i == 0 else frame(9, 0, 1, b"\x00\x01a\x01b" * 50),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_http2_frames_harms_nobody_else(kind: str, served: Proxied):
    before = served.haproxy.memory_info().rss
    with Neighbour(served.url) as neighbour:
        sent = 0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with connected(served.port) as client, suppress(OSError):  # it is closed, and comes again
                client.sendall(H2)
                client.setblocking(False)
                for i in range(2000):
                    with suppress(BlockingIOError):
                        client.send(FLOODS[kind](i))
                        sent += 1
                    with suppress(BlockingIOError):
                        if not client.recv(65536):
                            break
    assert sent > 500
    assert not neighbour.failures and len(neighbour.seconds) > 20
    assert statistics.median(neighbour.seconds) < 0.5
    assert served.haproxy.memory_info().rss - before < 32 * 2**20


def test_connections_of_one_address_are_limited_and_the_rest_of_it_is_closed(
    app: ModelApp, spec: ServeSpec, free_port: int
):
    few = spec.model_copy(update={"port": free_port, "limits": LimitsSpec(max_connections_per_client=8)})
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, proxied(app, few, Path(folder)) as running:
        with ExitStack() as stack:
            held = [stack.enter_context(connected(running.port)) for _ in range(8)]
            with httpx.Client(trust_env=False) as client:
                answer = client.get(f"{running.url}/healthz")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["error"]["code"] == "too_many_requests"
            with suppress(ConnectionError):
                for _ in range(16):
                    held.append(stack.enter_context(connected(running.port)))
            open_ports = {client.getsockname()[1] for client in held}
            time.sleep(0.5)  # a reset takes its way
            assert still_open(running, open_ports) <= 16
        running.wait_until_answers()
        assert httpx.get(f"{running.url}/healthz", trust_env=False).status_code == 200


def test_clients_that_go_are_not_computed_for_and_leave_nothing_behind(
    served: Proxied, monkeypatch: pytest.MonkeyPatch
):
    batcher, room = served.app._batcher, served.app.room
    model, rows = batcher._model, []

    def slow(features: Features) -> Predictions:
        rows.append(len(features))
        time.sleep(0.3)
        return model(features)

    monkeypatch.setattr(batcher, "_model", slow)
    request = HEAD + b"content-length: %d\r\n\r\n" % len(ANSWERED) + ANSWERED
    for _ in range(500):
        client = connected(served.port)
        client.sendall(request)
        client.close()
    until = time.monotonic() + 2
    while (room.requests or room.held_bytes) and time.monotonic() < until:
        time.sleep(0.01)
    assert (room.requests, room.held_bytes) == (0, 0)
    assert sum(rows) < 250, "most of them had gone before their turn"
    monkeypatch.setattr(batcher, "_model", model)
    assert httpx.post(f"{served.url}/predict", content=ANSWERED, trust_env=False).status_code == 200
