"""What is said about an address before Ray, which would try for minutes, hears of it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from raypipe.errors import ClusterError, SpecError
from raypipe.runtime import touch
from raypipe.runtime.connect import connect
from raypipe.runtime.resources import Demand
from raypipe.runtime.touch import check_answers, is_loopback


class SilentHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SilentHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_dead_address_is_told_at_once_and_before_ray_is_asked(free_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", f"192.0.2.1:{free_port}")
    monkeypatch.setattr(touch, "TOUCH_TIMEOUT_S", 0.2)  # the network may drop what goes there
    dead = pytest.raises(ClusterError, match=f"no Ray cluster answers at 192.0.2.1:{free_port}")
    with dead as raised, connect(Demand(data_cpus=0)):
        pass
    assert raised.value.exit_code == 4 and "unset RAY_ADDRESS" in raised.value.hint


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_closed_port_of_this_machine_is_refused(form: str, free_port: int):
    with pytest.raises(ClusterError, match="Connection refused"):
        check_answers(form.format(free_port))


def test_other_server_is_no_ray_head(web_server: int):
    with pytest.raises(ClusterError, match=f"127.0.0.1:{web_server} is no Ray head") as raised:
        check_answers(f"127.0.0.1:{web_server}")
    assert "6379" in raised.value.hint


def test_server_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(touch, "TOUCH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ClusterError, match=r"within 0\.2 s"):
        check_answers(f"127.0.0.1:{silent.getsockname()[1]}")


def test_grpc_server_as_ray_has_it_is_let_through():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        check_answers(f"127.0.0.1:{port}")
        check_answers(f"ray://127.0.0.1:{port}")
    finally:
        server.stop(0).wait()


def test_what_is_no_address_is_left_to_ray():
    check_answers("auto")


@pytest.mark.parametrize(("address", "answer"), [("127.0.0.1:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)])
def test_loopback_addresses_are_known(address: str, answer: bool):
    assert is_loopback(address) is answer


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:75536", "ports go from 1 to 65535"),
        ("127.0.0.1:0", "ports go from 1 to 65535"),
        (f"127.0.0.1:{'9' * 5000}", "ports go from 1 to 65535"),
        ("a..b:80", "has no host name"),
        (f"{'a' * 300}:80", "has no host name"),
    ],
)
def test_address_that_names_nothing_is_the_users_mistake(address: str, said: str):
    with pytest.raises(SpecError, match=said) as raised:
        check_answers(address)
    assert len(raised.value.message) < 200
