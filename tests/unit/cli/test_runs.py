"""Looking back at runs: what they did, how far they came, and what differs between them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raypipe.cli.main import app
from raypipe.pipeline.state import RunState, read_record
from raypipe.records import Goodput
from raypipe.runtime.process import ProcessId
from raypipe.runtime.progress import Progress
from raypipe.storage import Store, layout, open_store
from raypipe.storage.documents import write_document
from raypipe.testing import tiny

runner = CliRunner()


def begin(store: Store, run_id: str, started_at: str, pipeline: str = "digits", **train: Any) -> RunState:
    state = RunState(store, run_id, pipeline)
    spec = {"name": pipeline, "train": {"epochs": 3, **train}}
    state.describe({"spec": spec, "file": "/p.yaml", "overrides": [], "raypipe": "1.0", "started_at": started_at})
    return state


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`first` finished, `second` was killed in its training an hour later."""
    monkeypatch.setenv("RAYPIPE_STORE", str(tmp_path / "store"))
    store = open_store()
    dataset = tiny.dataset(store, num_test_rows=10)
    first = begin(store, "first", "2026-03-01T10:00:00Z")
    progress = Progress("first", stream=None)
    for stage, record in (("data", dataset), ("train", tiny.trained(store, dataset, run_id="first"))):
        first.begin(stage, {"n": stage})
        with progress.stage(stage):
            first.save(stage, {"n": stage}, record)
    progress.save(store)
    second = begin(store, "second", "2026-03-01T11:00:00Z", epochs=5)
    second.begin("data", {"n": "data"})
    second.save("data", {"n": "data"}, dataset)
    second.begin("train", {"n": "other"})
    gone = {**ProcessId.own().document(), "started": -1}
    note = {"run_id": "second", "process": gone, "resume": "raypipe run p.yaml --resume second"}
    write_document(store, layout.unfinished_run("digits", "second"), note)
    return store


def answered(*words: str) -> str:
    answer = runner.invoke(app, list(words))
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def refused(*words: str) -> str:
    answer = runner.invoke(app, list(words))
    assert answer.exit_code == 2 and isinstance(answer.exception, SystemExit)
    return answer.stderr


def test_runs_lists_the_newest_first_with_how_far_each_came(store: Store):
    lines = [re.split(r"  +", line) for line in answered("runs").splitlines()]
    assert [line[0] for line in lines] == ["run", "second", "first"]
    assert "stopped in train" in lines[1] and "done" in lines[2]
    assert "2026-03-01 10:00:00" in lines[2]


def test_runs_in_numbers(store: Store):
    second, first = json.loads(answered("runs", "--json"))
    assert (first["state"], first["metric"][0], second["metric"]) == ("done", "train_loss", None)
    assert first["wall_s"] > 0 and second["wall_s"] is None


def test_runs_says_which_is_running(store: Store):
    key = layout.unfinished_run("digits", "second")
    write_document(store, key, {"run_id": "second", "process": ProcessId.own().document(), "resume": "raypipe"})
    assert json.loads(answered("runs", "--json"))[0]["state"] == "running"


def test_runs_of_a_driver_on_another_machine_claims_nothing_about_it(store: Store):
    key = layout.unfinished_run("digits", "second")
    process = {**ProcessId.own().document(), "host": "head-node"}
    write_document(store, key, {"run_id": "second", "process": process, "resume": "raypipe"})
    assert json.loads(answered("runs", "--json"))[0]["state"] == "in train, running or stopped on head-node"


def test_runs_of_a_driver_that_died_between_two_stages_is_not_done(store: Store):
    note = {"run_id": "first", "process": {**ProcessId.own().document(), "started": -1}, "resume": "raypipe"}
    write_document(store, layout.unfinished_run("digits", "first"), note)
    assert json.loads(answered("runs", "--json"))[1]["state"] == "stopped after train"


def test_runs_of_one_pipeline_and_no_more_than_asked_for(store: Store):
    begin(store, "third", "2026-03-01T12:00:00Z", pipeline="other")
    assert [run["run_id"] for run in json.loads(answered("runs", "--pipeline", "other", "--json"))] == ["third"]
    assert answered("runs", "--limit", "1").splitlines()[-1] == "and 2 older; --limit shows more"
    assert answered("runs", "--pipeline", "nobodys").startswith("no run of nobodys in ")


def test_runs_with_a_damaged_one_lists_the_others_too(store: Store):
    store.write(layout.run_spec("first"), b"{")
    second, first = json.loads(answered("runs", "--json"))
    assert (second["run_id"], first["run_id"], first["state"]) == ("second", "first", "damaged")


def test_run_shows_its_stages_what_each_left_and_how_to_go_on(store: Store):
    shown = answered("runs", "second")
    assert "stopped in train" in shown and "raypipe run p.yaml --resume second   goes on with it" in shown
    done = json.loads(answered("runs", "first", "--json"))
    assert [(stage["name"], stage["state"]) for stage in done["stages"]] == [("data", "done"), ("train", "done")]
    assert done["stages"][1]["left"] == layout.artifact("first", "train") and done["resume"] is None


def test_run_tells_where_the_time_of_its_training_went(store: Store):
    assert json.loads(answered("runs", "first", "--json"))["goodput"] is None, "of a training from before it was kept"
    trained = read_record(store, "first", "train")
    assert trained is not None
    spent = {f"{part}_s": 0.0 for part in ("starting", "rows", "validation", "checkpoints", "failures", "packaging")}
    goodput = Goodput(share=0.75, steps_s=3.0, **{**spent, "failures_s": 1.0})
    write_document(store, layout.record("first", "train"), trained.model_copy(update={"goodput": goodput}))

    assert "  goodput 0.75: steps 3.0 s of 4.0 s; lost to failures 1.0 s\n" in answered("runs", "first")
    assert json.loads(answered("runs", "first", "--json"))["goodput"] == goodput.model_dump(mode="json")


@pytest.mark.parametrize("words", [("runs", "frist"), ("logs", "frist"), ("compare", "first", "frist")])
def test_run_that_is_not_there_is_told_with_what_was_meant(store: Store, words: tuple[str, ...]):
    assert "no run 'frist'" in (told := refused(*words)) and "did you mean 'first'?" in told


def test_logs_prints_what_was_said_and_each_event_with_its_fields(store: Store):
    lines = answered("logs", "first").splitlines()
    assert [line.split(maxsplit=2)[2].split()[0] for line in lines] == ["data", "data", "train", "train"]
    assert json.loads(answered("logs", "first", "--json").splitlines()[1])["wall_s"] >= 0
    assert answered("logs", "second") == ""


def test_logs_with_damaged_lines_prints_the_others(store: Store):
    store.write(layout.events_part("first", 2), b'{"text": "whole"}\n{"te\n[]\n')
    lines = answered("logs", "first").splitlines()
    assert lines[4].endswith("whole") and "line 2 of" in lines[5] and "line 3 of" in lines[6]


def test_compare_shows_only_what_differs(store: Store):
    told = json.loads(answered("compare", "first", "second", "--json"))
    assert told["runs"] == ["first", "second"]
    assert told["differences"]["train.epochs"] == [3, 5]
    assert told["differences"]["artifact"][1] is None
    assert not {"dataset", "raypipe", "name"} & told["differences"].keys()
    assert answered("compare", "first", "first") == "no difference\n"


def test_compare_of_runs_of_two_pipelines_shows_both_names(store: Store):
    begin(store, "third", "2026-03-01T12:00:00Z", pipeline="other")
    assert json.loads(answered("compare", "first", "third", "--json"))["differences"]["name"] == ["digits", "other"]


def test_compare_of_one_run_is_refused(store: Store):
    assert "it takes at least two" in refused("compare", "first")
