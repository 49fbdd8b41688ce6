"""Runs that began and did not end; their drivers are real processes that are really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from raypipe.errors import ClusterError, DataError, SpecError, TrainingError
from raypipe.pipeline.plan import Planner
from raypipe.pipeline.state import RunState
from raypipe.pipeline.unfinished import how_to_go_on, noted
from raypipe.runtime.process import ProcessId
from raypipe.storage import Store, layout
from raypipe.storage.publish import publish
from tests.unit.pipeline.planners import planned
from tests.unit.pipeline.test_plan import FILE, finish

DRIVER = """
import sys
from pathlib import Path
from raypipe.pipeline.unfinished import noted
from raypipe.storage import layout, open_store
from raypipe.storage.publish import publish
from tests.unit.pipeline.planners import planned
folder = Path(sys.argv[1])
planner = planned(folder, run_id="rdead")
with noted(planner.state, "raypipe run p.yaml --resume rdead"):
    step = [step for step in planner.walk() if step.name == "train"][0]
    planner.state.begin("train", step.inputs)
    publish(planner.store, layout.checkpoint("rdead", 340), {"state.json": b"{}"})
    print("saved", flush=True)
    sys.stdin.read()
"""


def write_project(folder: Path) -> Path:
    (folder / "pipeline.yaml").write_text(FILE)
    (folder / "rows.csv").write_text("x,y\n1,no\n2,yes\n")
    (folder / "model.py").write_text("def build(): ...\n")
    finish(planned(folder, run_id="rdata"), "data")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_project(tmp_path)


class Killed(NamedTuple):
    """A run that began to train, saved its checkpoint of step 340 and was killed."""

    folder: Path
    pid: int
    told_before: str
    """What a plan said of it while it lived."""


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = write_project(tmp_path_factory.mktemp("killed"))
    words = [sys.executable, "-c", DRIVER, str(folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "saved\n"
        told_before = train_step(planned(folder))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return Killed(folder, process.pid, told_before)


@pytest.fixture
def killed(killed_once: Killed, tmp_path: Path) -> Killed:
    """The same, in a folder of this test alone."""
    return killed_once._replace(folder=Path(shutil.copytree(killed_once.folder, tmp_path / "copy")))


def train_step(planner: Planner) -> str:
    return next(step.text for step in planner.walk() if step.name == "train")


def test_plan_after_a_killed_driver_names_its_run_its_checkpoint_and_how_to_go_on(killed: Killed):
    folder = killed.folder
    assert f"rdead does the same now, as process {killed.pid}" in killed.told_before
    assert train_step(planned(folder)) == (
        "runs: no earlier result; rdead began this and did not end (its newest checkpoint is of step 340); "
        "`raypipe run p.yaml --resume rdead` goes on with it"
    )
    assert train_step(planned(folder, run_id="rdead")) == (
        "runs: goes on in this run (its newest checkpoint is of step 340)"
    )
    assert train_step(planned(folder, "train.epochs=9")) == "runs: no earlier result", "another training"


def test_plan_after_a_killed_run_was_finished_reuses_it(killed: Killed):
    finish(planned(killed.folder, run_id="rdead"), "data", "train")
    assert train_step(planned(killed.folder)) == "reused: same data and spec as rdead"


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (None, False),
        (SpecError("model.py: no function"), False),
        (DataError("no rows"), False),
        (TrainingError("workers lost"), True),
        (ClusterError("head away"), True),
        (KeyboardInterrupt(), True),
        (SystemExit(143), True),
    ],
)
def test_note_of_a_run_stays_only_where_there_is_something_to_go_on_with(
    folder: Path, error: BaseException | None, stays: bool
):
    planner = planned(folder)
    key = layout.unfinished_run("flowers", "rnew")

    def walk() -> None:
        with noted(planner.state, "raypipe run p.yaml --resume rnew"):
            assert planner.store.exists(key)
            if error is not None:
                raise error

    if error is None:
        walk()
    else:
        with pytest.raises(type(error)):
            walk()
    assert planner.store.exists(key) == stays


def checkpointed(folder: Path) -> RunState:
    planner = planned(folder)
    publish(planner.store, layout.checkpoint("rnew", 20), {"state.json": b"{}"})
    return planner.state


def test_end_of_an_interrupted_training_tells_the_step_and_the_command(folder: Path):
    text = how_to_go_on(checkpointed(folder), "train", SystemExit(143), "raypipe run p.yaml --resume rnew")
    assert text == (
        "run rnew stopped (its newest checkpoint is of step 20); `raypipe run p.yaml --resume rnew` goes on from there"
    )


def test_end_of_a_run_interrupted_before_there_was_a_checkpoint_names_the_same_command(folder: Path):
    text = how_to_go_on(planned(folder).state, "data", KeyboardInterrupt(), "raypipe run p.yaml --resume rnew")
    assert text == "run rnew stopped; the same command goes on: finished stages are used again"


@pytest.mark.parametrize("error", [SpecError("no such column"), DataError("no rows")])
def test_end_of_a_run_that_needs_a_change_does_not_offer_to_go_on(folder: Path, error: Exception):
    assert how_to_go_on(checkpointed(folder), "train", error, "raypipe run p.yaml --resume rnew") == ""


def test_notes_that_are_damaged_or_foreign_cost_a_hint_and_nothing_else(killed: Killed):
    store: Store = planned(killed.folder).store
    for run_id, body in (("rbad", b"{"), ("rlist", b"[]"), ("rodd", b'{"run_id": 1, "process": 2, "resume": 3}')):
        store.write(layout.unfinished_run("flowers", run_id), body)
    assert "rdead began this and did not end" in train_step(planned(killed.folder))


def test_process_that_ended_is_told_from_one_with_its_number():
    own = ProcessId.own()
    assert own.lives and not own.is_elsewhere
    assert not ProcessId(own.host, own.pid, own.started + 1).lives, "another process had the number before"
    assert ProcessId.parse(own.document()) == own
    elsewhere = ProcessId("another-host", os.getpid(), own.started)
    assert elsewhere.is_elsewhere and not elsewhere.lives
