"""Bytes that programs run, addresses that programs call: here they are data, and refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask
from tests.unit.serve.hostile.refusals import checked, watched

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


def test_nothing_that_a_client_sends_is_unpickled(app: ModelApp, tmp_path: Path):
    file = tmp_path / CANARIES
    canary = pickle.dumps(Canary(file))
    pickle.loads(canary)
    assert file.exists(), "it would run"
    file.unlink()
    with watched("pickle.find_class", "marshal.loads", "exec") as seen:
        for what, sent in archives(canary).items():
            for kind in TYPES:
                for route in app.routes.all():
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
    schemes = ("https", "HTTP", "ftp", "gopher", "dict", "ldap", "ws", "jar:http", "s3", "gs")
    places = [("http", host) for host in hosts] + [(scheme, host) for scheme in schemes for host in hosts[:2]]
    urls = [f"{scheme}://{host}:{port}/x.png" for scheme, host in places]
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
    assert asked > 700 and listener.hits == 0
    assert not [event for event, _ in seen if event != "open"] and not [file for file in opened if "passwd" in file]


def test_data_address_over_the_cap_is_too_large(pictures: ModelApp):
    body = json.dumps({"instances": [{"image": "data:image/png;base64," + "A" * 17 * 2**20}]}).encode()
    assert checked(ask(pictures, "POST", "/predict", body), "data") == 413
