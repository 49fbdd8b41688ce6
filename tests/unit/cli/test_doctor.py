"""`raypipe doctor` looks at the real machine: what is wrong with it here, the tests make wrong."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time
from typing import Any

import pytest
from typer.testing import CliRunner

from raypipe.cli.main import app
from raypipe.pipeline import checkup

runner = CliRunner()

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
"""


@pytest.fixture
def file(tmp_path: Path, free_port: int) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(FILE + f"store: {tmp_path / 'store'}\nserve: {{port: {free_port}}}\n")
    return path


def looked(*words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    answer = runner.invoke(app, ["doctor", *words, "--json"])
    return answer.exit_code, {finding["what"]: finding for finding in json.loads(answer.stdout)}


def test_doctor_of_a_machine_that_can_run_it_finds_no_problem(file: Path, tmp_path: Path):
    code, found = looked(str(file))
    assert code == 0 and found["store"]["text"].startswith(str(tmp_path / "store"))
    assert {finding["state"] for finding in found.values()} <= {"ok", "warning"}
    shown = runner.invoke(app, ["doctor", str(file)]).stdout
    assert "ok       store" in shown and "torch" in shown


def test_doctor_of_a_taken_port_says_which_other_to_choose(file: Path):
    port = int(file.read_text().rpartition("port: ")[2].split("}")[0])
    with socket.create_server(("127.0.0.1", port)):
        code, found = looked(str(file))
    assert code == 4 and found["port"]["state"] == "problem" and f"serve.port={port + 1}" in found["port"]["remedy"]


def test_doctor_of_a_store_that_cannot_be_written_goes_on_to_the_end(file: Path, tmp_path: Path):
    (tmp_path / "store").write_text("a file")
    code, found = looked(str(file))
    assert code == 4 and found["store"]["state"] == "problem" and found["port"]["state"] == "ok"


def test_doctor_of_a_cluster_that_is_not_there(file: Path, free_port: int):
    code, found = looked(str(file), "--address", f"127.0.0.1:{free_port}")
    assert code == 4 and "no Ray cluster answers" in found["cluster"]["text"] and "port" not in found


def test_doctor_of_few_open_files_names_the_command(file: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        code, found = looked(str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 0 and found["open files"]["state"] == "warning"
    assert found["open files"]["remedy"].startswith("ulimit -n ")


def test_doctor_of_a_file_that_is_wrong_is_told_as_ever(file: Path):
    file.write_text("name: x\n")
    answer = runner.invoke(app, ["doctor", str(file)])
    assert answer.exit_code == 2 and answer.stderr.startswith("error: ")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """An HTTP server whose clock is off by so many seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time() - request.param, usegmt=True))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(("server", "state"), [(0, "ok"), (200, "warning"), (-3600, "problem")], indirect=["server"])
def test_clock_beside_that_of_the_s3_server(server: str, state: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    finding = checkup._clock()
    assert finding.state == state and bool(finding.remedy) == (state != "ok")
