"""HTTP that no client means well with, at the real HAProxy: what reaches a replica, what is said, what it costs."""

from __future__ import annotations

import gzip
import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from raypipe.serve.app import ModelApp
from raypipe.serve.client_header import CLIENT
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_app, model_version
from tests.conftest import pick_ports
from tests.integration.proxied import Proxied, proxied

pytestmark = pytest.mark.timeout(120)

CAP = 2 * 2**20
REFUSED_S = 0.5
"""Longest until a body that is too large is refused, on an idle machine."""

BUSY = 4
"""How many times longer a machine may take that others use."""

GOOD = json.dumps({"instances": [{"x": 1.0}]}).encode()
POST = b"POST /predict HTTP/1.1\r\nhost: model\r\ncontent-type: application/json\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: model\r\n\r\n"


@pytest.fixture(scope="module")
def spec() -> ServeSpec:
    return ServeSpec(port=pick_ports(1)[0], max_body_bytes=CAP)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, spec: ServeSpec) -> ModelApp:
    store = LocalFolder(str(tmp_path_factory.mktemp("store")))
    return model_app(store, model_version(store, tiny_dataset(store, {"x": np.arange(8.0)}, np.arange(8) % 2)), spec)


@pytest.fixture(scope="module")
def served(app: ModelApp, spec: ServeSpec) -> Iterator[Proxied]:
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, proxied(app, spec, Path(folder)) as running:
        yield running


def exchange(served: Proxied, sent: bytes, wait_s: float = 1.0) -> bytes:
    """What comes back until the connection is closed or silent."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait_s) as client:
        found = b""
        with suppress(OSError):
            client.sendall(sent)
            while part := client.recv(65536):
                found += part
        return found


def statuses(found: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", found)]


def posted(*headers: bytes, body: bytes = GOOD) -> bytes:
    return POST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


SIZE = b"content-length: %d" % len(GOOD)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)

DISPUTED: dict[str, bytes] = {
    "two lengths": posted(SIZE, b"content-length: 0", body=GOOD + HIDDEN),
    "two lengths in one": posted(b"content-length: 0, %d" % len(GOOD), body=GOOD + HIDDEN),
    "length and chunks": posted(SIZE, b"transfer-encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks twice": posted(b"transfer-encoding: chunked", b"transfer-encoding: identity", body=b"0\r\n\r\n" + HIDDEN),
    "chunks of another kind": posted(b"transfer-encoding: xchunked", SIZE, body=GOOD + HIDDEN),
    "chunks and a tab": posted(b"transfer-encoding:\x0bchunked", SIZE, body=GOOD + HIDDEN),
    "blank before the colon": posted(b"content-length : %d" % len(GOOD), body=GOOD + HIDDEN),
    "a plus": posted(b"content-length: +%d" % len(GOOD), body=GOOD + HIDDEN),
    "a minus": posted(b"content-length: -1", body=HIDDEN),
    "no number": posted(b"content-length: 1e2", body=GOOD + HIDDEN),
    "a length of 2^64": posted(b"content-length: 18446744073709551616", body=GOOD),
    "a chunk of 2^64": posted(b"transfer-encoding: chunked", body=b"10000000000000000\r\n" + GOOD),
    "a chunk size that is none": posted(b"transfer-encoding: chunked", body=b"0x5\r\nabcde\r\n0\r\n\r\n" + HIDDEN),
    "a chunk longer than it says": posted(b"transfer-encoding: chunked", body=b"1\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a folded header": posted(b"x-a: 1", b" content-length: 0", SIZE),
    "NUL in a header": posted(b"x-a: \x00", SIZE),
    "a header without a name": posted(b": 1", SIZE),
    "a header without a colon": posted(b"hello", SIZE),
    "a bare CR": posted(b"x-request-id: a\rset-cookie: b=c", SIZE),
    "no host": GOOD.join([b"POST /predict HTTP/1.1\r\n" + SIZE + b"\r\n\r\n", b""]),
    "two hosts": posted(b"host: other", SIZE),
    "HTTP/0.9": b"GET /hidden\r\n",
    "HTTP/9.9": b"GET /hidden HTTP/9.9\r\nhost: a\r\n\r\n",
    "a blank in the path": b"GET /hid den HTTP/1.1\r\nhost: a\r\n\r\n",
    "a control character in the path": b"GET /hid\x01den HTTP/1.1\r\nhost: a\r\n\r\n",
    "binary": bytes(range(256)),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "an upgrade to HTTP/2": posted(
        b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk", SIZE
    ),
    "a web socket": b"GET /predict HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nhost: a\r\nx-secret: canary\r\n\r\n",
    "an absolute address": b"GET http://127.0.0.1:22/hidden HTTP/1.1\r\nhost: a\r\n\r\n",
}


@pytest.mark.parametrize("kind", DISPUTED)
def test_request_that_two_servers_would_read_differently_hides_no_other(kind: str, served: Proxied):
    served.asked.clear()
    found = exchange(served, DISPUTED[kind])
    answered = statuses(found)
    assert len(answered) <= 2 and all(status < 500 for status in answered), found[:300]
    assert len(served.asked) <= 1, "one request, not two"
    # what stands behind a whole request is another one, as pipelining has it; behind a refused one nothing is
    if any(path == "/hidden" for _, path in served.asked):
        assert answered in ([404], []), found[:300]
    assert b"set-cookie" not in found.lower() and b"canary" not in found and b"SSH" not in found


def test_requests_in_a_row_are_answered_in_a_row(served: Proxied):
    found = exchange(served, posted(SIZE) * 3 + b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 5)
    assert statuses(found) == [200] * 4


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"x-a: " + b"a" * 40_000], 431),
        ([b"x-a: " + b"a" * 70_000], 431),
        ([b"x-%d: 1" % i for i in range(150)], 431),
        ([b"x-a: " + b"a" * 20_000], 200),
        ([b"x-%d: 1" % i for i in range(80)], 200),
    ],
    ids=["40 kB", "70 kB", "150 lines", "20 kB", "80 lines"],
)
def test_header_that_is_too_large_is_told_so_in_json(headers: list[bytes], status: int, served: Proxied):
    found = exchange(served, posted(SIZE, b"connection: close", *headers), 5)
    assert statuses(found) == [status]
    if status == 431:
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["code"] == "header_too_large"


def test_names_that_other_programs_take_for_others_do_not_reach_a_replica(served: Proxied):
    """`x_api_key` is `x-api-key` to some, and nothing to others."""
    served.asked.clear()
    exchange(served, b"GET /healthz HTTP/1.1\r\nhost: a\r\nx_api_key: 1\r\nx-good: 2\r\nconnection: close\r\n\r\n", 5)
    names = {name for name, _ in served.headers}
    assert b"x-good" in names and b"x_api_key" not in names and b"x-api-key" not in names


def test_replica_is_told_by_which_connection_a_client_came_whatever_it_says_itself(served: Proxied):
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as client:
        for said in (b"", b"x-raypipe-client: 127.0.0.1:1\r\nX-Raypipe-Client: b\r\n"):
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + said + b"\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            told = [value for name, value in served.headers if name == CLIENT]
            assert told == [b"127.0.0.1:%d" % client.getsockname()[1]]


def test_dead_replica_is_503_with_retry_after_in_json_and_logged_where_requests_are_not(
    app: ModelApp, spec: ServeSpec, free_port: int
):
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(f"{folder}/log.sock")  # where the configuration of `proxied` has HAProxy log to
        log.settimeout(20)
        with proxied(app, spec.model_copy(update={"port": free_port}), Path(folder)) as running:
            assert statuses(exchange(running, posted(SIZE, b"connection: close"), 20)) == [200]
            running.end_replica()
            found = exchange(running, posted(SIZE, b"connection: close"), 20)
            logged = b""
            while b"is DOWN" not in logged:
                logged += log.recv(65536)
        assert statuses(found) == [503] and b"retry-after: 1" in found.lower()
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["code"] == "unavailable"
        assert b"/predict" not in logged and b"127.0.0.1" not in logged


class Sender:
    """Sends a body of a gigabyte until somebody answers."""

    def __init__(self, served: Proxied) -> None:
        self._port = served.port

    def refused_after(self, head: bytes, part: bytes, total: int) -> tuple[bytes, float, int]:
        """The answer, how long it took since more than the cap was sent, and how much was sent by then."""
        sent, over = 0, time.monotonic()
        with socket.create_connection(("127.0.0.1", self._port), timeout=0.001) as client:
            client.settimeout(10)
            client.sendall(head)
            while sent < total:
                client.setblocking(False)
                found = b""
                with suppress(BlockingIOError):
                    found = client.recv(65536)
                client.settimeout(10)
                if found:
                    return self._whole(found, client), time.monotonic() - over, sent
                client.sendall(part)
                sent += len(part)
                if sent <= CAP + len(part):
                    over = time.monotonic()
            client.settimeout(10)
            return self._whole(client.recv(65536), client), time.monotonic() - over, sent

    @staticmethod
    def _whole(answer: bytes, client: socket.socket) -> bytes:
        """Header and body may come one after the other."""
        while answer.endswith(b"\r\n\r\n"):
            answer += client.recv(65536)
        return answer


SMALL_CHUNKS = b"6\r\n[[[[[[\r\n" * 1000
LARGE: dict[str, tuple[bytes, bytes]] = {
    "declared": (b"content-length: 1000000000\r\n\r\n", b"1," * 8192),
    "chunked": (b"transfer-encoding: chunked\r\n\r\n", b"4000\r\n" + b"1," * 8192 + b"\r\n"),
    "chunks of six bytes": (b"transfer-encoding: chunked\r\n\r\n", SMALL_CHUNKS),
}


@pytest.mark.parametrize("kind", LARGE)
def test_gigabyte_is_refused_at_the_cap_without_its_memory(kind: str, served: Proxied):
    more, part = LARGE[kind]
    before = psutil.Process().memory_info().rss + served.haproxy.memory_info().rss
    found, seconds, sent = Sender(served).refused_after(POST + more, part, 10**9)
    after = psutil.Process().memory_info().rss + served.haproxy.memory_info().rss
    assert statuses(found) == [413] and json.loads(found.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"
    assert seconds < REFUSED_S * BUSY and sent < 64 * 2**20
    assert after - before < 32 * 2**20


def test_gzip_of_a_gigabyte_is_refused_without_its_memory(served: Proxied):
    bomb = gzip.compress(bytes(2**30), 9)
    before = psutil.Process().memory_info().rss
    start = time.monotonic()
    found = exchange(served, posted(b"content-encoding: gzip", b"content-length: %d" % len(bomb), body=bomb), 5)
    assert statuses(found) == [413] and time.monotonic() - start < 5 + REFUSED_S * BUSY
    assert psutil.Process().memory_info().rss - before < 32 * 2**20


@pytest.mark.parametrize("declared", [5, 50_000_000], ids=["less", "more"])
def test_length_that_lies_harms_only_who_lies(declared: int, served: Proxied):
    served.asked.clear()
    found = exchange(served, posted(b"content-length: %d" % declared), 2)
    assert all(status in (400, 404, 405, 413) for status in statuses(found))
    assert statuses(exchange(served, posted(SIZE, b"connection: close"), 5)) == [200]
