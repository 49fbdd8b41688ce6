"""What nobody sends by mistake, to every path that reads a body: refused in words, quickly, nothing run or told."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import Route
from raypipe.spec.transforms import OneHotTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version, request

SLOWEST_S = 1.0
"""Of one refusal, on a busy machine; 100 ms on an idle one."""

LEAKS = re.compile(
    r"/(?:tmp|home|root|usr|work|proc|etc)/|site-packages|Traceback|File \\?\"|\.py\b|0x[0-9a-f]{8,}|<[\w.]+ object|"
    r"numpy\.|torch\.|orjson|pydantic|Errno|assert",
    re.IGNORECASE,
)
"""What tells of the machine or the program behind an answer."""


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def pictures(module_store: LocalFolder) -> ModelApp:
    """Takes colour images, as arrays and as pictures."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    dataset = tiny_dataset(module_store, {"image": images}, np.arange(12) % 3)
    return model_app(module_store, model_version(module_store, dataset, name="pictures"))


@pytest.fixture(scope="module")
def people(module_store: LocalFolder) -> ModelApp:
    """Takes rows of a number and a text."""
    columns = {"age": np.arange(12.0), "color": np.array(["red", "blue", "green"] * 4, object)}
    one_hot = OneHotTransform(kind="one_hot", columns=["color"])
    dataset = tiny_dataset(module_store, columns, np.arange(12) % 2, transforms=[one_hot])
    return model_app(module_store, model_version(module_store, dataset, name="people"))


@pytest.fixture(params=["people", "pictures"])
def app(request: pytest.FixtureRequest) -> ModelApp:
    return request.getfixturevalue(request.param)


def readers(app: ModelApp, kind: str = "application/json") -> list[Route]:
    """Paths that predict from such a body."""
    return [route for route in app.routes() if kind in route.accepts and route.scope == "predict"]


def checked(answer: Response, told: object) -> int:
    """The status of a refusal, which tells nothing that it should not, in words that one can print."""
    text = bytes(answer.body).decode()
    assert not LEAKS.search(text), (told, text[:300])
    assert all(char.isprintable() or char in "\n" for char in text), (told, text[:300])
    for name, value in answer.headers.items():
        assert "\r" not in value and "\n" not in value, (told, name)
    return answer.status_code


def number(text: str) -> bytes:
    return b'{"instances": [{"age": %s, "color": "red"}]}' % text.encode()


DEEP = 100_000
JSON_BOMBS: dict[str, bytes] = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists, open": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep instances": b'{"instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "deep inputs": b'{"inputs": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "a million keys": b"{" + b",".join(b'"%d":1' % i for i in range(100_000)) + b"}",
    "a key of a megabyte": b'{"' + b"k" * 2**20 + b'": 1}',
    "a row of many keys": b'{"instances": [{' + b",".join(b'"%d":1' % i for i in range(100_000)) + b"}]}",
    "exponent": number("1e999999999"),
    "negative exponent, huge": number("-1e400"),
    "5000 digits": number("9" * 5000),
    "5000 decimals and an exponent": number("0." + "9" * 5000 + "e400"),
    "NaN": number("NaN"),
    "Infinity": number("Infinity"),
    "-Infinity": number("-Infinity"),
    "plus": number("+1"),
    "leading zero": number("01"),
    "hexadecimal": number("0x10"),
    "half an exponent": number("1e"),
    "underscore": number("1_0"),
    "text for a number": number('"33"'),
    "object for a number": number('{"$numberLong": "1"}'),
    "lone surrogate": b'{"instances": [{"age": 1, "color": "\\ud800"}]}',
    "lone surrogate as a key": b'{"\\udfff": 1}',
    "surrogate in UTF-8": b'{"instances": [{"age": 1, "color": "\xed\xa0\x80"}]}',
    "no UTF-8": b'{"instances": "\xff\xfe"}',
    "overlong UTF-8": b'{"instances": "\xc0\xaf"}',
    "UTF-16": '{"instances": [1]}'.encode("utf-16"),
    "UTF-32": '{"instances": [1]}'.encode("utf-32"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b'{"instances"\x00: [1]}',
    "control character": b'{"instances": "\x01"}',
    "comments": b'{/* a */ "instances": [1]}',
    "single quotes": b"{'instances': [1]}",
    "trailing comma": b'{"instances": [1,]}',
    "two documents": b"{}{}",
    "nothing": b"",
    "blank": b" \n\t",
    "null": b"null",
    "a number": b"7",
    "a text": b'"instances"',
    "true": b"true",
    "prototype": b'{"__proto__": {"instances": [1]}, "constructor": 1}',
    "python's": b'{"__class__": "os.system", "py/object": "os.system", "!!python/object": 1}',
    "entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "YAML": b"!!python/object/apply:os.system ['id']",
}


@pytest.mark.parametrize("bomb", JSON_BOMBS)
def test_hostile_json_is_refused_everywhere_quickly(bomb: str, app: ModelApp):
    routes = readers(app)
    assert len(routes) >= 4
    for route in routes:
        start = time.perf_counter()
        answer = ask(app, route.method, route.path, JSON_BOMBS[bomb])
        seconds = time.perf_counter() - start
        told = (bomb, route.path, bytes(answer.body)[:200])
        assert checked(answer, told) in (400, 413, 422), told
        assert seconds < SLOWEST_S, told
    assert checked(ask(app, "GET", "/healthz"), "health") == 200


HUGE = [2**62, 2**62]
TENSORS: dict[str, dict[str, Any]] = {
    "a product that overflows": {"shape": HUGE, "data": [1]},
    "a product of 2^64": {"shape": [2**32, 2**32], "data": []},
    "a product that overflows to the right count": {"shape": [2**63, 2, 1, 1], "data": []},
    "huge and empty": {"shape": [2**62, 0], "data": []},
    "negative": {"shape": [-1, 8, 8, 3], "data": [1]},
    "two negatives": {"shape": [-1, -192], "data": [1] * 192},
    "more than data": {"shape": [1_000_000, 8, 8, 3], "data": [0] * 192},
    "less than data": {"shape": [1, 8, 8, 3], "data": [0] * 193},
    "no rows": {"shape": [0, 8, 8, 3], "data": []},
    "no dimensions": {"shape": [], "data": [1]},
    "65 dimensions": {"shape": [1] * 64 + [192], "data": [0] * 192},
    "fractions": {"shape": [1.5, 128], "data": [0] * 192},
    "texts": {"shape": ["1", "192"], "data": [0] * 192},
    "true": {"shape": [True, 192], "data": [0] * 192},
    "2^100": {"shape": [2**100], "data": [0]},
    "unknown type": {"datatype": "COMPLEX512"},
    "text for numbers": {"datatype": "BYTES"},
    "bytes after the JSON that are not there": {"parameters": {"binary_data_size": 2**62}, "data": None},
    "negative bytes": {"parameters": {"binary_data_size": -5}, "data": None},
    "shared memory": {
        "parameters": {"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 192},
        "data": None,
    },
}


@pytest.mark.parametrize("bomb", TENSORS)
def test_tensor_that_is_not_what_it_says_is_refused_before_anything_is_made_for_it(bomb: str, pictures: ModelApp):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192} | TENSORS[bomb]
    body = json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()
    answer = ask(pictures, "POST", "/v2/models/pictures/infer", body)
    assert checked(answer, (bomb, answer.body)) in (400, 413), answer.body


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[0] * 192] * 20_000},
        {"instances": [1] * 1_000_000},
        {"instances": [{"image": 0}] * 20_000},
        {"inputs": {"image": [0] * 20_000}},
        {"inputs": [[0] * 192] * 20_000},
        {"rows": [[]] * 1_000_000},
        {"columns": ["image"], "data": [[0]] * 20_000},
    ],
    ids=lambda body: f"{next(iter(body))} {len(str(body))}",
)
def test_too_many_rows_are_refused_in_every_shape(body: dict[str, Any], pictures: ModelApp):
    sent = json.dumps(body).encode()
    statuses = {checked(ask(pictures, each.method, each.path, sent), each.path) for each in readers(pictures)}
    assert statuses <= {400, 413}


CANARIES = "ran.txt"


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def archives(canary: bytes) -> dict[str, bytes]:
    """What programs unpickle that read arrays."""
    npy = io.BytesIO()
    np.save(npy, np.array([1, "a"], dtype=object), allow_pickle=True)
    head = npy.getvalue()[:128]
    return {"pickle": canary, "npy with objects": head + canary, "base64": base64.b64encode(canary)}


TYPES = (
    "application/json",
    "application/octet-stream",
    "application/x-pickle",
    "application/python-pickle",
    "application/x-python-serialize",
    "application/x-npy",
    "application/x-yaml",
    "application/xml",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.arrow.file",
    "application/x-recordio-protobuf",
    "application/grpc",
    "image/png",
    "image/jpeg",
)


@contextmanager
def watched(*events: str) -> Iterator[list[tuple[str, Any]]]:
    """Notes what this process does meanwhile that is audited."""
    seen: list[tuple[str, Any]] = []
    active = [True]

    def note(event: str, args: Any) -> None:
        if active and event in events:
            seen.append((event, args))

    sys.addaudithook(note)  # stays for the life of the process, so it is switched off
    try:
        yield seen
    finally:
        active.clear()


def test_nothing_that_a_client_sends_is_unpickled(app: ModelApp, tmp_path: Path):
    file = tmp_path / CANARIES
    canary = pickle.dumps(Canary(file))
    pickle.loads(canary)
    assert file.exists(), "it would run"
    file.unlink()
    with watched("pickle.find_class", "marshal.loads", "exec") as seen:
        for what, sent in archives(canary).items():
            for kind in TYPES:
                for route in app.routes():
                    if route.method != "GET":
                        headers = {"content-type": kind, "inference-header-content-length": "0"}
                        told = (what, kind, route.path)
                        assert 400 <= checked(ask(app, route.method, route.path, sent, headers=headers), told) < 500, (
                            told
                        )
        for route in app.rpc_routes():
            asyncio.run(app.answer_rpc(route.path, {}, canary))
    assert not file.exists() and not [event for event in seen if event[0] == "pickle.find_class"]


class Listener:
    """Counts who connects to a port of this machine."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.hits = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.hits += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def addresses(port: int) -> list[str]:
    """Ways to write this machine's own, and its files."""
    hosts = (
        "127.0.0.1", "localhost", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "127.1", "[::1]",
        "[::ffff:127.0.0.1]", "0", "0.0.0.0", "user:pw@127.0.0.1", "127.0.0.1#@example.com", "127.0.0.1%00.example.com",
        "169.254.169.254",
    )  # fmt: skip
    schemes = ("http", "https", "HTTP", "ftp", "gopher", "dict", "ldap", "ws", "jar:http", "s3", "gs")
    urls = [f"{scheme}://{host}:{port}/x.png" for scheme in schemes for host in hosts]
    files = [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "/etc/passwd",
        "../../../../etc/passwd",
        "\\\\host\\a",
    ]
    return [*urls, *files, "data:text/html;base64,PGI+", "data:image/png;base64,", "data:,x", "javascript:1", "data:"]


def test_no_address_in_a_request_is_called_and_no_file_opened(pictures: ModelApp):
    listener = Listener()
    asked = 0
    with watched("socket.connect", "socket.getaddrinfo", "open", "urllib.Request", "subprocess.Popen") as seen:
        for address in addresses(listener.port):
            bodies = (
                {"instances": [{"image": address}]},
                {"instances": [address]},
                {"instances": [{"image": {"b64": address}}]},
                {"inputs": {"image": address}},
                {"inputs": {"image": [address]}},
                {"instances": [{"url": address}]},
            )
            for body in bodies:
                for path in ("/predict", "/v1/models/pictures:predict", "/invocations"):
                    answer = ask(pictures, "POST", path, json.dumps(body).encode())
                    text = bytes(answer.body).decode()
                    assert answer.status_code == 400, (address, path, text)
                    assert "root:" not in text
                    asked += 1
    listener.close()
    opened = [str(args[0]) for event, args in seen if event == "open"]
    assert asked > 2000 and listener.hits == 0
    assert not [event for event, _ in seen if event != "open"] and not [file for file in opened if "passwd" in file]


def test_data_address_over_the_cap_is_too_large(pictures: ModelApp):
    body = json.dumps({"instances": [{"image": "data:image/png;base64," + "A" * 17 * 2**20}]}).encode()
    assert checked(ask(pictures, "POST", "/predict", body), "data") == 413


INJECTIONS = [
    "\r\nset-cookie: a=b",
    "\n2026-01-01 ERROR forged",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x00",
    "\u202egnp.exe",
    "\u2028next",
    "%s%s%s%n",
    "{0.__class__.__mro__}",
    "${jndi:ldap://127.0.0.1/a}",
    "$(touch /tmp/x)",
    "`id`",
    "; rm -rf /",
    "' OR '1'='1",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "__proto__",
    "../../etc/passwd",
    "%0d%0aset-cookie:%20a=b",
    "{{7*7}}",
]


@pytest.mark.parametrize("payload", INJECTIONS)
def test_hostile_text_comes_back_neutral_wherever_it_stands(
    payload: str, app: ModelApp, capfd: pytest.CaptureFixture[str]
):
    json_bodies = [
        {payload: 1},
        {"instances": [{payload: 1}]},
        {"instances": [{"age": payload, "color": payload, "image": payload}]},
        {"instances": payload},
        {"inputs": {payload: [1]}},
        {"signature_name": payload, "instances": [1]},
        {"inputs": [{"name": payload, "datatype": payload, "shape": [1], "data": [payload]}]},
    ]
    for route in readers(app):
        for body in json_bodies:
            answer = ask(app, route.method, route.path, json.dumps(body).encode())
            checked_neutral(answer, payload)
    for path in (f"/{payload}", f"/v1/models/{payload}:predict", f"/v2/models/{payload}/infer", f"/predict{payload}"):
        checked_neutral(ask(app, "POST", path, b"{}"), payload)
    for name in ("content-type", "content-encoding", "authorization", "origin", "accept"):
        latin = payload.encode("utf-8").decode("latin-1")
        checked_neutral(ask(app, "POST", "/predict", b"{}", headers={name: latin}), payload)
    said = capfd.readouterr()
    assert payload not in said.out + said.err, "what a client sends is not logged"


def checked_neutral(answer: Response, payload: str) -> None:
    assert answer.status_code < 500
    assert answer.media_type is None or answer.media_type.startswith(("application/json", "text/plain"))
    body = bytes(answer.body)
    if answer.media_type == "application/json":
        json.loads(body)
    assert b"\x1b" not in body and b"\x00" not in body and b"49" not in body.partition(b"{{7*7}}")[0][-4:]
    if "<script>" in payload and answer.media_type != "application/json":
        assert b"<script>" not in body
    assert not [value for value in answer.headers.values() if "set-cookie" in value.lower()]


def test_method_and_path_of_any_kind_are_refused_in_words(app: ModelApp):
    for method in ("GET", "POST", "PROPFIND", "X" * 10_000, "PUT", "get", "CONNECT"):
        for path in (
            "/" + "a" * 60_000,
            "/" * 1000,
            "/..",
            "/%2e%2e/%2e%2e/passwd",
            "",
            "*",
            "http://a/",
            "/\ud800",
        ):
            answer = asyncio.run(app(request(method, path, b"")))
            assert checked(answer, (method[:10], path[:20])) in (404, 405)
            assert len(answer.body) < 4000
