"""The table of stages: each takes the file and the records before it, calls its room, and gives its record.

Rooms are imported when their stage runs: `raypipe plan` must not pay for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from raypipe.errors import ObjectMissing
from raypipe.pipeline.first_weights import placed
from raypipe.pipeline.plan import chosen
from raypipe.pipeline.rival import find_rival, rival_ref
from raypipe.pipeline.state import Records, read_run
from raypipe.records import (
    Column,
    DatasetVersion,
    EvaluationReport,
    ModelVersion,
    StageRecord,
)
from raypipe.registry.aliases import Alias, Aliases
from raypipe.runtime.context import RunContext
from raypipe.spec.advice import advice
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout
from raypipe.storage.documents import read_document
from raypipe.storage.publish import MANIFEST

NUM_PROBE_ROWS = 2
"""Test rows sent to a new endpoint, and shown to the user as a request that works."""

Stage = Callable[[PipelineSpec, Records, RunContext], StageRecord]


def _data(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.data.stage import prepare

    return prepare(spec.data, ctx)


def _train(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.train.stage import train

    _warn("train", spec, records, ctx)
    return train(spec, _dataset(records), ctx, placed(spec.model, ctx.store, ctx.code_dir))


def _tune(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.tune.stage import tune

    _warn("tune", spec, records, ctx)
    return tune(spec, _dataset(records), ctx, placed(spec.model, ctx.store, ctx.code_dir))


def _warn(stage: str, spec: PipelineSpec, records: Records, ctx: RunContext) -> None:
    """Before the hours, not after them."""
    for text in advice(spec, train_rows(_dataset(records))):
        ctx.progress.say(stage, f"warning: {text}")


def train_rows(dataset: DatasetVersion) -> int | None:
    """Rows of the train split."""
    train = dataset.splits.get("train")
    return None if train is None else train.num_rows


def _evaluate(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.evaluate.stage import evaluate

    trained, dataset = chosen(records)
    ref = rival_ref(spec, ctx.store, trained.artifact)
    rival = None if ref is None else find_rival(ctx.store, ref)
    if ref is not None and rival is None:
        ctx.progress.say("evaluate", f"{ref}, which this model was compared with before, is gone: it is judged alone")
    return evaluate(spec.evaluate, trained, dataset, rival, ctx)


def _register(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.registry.stage import register

    trained, dataset = chosen(records)
    report = records["evaluate"]
    assert isinstance(report, EvaluationReport)
    known = _same_model(ctx.store, spec.model_name, report)
    if known is not None:
        # The same model judged the same way keeps its number: registering again in the run that made it is a no-op.
        ctx = replace(ctx, run_id=known.run_id)
    return register(spec.registry, spec.model_name, trained, dataset, report, ctx)


def _same_model(store: Store, model: str, report: EvaluationReport) -> ModelVersion | None:
    """The newest version of this very artifact, judged the same way."""
    from raypipe.registry.versions import list_versions

    if not store.exists(f"{layout.model_artifact(model, report.artifact.digest)}/{MANIFEST}"):
        return None  # the usual case: a new model, and no version has to be read
    for listed in reversed(list_versions(store, model)):
        version = listed.record
        if version is None or version.artifact.digest != report.artifact.digest:
            continue
        if version.evaluation.judges_as(report):
            return version
    return None


def _serve(spec: PipelineSpec, records: Records, ctx: RunContext) -> StageRecord:
    from raypipe.serve.stage import deploy

    version = records["register"]
    assert isinstance(version, ModelVersion) and spec.serve is not None
    alias = alias_of(spec, ctx.store)
    if alias is not None and alias.version != version.version:
        ctx.progress.say(
            "serve",
            f"this run serves version {version.version}, its own; {alias.name} is version {alias.version}",
            alias=alias.name,
            alias_version=alias.version,
        )
    return deploy(spec.serve, version, ctx, probe_rows=probe_rows(ctx.store, version))


def alias_of(spec: PipelineSpec, store: Store) -> Alias | None:
    """Where the alias that this pipeline moves points now; None where it moves none, or there is none yet."""
    return None if spec.registry.alias is None else Aliases(store, spec.model_name).get(spec.registry.alias)


STAGES: dict[str, Stage] = {
    "data": _data,
    "train": _train,
    "tune": _tune,
    "evaluate": _evaluate,
    "register": _register,
    "serve": _serve,
}

NEEDS: dict[str, tuple[str, ...]] = {
    "data": (),
    "train": ("data",),
    "tune": ("data",),
    "evaluate": ("data", "model"),
    "register": ("data", "model", "evaluate"),
    "serve": ("register",),
}
"""Records a stage reads; `model` is train's or tune's."""

WITHOUT_RAY = frozenset(("register",))
"""Stages that only move objects."""


def import_rooms(stages: Sequence[str], source_format: str = "") -> None:
    """Import in time what these stages would import when they run; the one that fails is told by its stage."""
    with suppress(Exception):
        for name in stages:
            import_module(f"raypipe.{'registry' if name == 'register' else name}.stage")
            if name == stages[0] == "serve":  # else it is brought beside the training
                import_module("ray.serve")
            if name == "data":
                from raypipe.data.formats import FORMATS

                for module in FORMATS[source_format].slow_imports:
                    import_module(module)


def probe_rows(store: Store, version: ModelVersion) -> list[dict[str, Any]] | None:
    """A few raw test rows (train rows where there is no test split) of the dataset a version was judged on.

    Returns:
        Rows as a request would hold them, JSON-able; None when the dataset is no longer in the store.
    """
    from raypipe.data.shards import load_rows

    run = read_run(store, version.run_id)
    if run is None:
        return None
    try:
        key = layout.dataset_record(run["spec"]["name"], version.dataset)
        dataset = read_document(store, key, DatasetVersion)
        split = "test" if dataset.splits["test"].num_rows else "train"
        num_rows = min(NUM_PROBE_ROWS, dataset.splits[split].num_rows)
        columns = load_rows(store, dataset, split, stop=num_rows).columns
    except ObjectMissing:
        return None
    return [
        {column.name: _plain(columns[column.name][row], column) for column in dataset.signature.inputs}
        for row in range(num_rows)
    ]


def _plain(value: Any, column: Column) -> Any:
    """One value as JSON has it; a missing number is null."""
    if column.is_list and isinstance(value, str):  # else it is missing
        from raypipe.data.table import text_lists

        return text_lists.parsed(value)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and column.dtype.startswith(("int", "uint")):
        return int(value)
    return value


def _dataset(records: Records) -> DatasetVersion:
    dataset = records["data"]
    assert isinstance(dataset, DatasetVersion)
    return dataset
