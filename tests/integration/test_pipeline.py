"""The whole road through the commands: what runs, what is used again, what stops it, what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner, Result

from raypipe.cli.main import app
from raypipe.registry.versions import list_models
from raypipe.retry import Retry
from raypipe.runtime.progress import read_events
from raypipe.storage import layout, objects, open_store
from tests.integration.conftest import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

FILE = """\
name: flowers
data:
  source: {format: sklearn, dataset: iris}
  target: target
  transforms: [{kind: standardize, columns: [sepal_length_cm, petal_length_cm]}]
model: {kind: linear}
train: {epochs: 3, global_batch_size: 16, optimizer: {kind: adamw, lr: 0.05}}
"""

COLUMNS = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")
LEAVE_TIMEOUT_S = 30.0


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(FILE)
    return tmp_path / "p.yaml"


@pytest.fixture(scope="module")
def first_run(ray_cluster: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which each stage has been run once, by its own command, and what these told."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "p.yaml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        early = raypipe("train", folder / "p.yaml")
        assert early.exit_code == 2 and "train reads what data leaves" in early.stderr
        return folder, {stage: done(stage, folder / "p.yaml") for stage in ("data", "train", "evaluate", "register")}


@pytest.fixture
def run_before(file: Path, first_run: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """What the commands that ran `file` before told, by stage; their store is there, as they left it."""
    folder, told = first_run
    shutil.copytree(folder / ".raypipe", file.parent / ".raypipe")
    return told


def raypipe(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: str | Path) -> Any:
    """The JSON document of a command that must work."""
    answer = raypipe(*words, "--json")
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def ran(document: Any) -> list[str]:
    return [name for name, stage in document["stages"].items() if not stage["reused"]]


def test_pipeline_commands_of_one_stage_each_go_on_from_what_the_last_one_left(file: Path, run_before: dict[str, Any]):
    for stage, alone in run_before.items():
        assert ran(alone) == [stage] == list(alone["stages"])
    assert run_before["evaluate"]["metrics"]["accuracy"] > 0.6
    assert run_before["register"]["model"] == {"name": "flowers", "version": 1}

    lr = "train.optimizer.lr"
    searched = done("tune", file, "--set", f"tune={{space: {{{lr}: {{choice: [0.1]}}}}, num_trials: 1}}")
    assert ran(searched) == ["tune"] and searched["stages"]["tune"]["record"]["best_values"] == {lr: 0.1}


def test_pipeline_run_again_does_only_what_changed(file: Path, run_before: dict[str, Any]):
    again = done("run", file)
    assert ran(again) == ["register"] and again["model"]["version"] == 1
    assert again["stages"]["train"]["reason"] == f"reused: same data and spec as {run_before['train']['run']}"

    until = done("run", file, "--set", "train.epochs=4", "--until", "train")
    assert ran(until) == ["train"] and list(until["stages"]) == ["data", "train"]
    alone = done("evaluate", file, "--set", "train.epochs=4")
    assert list(alone["stages"]) == ["evaluate"] and ran(alone) == ["evaluate"]
    other = done("run", file, "--set", "train.epochs=4")
    assert ran(other) == ["register"] and other["model"]["version"] == 2

    assert [row["version"] for row in done("versions", "flowers")] == [1, 2]
    assert done("diff", "flowers@1", "flowers@2")["train.epochs"] == [3, 4]
    assert done("lineage", "flowers@2")["run"] == f"runs/{other['run']}"
    assert done("rollback", "flowers") == {
        "model": "flowers", "alias": "champion", "before": 2, "after": 1, "changed": True,
    }  # fmt: skip
    assert done("show", "flowers")["version"] == 1


def test_pipeline_whose_training_is_found_done_after_its_data_keeps_no_worker_that_began(
    file: Path, run_before: dict[str, Any], ray_cluster: SimpleNamespace
):
    for record in open_store().list(f"runs/{run_before['data']['run']}/data"):
        open_store().delete(record.key)  # the dataset itself is still there
    again = done("run", file, "--until", "evaluate", "--set", "evaluate.gates=[{metric: accuracy, min: 0.4}]")
    assert ran(again) == ["data", "evaluate"]
    deadline = time.monotonic() + 20
    while workers := [each for each in psutil.process_iter(["cmdline"]) if is_train_worker(each)]:
        assert time.monotonic() < deadline, workers
        time.sleep(0.1)  # Ray ends them in its own time


def is_train_worker(process: psutil.Process) -> bool:
    return "TrainWorker" in " ".join(process.info["cmdline"] or ())


def test_pipeline_gate_that_fails_registers_nothing_and_can_be_resumed(file: Path, run_before: dict[str, Any]):
    shutil.rmtree(file.parent / ".raypipe" / "models")
    answer = raypipe("run", file, "--run", "rgate", "--set", "evaluate.gates=[{metric: accuracy, min: 1.0}]")
    assert answer.exit_code == 3
    assert "did not pass 1 of 1 gates, nothing was registered: accuracy >= 1" in answer.stderr
    assert list_models(open_store()) == []
    resumed = done("run", file, "--resume", "rgate", "--set", "evaluate.gates=[{metric: accuracy, min: 0.5}]")
    assert (resumed["run"], ran(resumed)) == ("rgate", ["evaluate", "register"])
    assert resumed["stages"]["train"]["reason"] == "reused: done earlier in this run"
    events = read_events(open_store(), "rgate")
    assert [event["stage"] for event in events if event.get("failed")] == ["register"]
    assert any("flowers@1 registered" in event["text"] for event in events)


def test_pipeline_whose_driver_is_killed_is_told_in_the_next_plan(
    ray_cluster: SimpleNamespace, file: Path, run_before: dict[str, Any]
):
    longer = ["--set", "train.epochs=60"]
    words = [sys.executable, "-m", "raypipe", "run", str(file), *longer, "--until", "train", "--run", "rkill"]
    environment = {**os.environ, "RAY_ADDRESS": ray_cluster.address}
    driver = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    while not any(layout.checkpoint_step(info.key) for info in open_store().list(layout.checkpoints("rkill"))):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)  # another process's files: there is nothing to wait on
    driver.kill()
    driver.communicate()
    (train,) = [step for step in done("plan", file, *longer) if step["stage"] == "train"]
    assert train["unfinished"]["run"] == "rkill"
    assert train["unfinished"]["resume"].endswith("--until train --resume rkill")
    assert "rkill began this and did not end (its newest checkpoint is of step" in raypipe("plan", file, *longer).stdout
    said = [event["stage"] for event in read_events(open_store(), "rkill")]
    assert said[:3] == ["run", "ray", "data"], "what the killed driver said is kept"


@pytest.mark.parametrize(
    ("trainer", "sent", "exit_code"),
    [("auto", signal.SIGTERM, 143), ("auto", signal.SIGINT, 130), ("ray_train", signal.SIGTERM, 143)],
)
def test_pipeline_told_to_stop_while_it_trains_ends_and_leaves_no_process(
    file: Path, trainer: str, sent: signal.Signals, exit_code: int
):
    words = ["--until", "train", "--run", "rstop", "--set", f"train.trainer={trainer}", "--set", "train.epochs=100000"]
    command = [sys.executable, "-m", "raypipe", "run", str(file), *words, "--set", "train.num_workers=2"]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    errors = file.parent / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True, env=environment)
    while not any(layout.checkpoint_step(info.key) for info in open_store().list(layout.checkpoints("rstop"))):
        assert process.poll() is None, errors.read_text()
        time.sleep(0.05)  # another process's files: there is nothing to wait on
    children = _session(process.pid)
    assert len(children) > 2
    process.send_signal(sent)
    assert process.wait(timeout=90) == exit_code, errors.read_text()
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while (left := [pid for pid in children if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)  # they are no children of ours to wait for
    assert left == []
    assert "Traceback" not in errors.read_text()


@pytest.mark.parametrize("trainer", ["auto", "ray_train"])
def test_pipeline_loss_that_is_not_a_number_stops_two_workers_at_once_and_publishes_nothing(
    ray_cluster: SimpleNamespace, file: Path, trainer: str
):
    spread = (
        "--set",
        f"train.trainer={trainer}",
        "--set",
        "train.num_workers=2",
        "--set",
        "train.resources.num_cpus=0.5",
        "--set",
        "train.max_failures=3",
    )
    answer = raypipe("run", file, "--run", "rnan", *spread, "--set", "train.optimizer={kind: sgd, lr: 1.0e+38}")
    assert answer.exit_code == 3, answer.stderr
    assert re.search(r"training step [23] \(epoch 1\)", answer.stderr.splitlines()[-2])
    assert "Traceback" not in answer.stderr
    events = read_events(open_store(), "rnan")
    assert [event["step"] for event in events if event.get("event") == "start"] == [0], "trying again would not help"
    assert list_models(open_store()) == []
    assert [info.key for info in open_store().list("runs/rnan/train/artifact")] == []


def test_pipeline_workers_that_never_fit_are_refused_at_once(ray_cluster: SimpleNamespace, file: Path):
    started = time.monotonic()
    answer = raypipe("run", file, "--set", "train.num_workers=64", "--set", "train.global_batch_size=64")
    assert answer.exit_code == 2 and "CPUs at once" in answer.stderr
    assert time.monotonic() - started < 10


def test_pipeline_store_that_does_not_answer_exits_4_before_anything_starts(
    file: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(objects, "_RETRY", Retry(1))  # how long it is tried is shown in test_s3_store
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    answer = raypipe("run", file, "--store", "s3://bucket/prefix")
    assert answer.exit_code == 4 and "S3 did not answer" in answer.stderr


@pytest.mark.s3
def test_pipeline_in_s3_reads_and_keeps_everything_there(
    ray_cluster: SimpleNamespace, file: Path, s3: S3Server, bucket: str
):
    with contextlib.closing(s3.client()) as client:
        client.put_object(Bucket=bucket, Key="in/rows.csv", Body=csv_rows(90).encode())
    uri = f"s3://{bucket}/road"
    words = ["--store", uri, "--set", f"data.source={{format: csv, path: 's3://{bucket}/in/*.csv'}}"]
    first = done("run", file, *words)
    assert ran(first) == ["data", "train", "evaluate", "register"]
    assert first["store"] == uri and first["model"]["version"] == 1
    assert not (file.parent / ".raypipe").exists()
    again = done("run", file, *words)
    assert ran(again) == ["register"] and again["model"]["version"] == 1

    rows = file.parent / "rows.csv"
    rows.write_text(csv_rows(2, target=False))
    written = done("predict", "flowers", "--input", rows, "--output", f"s3://{bucket}/predicted", "--store", uri)
    assert (written["num_rows"], written["version"]) == (2, 1)


def csv_rows(count: int, *, target: bool = True) -> str:
    """Flowers whose petals tell their kind: short ones of 1 to 2 cm, long ones of 4 to 5."""
    lines = [",".join((*COLUMNS, *(["target"] * target)))]
    for i in range(count):
        row = [5 + i % 7 / 10, 3 + i % 5 / 10, (1 if i % 2 else 4) + i % 9 / 10, 0.2 + i % 3 / 10]
        lines.append(",".join((*(f"{value:.1f}" for value in row), *(["short" if i % 2 else "long"] * target))))
    return "\n".join(lines) + "\n"


def test_pipeline_bucket_that_does_not_exist_exits_2(file: Path, request: pytest.FixtureRequest):
    request.getfixturevalue("s3")
    answer = raypipe("run", file, "--store", "s3://no-such-bucket-here/prefix")
    assert answer.exit_code == 2 and "bucket 'no-such-bucket-here' does not exist" in answer.stderr


def test_pipeline_that_serves_stays_until_told_and_leaves_no_process(
    file: Path, run_before: dict[str, Any], free_port: int
):
    # As in a container with any user id: no home, no folder of its own for temporary files, and a token all the same.
    env = {**os.environ, "HOME": "/dev/null/home", "TMPDIR": "/nowhere", "RAY_AUTH_MODE": "token"}
    words = [sys.executable, "-m", "raypipe", "run", str(file), "--json", "--set", f"serve.port={free_port}"]
    errors = file.parent / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True, env=env
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, errors.read_text()
    told = json.loads(line)
    assert "endpoint" in told, told
    endpoint = told["endpoint"]
    asked = endpoint["curl"].partition(" -d ")[2].strip("'")
    answer = httpx.post(f"{endpoint['url']}/predict", json=json.loads(asked), timeout=20)
    assert answer.json()["predictions"][0]["label"] == endpoint["answer"]["predictions"][0]["label"]

    # Its own process: this one may be on the session's Ray.
    asking = [*words[:3], "status", "--json"]
    found = subprocess.run(asking, capture_output=True, text=True, timeout=90, check=True, env=env)
    (served,) = json.loads(found.stdout)
    assert (served["name"], served["state"], served["version"]) == ("flowers", "RUNNING", 1)
    busy = raypipe("run", file, "--set", f"serve.port={free_port}")
    assert busy.exit_code == 2 and f"serve.port: {free_port} on 127.0.0.1 is in use" in busy.stderr
    children = _session(process.pid)
    assert len(children) > 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 143
    process.stdout.close()
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while (left := [pid for pid in children if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)  # they are no children of ours to wait for
    assert left == []


def _session(pid: int) -> list[int]:
    """Processes of the session a command leads, or that it or they started."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no such process
        return False
