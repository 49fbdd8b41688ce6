"""An endpoint on a cluster of two nodes, each with a certificate of its own: what one HAProxy does, both do."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import trustme

from raypipe.serve.certificate import trusting
from raypipe.serve.ingress import USUAL_PORTS
from raypipe.serve.ingress_nodes import FOLDER
from raypipe.serve.keys import line_of, new_key
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_version
from tests.conftest import pick_ports
from tests.integration import serve_on_nodes
from tests.integration.conftest import RAY_ENV
from tests.integration.nodes import node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
KEY = new_key()
CERT_FILE, KEY_FILE = "/proc/self/cwd/cert.pem", "/proc/self/cwd/key.pem"
"""One name for every process, a file of its own on each node: what a local disk is to it."""


@dataclass(frozen=True)
class Cluster:
    """A head and a node with one CPU each; `worker_port` is where HAProxy listens on the node, as both are one machine.

    Attributes:
        folders: in which the processes of head and node run.
    """

    address: str
    folders: list[Path]
    worker_port: int
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster(private_dir: Path) -> Iterator[Cluster]:
    folder = private_dir / "s"  # short: sockets lie below it
    folder.mkdir()
    gcs, dashboard, client, worker_port = pick_ports(4)
    env = {**os.environ, **RAY_ENV, "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    found = Cluster(f"127.0.0.1:{gcs}", [folder / "1", folder / "2"], worker_port, env)
    words = ["--head", "--num-cpus=1", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={client}"]  # fmt: skip
    # both nodes are this machine: each would take the usual ports while the other's HAProxy is still starting
    aside = dict(zip(USUAL_PORTS, map(str, pick_ports(len(USUAL_PORTS))), strict=True))
    of_worker = {**env, **aside, "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(worker_port)}
    url = f"http://127.0.0.1:{dashboard}/api/v0/nodes"

    def num_nodes() -> int:
        try:
            answer = httpx.get(url, timeout=5)
        except httpx.TransportError:  # not up yet
            return 0
        rows = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
        return sum(row["state"] == "ALIVE" for row in rows)

    join = [f"--address={found.address}", "--num-cpus=1"]
    with (
        node(env, found.folders[0], words, until=lambda: num_nodes() == 1),
        node(of_worker, found.folders[1], join, until=lambda: num_nodes() == 2),
    ):
        yield found


@contextmanager
def driver(cluster: Cluster, folder: Path) -> Iterator[Callable[[str], Any]]:
    """A process on the cluster that answers words, in a folder with the head's certificate."""
    store = LocalFolder(str(folder / "store"))
    dataset = tiny_dataset(store, {"x": np.arange(8.0)}, np.arange(8) % 2)
    version = model_version(store, dataset, name="tiny").model_dump_json()
    words = [sys.executable, "-m", serve_on_nodes.__name__, cluster.address, store.uri, version]
    with subprocess.Popen(
        words, env=cluster.env, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(word: str) -> Any:
            print(word, file=process.stdin, flush=True)
            for line in process.stdout or ():
                if line.startswith(("{", "[")):
                    return json.loads(line)
            pytest.fail("the driver has ended")

        yield ask
        process.stdin.close()
        process.wait(60)


def test_haproxy_of_every_node_has_the_rules_and_that_nodes_own_certificate(cluster: Cluster, tmp_path: Path):
    authority = trustme.CA()
    keys = [authority.issue_cert("127.0.0.1") for _ in cluster.folders]
    for folder, issued in zip(cluster.folders, keys, strict=True):
        (folder / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())
        (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(keys[0].cert_chain_pems[0].bytes())
    (tmp_path / "keys.jsonl").write_text(line_of(KEY, "ann", ["predict"]))
    port = pick_ports(1)[0]
    spec = {
        "host": "0.0.0.0",
        "port": port,
        "min_replicas": 2,
        "tls": {"cert_file": CERT_FILE, "key_file": KEY_FILE},
        "auth": {"keys_file": str(tmp_path / "keys.jsonl")},
    }
    with driver(cluster, tmp_path) as ask:
        refused = ask(f"deploy {json.dumps(spec)}")
        assert "allow_plaintext_keys=true" in refused["error"]
        spec["allow_plaintext_keys"] = True
        away = (cluster.folders[1] / "key.pem").rename(cluster.folders[1] / "away.pem")
        refused = ask(f"deploy {json.dumps(spec)}")
        assert f"{KEY_FILE} cannot be read: No such file" in refused["error"]
        assert "(on 1 of the cluster's 2 nodes: " in refused["error"]
        away.rename(cluster.folders[1] / "key.pem")

        endpoint = ask(f"deploy {json.dumps(spec)}")
        assert endpoint["url"].startswith("https://") and endpoint["ingress"] == "haproxy", endpoint
        for folder, where in zip(cluster.folders, (port, cluster.worker_port), strict=True):
            check(f"https://127.0.0.1:{where}", trusting(str(folder / "cert.pem")))
        assert [row["message"] for row in ask("status")] == [""]
        assert len(list(Path("/tmp").glob(Path(FOLDER.format(port=port, node="*")).name))) == 2
        assert not leaked(cluster, keys)
        assert ask("stop") == ["tiny"]
    assert not list(Path("/tmp").glob(Path(FOLDER.format(port=port, node="*")).name)), "keys are left behind"


def check(url: str, certificate: ssl.SSLContext) -> None:
    """What HAProxy itself says, and what it lets through; it answers with this certificate or not at all."""
    # Ray Serve waits for the proxy of one node; that of another may begin to listen some seconds later
    patient = httpx.HTTPTransport(verify=certificate, trust_env=False, retries=7)
    with httpx.Client(base_url=url, transport=patient, timeout=30) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        assert client.post("/predict", json={"instances": [{"x": 1.0}]}).status_code == 200
        assert client.get("/-/routes").status_code == 401
        answer = client.get("/", headers={"x-long": "a" * 40_000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (431, "header_too_large")


def leaked(cluster: Cluster, keys: list[trustme.LeafCert]) -> set[Path]:
    """Files of Ray's, its logs and spilled objects among them, that hold a line of a private key."""
    lines = [issued.private_key_pem.bytes().splitlines()[2] for issued in keys]
    files = [file for folder in cluster.folders for file in folder.rglob("*") if file.suffix != ".pem"]
    return {file for file in files if file.is_file() and any(line in file.read_bytes() for line in lines)}
