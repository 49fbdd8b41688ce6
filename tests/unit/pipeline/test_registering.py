"""An older file run again finds its version; where the alias stays, the run says so; nothing is registered twice."""

from __future__ import annotations

import pytest

from raypipe.cli.summary import document, show_run
from raypipe.errors import AliasMoved
from raypipe.pipeline.api import RunResult
from raypipe.pipeline.plan import Step
from raypipe.pipeline.stages import STAGES, alias_of
from raypipe.pipeline.state import Records
from raypipe.records import EvaluationReport, ModelVersion
from raypipe.registry.aliases import Alias, Aliases
from raypipe.registry.versions import promote, version_numbers
from raypipe.runtime.progress import read_events
from raypipe.spec.load import parse_pipeline
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.testing import tiny
from raypipe.testing.fakes import MemoryStore, run_context

FILE = """\
name: tiny
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
"""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def spec() -> PipelineSpec:
    return parse_pipeline(FILE)


def made(store: MemoryStore, number: int) -> Records:
    """What the stages before registration leave for model `number`."""
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset, run_id=f"r{number}", strength=number)
    return {"data": dataset, "train": trained, "evaluate": tiny.report(trained)}


def register(spec: PipelineSpec, store: MemoryStore, records: Records, run_id: str) -> tuple[ModelVersion, str]:
    """The version, and what the run said."""
    ctx = run_context(store, run_id=run_id)
    version = STAGES["register"](spec, records, ctx)
    assert isinstance(version, ModelVersion)
    ctx.progress.save(store)
    return version, "\n".join(event["text"] for event in read_events(store, run_id))


def champion(store: MemoryStore) -> int:
    alias = Aliases(store, "tiny").get("champion")
    assert alias is not None
    return alias.version


def test_older_model_run_again_finds_its_version_leaves_the_alias_and_says_both(spec: PipelineSpec, store: MemoryStore):
    first, second = made(store, 1), made(store, 2)
    register(spec, store, first, "r1")
    register(spec, store, second, "r2")
    version, said = register(spec, store, first, "r3")
    assert (version.version, version.run_id, champion(store)) == (1, "r1", 2)
    assert "by run r1: no new version" in said and "registered" in said
    assert "champion stays at version 2: it pointed at version 1 before and was moved on" in said
    assert "raypipe promote tiny@1 --alias champion" in said


def test_model_judged_the_same_in_another_run_keeps_its_version_wherever_the_details_lie(
    spec: PipelineSpec, store: MemoryStore
):
    for run_id in ("r1", "r2"):
        records = made(store, 1)
        report = records["evaluate"]
        assert isinstance(report, EvaluationReport)
        keys = {
            "details_key": layout.evaluation_details(run_id),
            "confusion_key": layout.evaluation_confusions(run_id),
        }
        records["evaluate"] = report.model_copy(update=keys)
        assert register(spec, store, records, run_id)[0].version == 1
    worse = report.model_copy(update={"metrics": {"accuracy": 0.1}})
    assert register(spec, store, {**records, "evaluate": worse}, "r3")[0].version == 2


def test_older_model_found_behind_many_later_versions_makes_no_new_one(spec: PipelineSpec, store: MemoryStore):
    records = {number: made(store, number) for number in range(1, 9)}
    for number, each in records.items():
        register(spec, store, each, f"r{number}")
    assert register(spec, store, records[1], "r9")[0].version == 1
    assert (champion(store), version_numbers(store, "tiny")) == (8, list(range(1, 9)))


def test_older_model_takes_the_alias_where_the_file_says_so(store: MemoryStore):
    spec = parse_pipeline(FILE + "registry: {known_version: move_alias}\n")
    first = made(store, 1)
    register(spec, store, first, "r1")
    register(spec, store, made(store, 2), "r2")
    version, said = register(spec, store, first, "r3")
    assert (version.version, champion(store)) == (1, 1)
    assert "champion -> version 1 (was version 2)" in said


def test_model_rolled_back_from_and_run_again_does_not_take_the_alias_back(spec: PipelineSpec, store: MemoryStore):
    register(spec, store, made(store, 1), "r1")
    second = made(store, 2)
    register(spec, store, second, "r2")
    promote(store, "tiny@1")
    version, said = register(spec, store, second, "r3")
    assert (version.version, champion(store)) == (2, 1)
    assert "champion stays at version 1" in said


def test_champion_run_again_is_not_told_as_another(spec: PipelineSpec, store: MemoryStore):
    records = made(store, 1)
    register(spec, store, records, "r1")
    said = register(spec, store, records, "r2")[1]
    assert "no new version" in said and "stays" not in said


def test_damaged_version_does_not_stop_the_registration_of_another(spec: PipelineSpec, store: MemoryStore):
    records = made(store, 1)
    register(spec, store, records, "r1")
    register(spec, store, made(store, 2), "r2")
    store.write(layout.version("tiny", 2), b"{}")
    version, said = register(spec, store, records, "r3")
    assert version.version == 1
    assert "version 2 is passed over" in said and "is damaged" in said


def test_move_of_the_alias_is_tried_again_after_another_moved_it(store: MemoryStore, monkeypatch: pytest.MonkeyPatch):
    """Registering with `move_alias` ends at the version found although somebody moves the alias in between."""
    spec = parse_pipeline(FILE + "registry: {known_version: move_alias}\n")
    first = made(store, 1)
    register(spec, store, first, "r1")
    register(spec, store, made(store, 2), "r2")
    move, calls = Aliases.move, []

    def overtaken(self: Aliases, alias: str, to: int, *, expect: Alias | None) -> Alias:
        calls.append(to)
        if len(calls) == 1:
            raise AliasMoved("somebody was first")
        return move(self, alias, to, expect=expect)

    monkeypatch.setattr(Aliases, "move", overtaken)
    register(spec, store, first, "r3")
    assert (champion(store), calls) == (1, [1, 1])


def result(spec: PipelineSpec, store: MemoryStore, version: ModelVersion, run_id: str) -> RunResult:
    return RunResult(
        run_id=run_id,
        name=spec.name,
        store=store.uri,
        records={"register": version},
        steps={"register": Step("register", {}, None, "runs: gives the model its version")},
        alias=alias_of(spec, store),
    )


def test_result_says_which_version_was_found_and_what_the_champion_is(
    spec: PipelineSpec, store: MemoryStore, capsys: pytest.CaptureFixture[str]
):
    first = made(store, 1)
    register(spec, store, first, "r1")
    register(spec, store, made(store, 2), "r2")
    version, _ = register(spec, store, first, "r3")
    told = document(result(spec, store, version, "r3"))
    assert told["model"] == {"name": "tiny", "version": 1}
    assert told["registration"] == {"run": "r1", "is_new": False, "alias": {"name": "champion", "version": 2}}
    show_run(told)
    shown = capsys.readouterr().out
    assert "tiny@1, registered before by run r1, champion is version 2" in shown
    assert "note: this run found version 1; champion is version 2" in shown
    assert "raypipe promote tiny@1 --alias champion" in shown and "raypipe serve tiny@champion" in shown


def test_result_of_a_new_version_has_no_note(
    spec: PipelineSpec, store: MemoryStore, capsys: pytest.CaptureFixture[str]
):
    version, _ = register(spec, store, made(store, 1), "r1")
    show_run(document(result(spec, store, version, "r1")))
    shown = capsys.readouterr().out
    assert "tiny@1, champion" in shown and "note" not in shown
