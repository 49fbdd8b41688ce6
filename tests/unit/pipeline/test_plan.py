"""What runs, what is used again, and the reason in words; records are made by hand, no stage runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from raypipe.errors import DocumentError, RegistryError, SpecError
from raypipe.pipeline.api import Pipeline
from raypipe.pipeline.plan import Planner, changes, check_step
from raypipe.pipeline.rival import find_rival
from raypipe.pipeline.run import Walk, collect_needed, run
from raypipe.pipeline.stages import STAGES
from raypipe.pipeline.state import Records, RunState
from raypipe.records import (
    ArtifactRef,
    DatasetVersion,
    EvaluationReport,
    ModelVersion,
    Signature,
    Split,
    StageRecord,
    TrainResult,
)
from raypipe.registry.aliases import Aliases
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress, read_events
from raypipe.spec.load import load_pipeline
from raypipe.storage import Store, layout
from raypipe.storage.documents import write_document
from raypipe.storage.publish import publish
from raypipe.testing.fakes import MemoryStore, run_context

FILE = """\
name: flowers
data: {source: {format: csv, path: rows.csv}, target: y}
model: {kind: import, path: "model.py:build"}
train: {epochs: 3}
"""

SIGNATURE = Signature(inputs=(), task="classification", target="y", classes=("no", "yes"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(FILE)
    (tmp_path / "rows.csv").write_text("x,y\n1,no\n2,yes\n")
    (tmp_path / "model.py").write_text("def build(): ...\n")
    return tmp_path


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def planner(folder: Path, store: Store, *sets: str, run_id: str = "rnew", fresh: bool = False) -> Planner:
    spec = load_pipeline(folder / "pipeline.yaml", sets).spec
    return Planner(spec=spec, store=store, state=RunState(store, run_id, spec.name), code_dir=folder, fresh=fresh)


def finish(planned: Planner, *stages: str) -> Records:
    """Do as if these stages ran: records like theirs, and what they point at."""
    records: Records = {}
    for stage in stages:
        step = planned.decide(stage, records)
        if step.found is not None:
            records[stage] = step.found.record
            continue
        assert step.inputs is not None
        planned.state.describe({})
        planned.state.begin(stage, step.inputs)
        records[stage] = planned.state.save(stage, step.inputs, _made(stage, planned, records))
    return records


def _made(stage: str, planned: Planner, records: Records) -> StageRecord:
    run_id = planned.state.run_id
    if stage == "data":
        dataset = DatasetVersion(
            name="flowers",
            version=f"d-{run_id}",
            signature=SIGNATURE,
            splits={},
            transforms=(),
            feature_shape=(1,),
            content_fingerprint="c",
        )
        write_document(planned.store, layout.dataset_record(dataset.name, dataset.version), dataset)
        return dataset
    if stage == "train":
        key = layout.artifact(run_id, "train")
        digest = publish(planned.store, key, {"weights": run_id.encode()}).digest
        return TrainResult(
            run_id=run_id,
            dataset="d",
            artifact=ArtifactRef(key=key, digest=digest),
            history=(),
            best_epoch=1,
            num_steps=1,
            num_parameters=1,
            num_workers=1,
            rows_per_s=1.0,
        )
    trained = records["train"]
    assert isinstance(trained, TrainResult)
    return EvaluationReport(artifact=trained.artifact, dataset="d", num_rows=1, metrics={"accuracy": 1.0})


def champion(planned: Planner, records: Records, number: int) -> None:
    """Register what a run trained, and point the alias at it."""
    trained, report = records["train"], records["evaluate"]
    assert isinstance(trained, TrainResult) and isinstance(report, EvaluationReport)
    version = ModelVersion(
        model="flowers",
        version=number,
        artifact=trained.artifact,
        signature=SIGNATURE,
        run_id=planned.state.run_id,
        dataset="d",
        metrics={},
        evaluation=report,
        created_at="2026-01-01T00:00:00Z",
    )
    planned.store.write(layout.version("flowers", number), version.to_json())
    aliases = Aliases(planned.store, "flowers")
    aliases.move("champion", to=number, expect=aliases.get("champion"))


def reasons(planned: Planner) -> dict[str, str]:
    return {step.name: step.reason for step in planned.walk()}


def test_plan_first_time_runs_everything(folder: Path, store: MemoryStore):
    assert reasons(planner(folder, store)) == {
        "data": "runs: no earlier result",
        "train": "runs: after data",
        "evaluate": "runs: after train",
        "register": "runs: after evaluate",
    }


def test_plan_same_file_again_reuses_all_but_registration(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train", "evaluate")
    assert reasons(planner(folder, store)) == {
        "data": "reused: same source and spec as r7e9",
        "train": "reused: same data and spec as r7e9",
        "evaluate": "reused: same model, dataset and gates as r7e9",
        "register": "runs: gives the model its version",
    }


@pytest.mark.parametrize(
    ("sets", "first", "reason"),
    [
        (["train.epochs=4"], "train", "runs: train.epochs changed"),
        (["train.optimizer.lr=0.5", "seed=3"], "train", "runs: seed, train.optimizer.lr changed"),
        (["data.split.salt=x"], "data", "runs: data.split.salt changed"),
        (["evaluate.gates=[{metric: accuracy, min: 0.5}]"], "evaluate", "runs: evaluate.gates changed"),
    ],
)
def test_plan_changed_field_runs_from_its_stage_on(
    folder: Path, store: MemoryStore, sets: list[str], first: str, reason: str
):
    finish(planner(folder, store, run_id="r7e9"), "data", "train", "evaluate")
    steps = planner(folder, store, *sets).walk()
    names = [step.name for step in steps]
    assert [step.name for step in steps if step.reuse] == names[: names.index(first)]
    assert steps[names.index(first)].reason == reason


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        (layout.record("r7e9", "train"), lambda data: data.replace(b'"best_epoch": 1', b'"best_epoch": 2')),
        (layout.record("r7e9", "train"), lambda data: data[:-40]),
        (layout.record("r7e9", "train"), lambda data: b'{"written": "by another raypipe"}'),
    ],
    ids=["changed", "cut off", "of another raypipe"],
)
def test_plan_damaged_outcome_runs_again(folder: Path, store: MemoryStore, key: str, damage: Callable[[bytes], bytes]):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    store.write(key, damage(store.read(key)))
    assert (
        reasons(planner(folder, store))["train"]
        == "runs: the earlier result of r7e9 is damaged or of another version of raypipe"
    )


def test_plan_damaged_pointers_run_again(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    for info in [*store.list("stages"), *store.list("pipelines")]:
        store.write(info.key, b"{")
    assert reasons(planner(folder, store))["data"] == "runs: no earlier result"


@pytest.mark.parametrize(
    "harmless",
    [
        "train.max_failures=9",
        "train.start_timeout_s=9",
        "train.trainer=ray_train",
        "train.checkpoint.every_steps=9",
        "train.resources.num_cpus=0.25",
        "train.resources.memory_bytes=99",
        "train.rows.resident_bytes=0",
        "data.read_parallelism=9",
        "evaluate.num_workers=2",
    ],
)
def test_plan_field_that_changes_no_result_reuses_everything(folder: Path, store: MemoryStore, harmless: str):
    finish(planner(folder, store, run_id="r7e9"), "data", "train", "evaluate")
    assert [step.reuse for step in planner(folder, store, harmless).walk()] == [True, True, True, False]


def test_plan_changed_source_file_runs_data(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    (folder / "rows.csv").write_text("x,y\n1,no\n2,yes\n3,yes\n")
    assert reasons(planner(folder, store))["data"] == "runs: the source files changed"


def test_plan_changed_model_source_runs_train(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    (folder / "model.py").write_text("def build(): return 1\n")
    assert reasons(planner(folder, store))["train"] == "runs: the model's source files changed"


def test_plan_changed_helper_that_the_model_imports_runs_train(folder: Path, store: MemoryStore):
    (folder / "model.py").write_text("from nets import layers\ndef build(): ...\n")
    (folder / "nets").mkdir()
    (folder / "nets" / "layers.py").write_text("WIDTH = 3\n")
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    assert reasons(planner(folder, store))["train"].startswith("reused")
    (folder / "unrelated.py").write_text("")
    assert reasons(planner(folder, store))["train"].startswith("reused")
    (folder / "nets" / "layers.py").write_text("WIDTH = 4\n")
    assert reasons(planner(folder, store))["train"] == "runs: the model's source files changed"


def test_plan_file_in_another_folder_reuses_everything(folder: Path, store: MemoryStore, tmp_path: Path):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("pipeline.yaml", "model.py", "rows.csv"):
        (other / name).write_bytes((folder / name).read_bytes())
    assert [step.reuse for step in planner(other, store).walk()[:2]] == [True, True]


def test_plan_result_that_was_deleted_runs_again(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    store.delete_prefix(layout.artifact("r7e9", "train"))
    assert reasons(planner(folder, store))["train"] == "runs: the earlier result of r7e9 is no longer whole"


def test_plan_fresh_uses_nothing(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    assert reasons(planner(folder, store, fresh=True))["data"] == "runs: --fresh"


def test_plan_resumed_run_uses_its_own_records_first(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data")
    finish(planner(folder, store, run_id="rother", fresh=True), "data")
    assert reasons(planner(folder, store, run_id="r7e9"))["data"] == "reused: done earlier in this run"


def test_plan_resumed_run_with_other_training_is_refused(folder: Path, store: MemoryStore):
    started = planner(folder, store, run_id="r7e9")
    records = finish(started, "data")
    inputs = started.decide("train", records).inputs
    assert inputs is not None
    started.state.begin("train", inputs)
    with pytest.raises(SpecError, match=r"run r7e9 cannot go on with train: train\.epochs changed since it started"):
        planner(folder, store, "train.epochs=9", run_id="r7e9").walk()
    assert reasons(planner(folder, store, run_id="r7e9"))["train"] == "runs: goes on in this run (from its start)"


@pytest.mark.parametrize(
    "harmless",
    [
        "train.resources.memory_bytes=2000000000",
        "train.resources.num_cpus=2",
        "train.rows.resident_bytes=0",
        "train.checkpoint.every_steps=3",
        "train.max_failures=0",
        "train.trainer=ray_train",
        "tune.max_concurrent_trials=1",
    ],
)
@pytest.mark.parametrize("stage", ["train", "tune"])
def test_plan_resumed_run_with_a_change_that_shapes_no_weight_goes_on(
    folder: Path, store: MemoryStore, stage: str, harmless: str
):
    search = ["tune.space={train.optimizer.lr: {uniform: [0.1, 0.2]}}"] if stage == "tune" else []
    if harmless.startswith("tune.") and not search:
        harmless = "train.start_timeout_s=9"
    started = planner(folder, store, *search, run_id="r7e9")
    inputs = started.decide(stage, finish(started, "data")).inputs
    assert inputs is not None
    started.state.begin(stage, inputs)

    again = planner(folder, store, *search, harmless, run_id="r7e9").walk()

    assert next(step for step in again if step.name == stage).inputs == inputs


def test_plan_fresh_in_a_run_that_was_there_may_change_its_training(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    changed = planner(folder, store, "train.epochs=9", run_id="r7e9", fresh=True)
    assert changed.decide("train", finish(changed, "data")).reason == "runs: --fresh"


def test_plan_stage_begun_anew_and_broken_off_is_not_taken_for_done(folder: Path, store: MemoryStore):
    records = finish(planner(folder, store, run_id="r7e9"), "data", "train", "evaluate")
    other_gate = "evaluate.gates=[{metric: accuracy, min: 0.5}]"
    changed = planner(folder, store, other_gate, run_id="r7e9")
    inputs = changed.decide("evaluate", records).inputs
    assert inputs is not None
    changed.state.begin("evaluate", inputs)  # and it failed

    assert not changed.decide("evaluate", records).reuse


def test_plan_outcome_that_its_run_replaced_is_not_used_for_the_inputs_before(folder: Path, store: MemoryStore):
    records = finish(planner(folder, store, run_id="r7e9"), "data", "train", "evaluate")
    changed = planner(folder, store, "evaluate.gates=[{metric: accuracy, min: 0.5}]", run_id="r7e9")
    finish(changed, "data", "train", "evaluate")

    assert not planner(folder, store).decide("evaluate", records).reuse


@pytest.mark.parametrize("damage", [b"{", b'{"kind": "train", "seen_tokens": 3}'], ids=["damaged", "other version"])
def test_plan_record_that_cannot_be_read_runs_again_and_says_why(folder: Path, store: MemoryStore, damage: bytes):
    finish(planner(folder, store, run_id="r7e9"), "data", "train")
    store.write(layout.record("r7e9", "train"), damage)

    expected = "runs: the earlier result of r7e9 is damaged or of another version of raypipe"
    assert reasons(planner(folder, store))["train"] == expected


@pytest.mark.parametrize("stage", ["data", "train"])
def test_stage_alone_whose_needed_record_cannot_be_read_is_ours_and_names_the_field(
    folder: Path, store: MemoryStore, stage: str
):
    started = planner(folder, store, run_id="r7e9")
    finish(started, "data", "train")
    record = started.state.record(stage)
    assert record is not None
    write_document(store, layout.record("r7e9", stage), {**record.model_dump(mode="json"), "seen_tokens": 3})

    with pytest.raises(DocumentError, match=r"from another version of raypipe .*seen_tokens") as caught:
        collect_needed("evaluate", started, Walk())
    assert (caught.value.exit_code, caught.value.transient) == (1, False), "trying again does not help"


def test_plan_gate_against_champion_runs_again_when_the_champion_changed(folder: Path, store: MemoryStore):
    gate = "evaluate.gates=[{metric: accuracy, min_gain_over_champion: 0}]"
    old = planner(folder, store, gate, run_id="rold")
    champion(old, finish(old, "data", "train", "evaluate"), 1)
    new = planner(folder, store, gate, "seed=5", run_id="rnewer")
    finish(new, "data", "train", "evaluate")
    assert reasons(planner(folder, store, gate, "seed=5"))["evaluate"].startswith("reused")
    other = planner(folder, store, "seed=9", run_id="rthird")
    champion(other, finish(other, "data", "train", "evaluate"), 2)
    assert reasons(planner(folder, store, gate, "seed=5"))["evaluate"].startswith("runs: the model, the champion")


def test_plan_model_that_is_the_champion_itself_keeps_its_verdict(folder: Path, store: MemoryStore):
    gate = "evaluate.gates=[{metric: accuracy, min_gain_over_champion: 0.1}]"
    run = planner(folder, store, gate, run_id="rold")
    champion(run, finish(run, "data", "train", "evaluate"), 1)
    assert reasons(planner(folder, store, gate))["evaluate"] == "reused: same model, dataset and gates as rold"


def test_plan_champion_whose_rival_was_deleted_keeps_its_verdict(folder: Path, store: MemoryStore):
    gate = "evaluate.gates=[{metric: accuracy, min_gain_over_champion: 0.0}]"
    beaten = planner(folder, store, gate, run_id="rold")
    champion(beaten, finish(beaten, "data", "train", "evaluate"), 1)
    run = planner(folder, store, gate, "seed=5", run_id="rnewer")
    champion(run, finish(run, "data", "train", "evaluate"), 2)
    store.delete(layout.version("flowers", 1))

    again = planner(folder, store, gate, "seed=5")
    assert reasons(again)["evaluate"] == "reused: same model, dataset and gates as rnewer"
    assert find_rival(store, "flowers@1") is None and find_rival(store, "flowers@2") is not None


def test_plan_champion_that_was_deleted_is_told_by_its_alias_before_anything_runs(folder: Path, store: MemoryStore):
    gate = "evaluate.gates=[{metric: accuracy, min_gain_over_champion: 0.0}]"
    old = planner(folder, store, gate, run_id="rold")
    champion(old, finish(old, "data", "train", "evaluate"), 1)
    store.delete(layout.version("flowers", 1))

    asked = Pipeline.load(folder / "pipeline.yaml", [gate, "seed=5"], store)
    with pytest.raises(RegistryError) as caught:
        asked.plan()
    assert caught.value.message.startswith("flowers@champion points at version 1: no model 'flowers'")
    assert "raypipe promote flowers@VERSION" in caught.value.hint


def test_plan_search_replaces_training(folder: Path, store: MemoryStore):
    steps = planner(folder, store, "tune={space: {seed: {choice: [1, 2]}}}", "serve={}").walk()
    assert [step.name for step in steps] == ["data", "tune", "evaluate", "register", "serve"]


def test_one_stage_without_what_it_reads_names_the_command(folder: Path, store: MemoryStore):
    with pytest.raises(SpecError) as caught:
        collect_needed("train", planner(folder, store), Walk())
    assert "train reads what data leaves" in caught.value.message
    assert "raypipe data FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "--until trian: no such stage; this pipeline has data, train, evaluate, register\ntry: did you mean"),
        ("serve", "--until serve: the file has no `serve` section"),
        ("tune", "--until tune: the file has no `tune` section"),
    ],
)
def test_stage_the_pipeline_does_not_have_is_refused(folder: Path, name: str, message: str):
    with pytest.raises(SpecError) as caught:
        check_step(name, load_pipeline(folder / "pipeline.yaml").spec, "--until")
    assert str(caught.value).startswith(message)


def test_run_that_reuses_every_stage_up_to_its_last_keeps_that_in_its_events(folder: Path, store: MemoryStore):
    finish(planner(folder, store, run_id="rold"), "data", "train", "evaluate")
    walk = Walk()
    run(planner(folder, store), run_context(store, run_id="rnew"), walk, until="train")
    assert [(name, step.reuse) for name, step in walk.steps.items()] == [("data", True), ("train", True)]
    events = read_events(store, "rnew")
    assert [(event["stage"], event["text"]) for event in events] == [
        ("data", "reused: same source and spec as rold"),
        ("train", "reused: same data and spec as rold"),
    ]


def test_changes_name_fields_and_call_other_inputs_by_words():
    before = {"train": {"epochs": 3, "lr": 1}, "source": "a", "stage_version": 1}
    now = {"train": {"epochs": 4, "lr": 1}, "source": "b", "stage_version": 2}
    assert changes(before, now) == ["the source files", "raypipe's own stage", "train.epochs"]


def test_run_warns_before_it_trains_of_a_warmup_that_its_rows_do_not_reach(
    folder: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    override = "train.schedule={kind: cosine, warmup_steps: 1000}"
    spec = load_pipeline(folder / "pipeline.yaml", [override]).spec
    made = _made("data", planner(folder, store), {})
    assert isinstance(made, DatasetVersion)
    split = Split(shards=(), num_rows=10)
    records: Records = {"data": made.model_copy(update={"splits": {"train": split}})}
    stream = io.StringIO()
    seen: list[str] = []
    monkeypatch.setattr("raypipe.train.stage.train", lambda *_: seen.append(stream.getvalue()))

    STAGES["train"](spec, records, RunContext(run_id="r1", store=store, progress=Progress("r1", stream)))

    (before,) = seen
    assert " train     warning: train.schedule.warmup_steps=1000 is beyond the training's 3 steps" in before
