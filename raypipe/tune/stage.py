"""tune(): a search says which points are tried -> trials -> best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from raypipe.errors import TrainingError
from raypipe.records import ArtifactRef, DatasetVersion, Trial, TuneResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.resources import can_grow, ray_bundle
from raypipe.spec.base import fingerprint
from raypipe.spec.metrics import is_better_when_higher
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.tune import PbtSearch, TuneSpec
from raypipe.train.order import TrainOrder
from raypipe.tune.budget import Budget
from raypipe.tune.conductor import Conductor
from raypipe.tune.search import SEARCHES
from raypipe.tune.search.base import Setup
from raypipe.tune.telling import Teller
from raypipe.tune.trial import TrialBase, run_trial
from raypipe.tune.trial_log import TrialLog, delete_search, read_outcome

Mode = Literal["min", "max"]
NESTED_CPUS = 0.01
"""A trial that trains on workers of its own only waits for them; Ray refuses 0."""


def tune(
    spec: PipelineSpec, dataset: DatasetVersion, ctx: RunContext, first_weights: ArtifactRef | None = None
) -> TuneResult:
    """Search `spec.tune.space`; the best finished trial becomes the model.

    A trial with `train.num_workers: 1` trains in one process, others on a worker group of their own. A trial that
    fails or diverges is counted and told; the search goes on. Trials that earlier attempts of this run ended are kept,
    those they left running go on, and the search has learned from all of them; unless `ctx.fresh`.

    Args:
        first_weights: what `spec.model.init_from` names; every trial starts from it.
    Raises:
        SpecError: the rules of the file allow no point of the space.
        TrainingError: no trial finished; carries the first trial's reason.
        DocumentError: what earlier attempts left does not say which search it is of.
    """
    assert spec.tune is not None, "the plan runs tune only where the file has a tune section"
    mode = resolved_mode(spec.tune)
    if ctx.fresh:
        delete_search(ctx.store, ctx.run_id)
    base = TrialBase(spec, dataset, ctx.store.uri, ctx.run_id, ctx.name, ctx.code_dir, first_weights=first_weights)
    log = TrialLog(ctx.store, ctx.run_id, shaping(base), spec.tune.metric)
    for note in log.notes:
        ctx.progress.say("tune", note)
    search = SEARCHES[spec.tune.search.kind](Setup(spec, mode, log))
    budget = Budget(spec.tune.max_minutes, log.spent_s)
    teller = Teller(ctx.progress, spec.tune, spec.largest_train.epochs, mode)
    trials = _carry_out(Conductor(spec.tune, search, log, budget, teller), base)
    best = best_of(trials, mode)
    outcome = read_outcome(ctx.store, ctx.run_id, best.trial_id)
    assert outcome is not None, "a trial is completed when its outcome is there"
    return TuneResult(
        metric=spec.tune.metric,
        mode=mode,
        best_trial=best.trial_id,
        best_values=best.values,
        dataset=outcome[0],
        best=outcome[1],
        trials=tuple(trials),
    )


def best_of(trials: Sequence[Trial], mode: Mode) -> Trial:
    """The best finished trial, the first of equal ones.

    Raises:
        TrainingError: none finished.
    """
    done = [trial for trial in trials if trial.status == "completed" and trial.metric is not None]
    if not done:
        reason = next((trial.error for trial in trials if trial.error), "no trial reported")
        raise TrainingError(f"tune: none of {len(trials)} trials finished; the first said: {reason}")
    sign = 1 if mode == "max" else -1
    return max(done, key=lambda trial: sign * (trial.metric or 0.0))


def shaping(base: TrialBase) -> str:
    """Fingerprint of all that decides which trials there are and what comes out of each; not how many there will be,
    or how long they may take, so that a search can be made longer."""
    tune, train = base.spec.tune, base.spec.train
    assert tune is not None
    longer = {"max_concurrent_trials", "max_minutes", "max_trial_minutes", "max_failed_trials"}
    if not isinstance(tune.search, PbtSearch):
        longer.add("num_trials")
    order = TrainOrder(
        base.spec, base.dataset, base.store_uri, base.run_id, "", base.code_dir, first_weights=base.first_weights
    )
    return fingerprint(
        order.fingerprint(),
        train.epochs,
        tune.model_dump(mode="json", exclude=longer),
        base.spec.data.shaping(),
    )


def resolved_mode(spec: TuneSpec) -> Mode:
    """Whether larger or smaller is better."""
    if spec.mode != "auto":
        return spec.mode
    return "max" if is_better_when_higher(spec.metric.removeprefix("val_")) else "min"


def max_concurrent(spec: PipelineSpec, there: Mapping[str, float], *, grows: bool = False) -> int:
    """Trials at one time: what was asked for and what fits, with one CPU left for Ray Data.

    Trials that wait are what makes a cluster grow, so there they may be more than fit now. Not where a trial trains on
    workers of its own: it holds next to nothing while they wait, and all trials would wait for each other's workers.

    Args:
        there: the cluster's resources, Ray's names.
        grows: an autoscaler may add nodes.
    """
    assert spec.tune is not None
    asked = min(spec.tune.num_trials, spec.tune.max_concurrent_trials or spec.tune.num_trials)
    workers = spec.largest_train.max_workers
    if grows and workers == 1:
        return asked
    for_data = {"CPU": 1.0}
    fits = min(
        (there.get(kind, 0.0) - for_data.get(kind, 0.0)) / (amount * workers)
        for kind, amount in ray_bundle(spec.largest_train.resources).items()
    )
    return max(1, min(asked, math.floor(fits)))


def side_by_side(spec: PipelineSpec, nodes: Sequence[Mapping[str, Any]], max_concurrent: int) -> int:
    """Trials that the roomiest node takes at one time, and whose rows share its memory.

    Args:
        nodes: as `ray.nodes()` lists them.
    """
    train = spec.largest_train
    needed = {kind: amount * train.max_workers for kind, amount in ray_bundle(train.resources).items()}
    fits = [
        min(node["Resources"].get(kind, 0.0) / amount for kind, amount in needed.items())
        for node in nodes
        if node["Alive"]
    ]
    return max(1, min(max_concurrent, math.floor(max(fits, default=1.0))))


def _carry_out(conductor: Conductor, base: TrialBase) -> list[Trial]:
    import ray

    from raypipe.tune.on_ray_tune import carry_out

    spec = base.spec.tune
    assert spec is not None
    at_one_time = max_concurrent(base.spec, ray.cluster_resources(), grows=can_grow(ray.nodes()))
    base = replace(base, side_by_side=side_by_side(base.spec, ray.nodes(), at_one_time))
    return carry_out(
        conductor,
        partial(run_trial, base=base),
        name=f"{base.name}-{base.run_id}",
        bundle=trial_bundle(base.spec),
        max_concurrent=at_one_time,
        metric=spec.metric,
        # Not where a trial's workers live on until its process ends.
        reuse_processes=base.spec.largest_train.max_workers == 1,
    )


def trial_bundle(spec: PipelineSpec) -> dict[str, float]:
    """What a trial's own process occupies."""
    train = spec.largest_train
    return {"CPU": NESTED_CPUS} if train.max_workers > 1 else ray_bundle(train.resources)
