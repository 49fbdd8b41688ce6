"""The pipeline loop: walk the plan; each step takes earlier records and leaves one of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raypipe.errors import SpecError
from raypipe.pipeline.plan import Planner, Step, step_names
from raypipe.pipeline.stages import NEEDS, STAGES
from raypipe.pipeline.state import Records, RunState
from raypipe.records import StageRecord
from raypipe.registry.aliases import Aliases
from raypipe.registry.versions import DEFAULT_ALIAS, get
from raypipe.runtime.context import RunContext
from raypipe.runtime.heartbeat import heartbeat
from raypipe.spec.pipeline import PipelineSpec


@dataclass
class Walk:
    """What a run did so far: records by stage, and why each stage ran or not."""

    records: Records = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)


def run(
    planner: Planner,
    ctx: RunContext,
    walk: Walk,
    *,
    until: str | None = None,
    done: Callable[[str], None] | None = None,
) -> None:
    """Walk the plan from data to `until` (the last stage when unset), filling `walk` as it goes.

    Args:
        done: told the name of each stage once it is done.

    Raises:
        RaypipeError: what a stage raised; the records of those before it are kept, and `--resume` goes on from there.
    """
    for name in step_names(planner.spec):
        step = planner.decide(name, walk.records)
        do_step(step, planner.spec, planner.state, ctx, walk)
        if done is not None:
            done(name)
        if name == until:
            return


def run_one(name: str, planner: Planner, ctx: RunContext, walk: Walk) -> None:
    """Do one stage alone; what it reads comes from this run, or from an earlier one made from the same inputs.

    Raises:
        SpecError: an earlier stage has left nothing yet; names the command that makes it.
    """
    collect_needed(name, planner, walk)
    do_step(planner.decide(name, walk.records), planner.spec, planner.state, ctx, walk)


def collect_needed(name: str, planner: Planner, walk: Walk) -> None:
    """Fill `walk` with the records a stage reads, without running anything."""
    model = "train" if planner.spec.tune is None else "tune"
    for need in NEEDS[name]:
        stage = model if need == "model" else need
        record = planner.state.record(stage) or _found_elsewhere(stage, planner, walk.records)
        if record is None:
            raise SpecError(
                f"{name} reads what {stage} leaves, and there is nothing yet for this file and data "
                f"in {planner.store.uri}",
                f"raypipe {stage} FILE makes it; or name a run that has it: --run RUN",
            )
        walk.records[stage] = record


def _found_elsewhere(stage: str, planner: Planner, records: Records) -> StageRecord | None:
    """What another run left from the same inputs; for `register`, the version the alias points at."""
    if stage != "register":
        found = planner.decide(stage, records).found
        return None if found is None else found.record
    model, registry = planner.spec.model_name, planner.spec.registry
    alias = Aliases(planner.store, model).get(registry.alias or DEFAULT_ALIAS)
    return None if alias is None else get(planner.store, model, alias.version)


def do_step(step: Step, spec: PipelineSpec, state: RunState, ctx: RunContext, walk: Walk) -> None:
    """Reuse or run one stage, and keep its record."""
    assert step.inputs is not None
    walk.steps[step.name] = step
    if step.found is not None:
        ctx.progress.say(step.name, step.reason)
        walk.records[step.name] = state.adopt(step.name, step.inputs, step.found)
        ctx.progress.offer(ctx.store)
        return
    state.begin(step.name, step.inputs)
    try:
        why = step.reason.removeprefix("runs: ")
        with ctx.progress.stage(step.name, why), heartbeat(ctx.progress, step.name):
            record = STAGES[step.name](spec, walk.records, ctx)
        walk.records[step.name] = state.save(step.name, step.inputs, record)
    finally:
        ctx.progress.offer(ctx.store)
