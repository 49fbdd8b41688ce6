"""What a process of Serve makes of its node before HAProxy starts there; a cluster does so in test_serve_nodes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from raypipe.errors import ServeError
from raypipe.serve import ingress_nodes, running
from raypipe.serve.ingress import BINARY
from raypipe.serve.ingress_nodes import ASKED, HOOK, NOT_PREPARED, cluster_env, folder_of, prepare
from raypipe.spec.access import TlsSpec
from raypipe.spec.serve import ServeSpec

NODE = "0123456789abcdef"


@pytest.fixture
def spec(tmp_path: Path) -> ServeSpec:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    return ServeSpec(host="0.0.0.0", ingress="haproxy", tls=TlsSpec(cert_file=str(cert), key_file=str(key)))


@pytest.fixture
def reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a node that Ray is not on; Serve has not been imported in its processes yet."""
    told: list[str] = []
    context = SimpleNamespace(get_node_id=lambda: NODE, runtime_env={})
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr(running, "note_unprepared", lambda node, reason: told.append(reason))
    monkeypatch.setattr(ingress_nodes, "FOLDER", f"{tmp_path}/{{port}}-{{node}}")
    monkeypatch.delitem(sys.modules, "ray.serve._private.constants", raising=False)
    return told


def issue(spec: ServeSpec) -> bytes:
    """Put certificate and key where the file names them."""
    assert spec.tls is not None
    issued = trustme.CA().issue_cert("model.example.com")
    Path(spec.tls.cert_file).write_bytes(issued.cert_chain_pems[0].bytes())
    Path(spec.tls.key_file).write_bytes(issued.private_key_pem.bytes())
    return issued.private_key_pem.bytes()


def start(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Serve finds in the environment of its next process on this node."""
    with monkeypatch.context() as process:
        for name, value in env.items():
            process.setenv(name, value)
        before = dict(os.environ)
        prepare()
        found = dict(os.environ)
        for name in found.keys() - before.keys():
            del os.environ[name]
    return {name: value for name, value in found.items() if before.get(name) != value}


def test_nothing_starts_as_haproxy_until_a_node_is_prepared_and_no_secret_is_sent(spec: ServeSpec, reasons: list[str]):
    key = issue(spec)
    env = cluster_env(spec)
    assert env[BINARY] == NOT_PREPARED and not os.path.exists(env[BINARY])
    assert not any(line in json.dumps(env) for line in key.decode().splitlines())
    assert env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert not [name for name, value in env.items() if "/tmp" in value and name != ASKED], "files are the node's matter"


def test_node_that_lacks_the_key_is_closed_until_it_is_there(
    spec: ServeSpec, reasons: list[str], monkeypatch: pytest.MonkeyPatch
):
    env = cluster_env(spec)
    closed = start(env, monkeypatch)
    assert "cert.pem cannot be read: No such file" in closed[BINARY] and not os.path.exists(closed[BINARY])
    assert closed.keys() == {BINARY} and reasons[-1] in closed[BINARY]

    issue(spec)
    opened = start(env, monkeypatch)
    assert os.access(opened[BINARY], os.X_OK) and reasons[-1] == ""
    folder = folder_of(spec.port, NODE)
    assert Path(opened[BINARY]).parent == folder and folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "tls.pem").stat().st_mode & 0o777 == 0o600


def test_later_processes_of_one_serve_change_nothing_and_those_of_the_next_do(
    spec: ServeSpec, reasons: list[str], monkeypatch: pytest.MonkeyPatch
):
    issue(spec)
    env = cluster_env(spec)
    first, bundle = start(env, monkeypatch), folder_of(spec.port, NODE) / "tls.pem"
    taken = bundle.read_bytes()
    issue(spec)  # what beside HAProxy looks for; it alone gives HAProxy another
    assert start(env, monkeypatch) == first and bundle.read_bytes() == taken
    start(cluster_env(spec), monkeypatch)
    assert bundle.read_bytes() != taken


def test_folder_of_somebody_else_is_not_entered(
    spec: ServeSpec, reasons: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    issue(spec)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "haproxy").write_text("#!/bin/sh\n")
    folder_of(spec.port, NODE).symlink_to(tmp_path / "theirs")
    assert "belongs to another user" in start(cluster_env(spec), monkeypatch)[BINARY]


@pytest.mark.parametrize(
    ("env", "told"),
    [({}, "KeyError"), ({ASKED: "{"}, "JSONDecodeError"), ({ASKED: '{"binary": "/nowhere"}'}, "KeyError")],
)
def test_process_goes_on_closed_whatever_it_is_asked(
    env: dict[str, str], told: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch
):
    assert told in start(env | {BINARY: NOT_PREPARED}, monkeypatch)[BINARY]


def test_serve_that_was_imported_too_early_stays_closed(
    spec: ServeSpec, reasons: list[str], monkeypatch: pytest.MonkeyPatch
):
    issue(spec)
    env = cluster_env(spec)
    monkeypatch.setitem(sys.modules, "ray.serve._private.constants", SimpleNamespace())  # type: ignore[arg-type]
    assert "imported before" in start(env, monkeypatch)[BINARY]
    assert not folder_of(spec.port, NODE).exists()


def test_job_with_a_hook_of_its_own_is_told(spec: ServeSpec, monkeypatch: pytest.MonkeyPatch):
    context: Any = SimpleNamespace(runtime_env={"env_vars": {HOOK: "mine.hook"}})
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    with pytest.raises(ServeError, match="worker_process_setup_hook, which this job's runtime_env sets already"):
        cluster_env(spec)
