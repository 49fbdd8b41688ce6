"""tune(): space + search + scheduler -> trials -> best."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from raypipe.errors import TrainingError
from raypipe.records import DatasetVersion, TrainResult, Trial, TuneResult
from raypipe.runtime import seeds
from raypipe.runtime.context import RunContext
from raypipe.runtime.resources import can_grow, ray_bundle
from raypipe.spec.pipeline import HIGHER_IS_BETTER, PipelineSpec
from raypipe.spec.tune import TuneSpec
from raypipe.storage import layout
from raypipe.tune import space
from raypipe.tune.finished import finished_trials, read_outcome
from raypipe.tune.schedulers import build_scheduler
from raypipe.tune.search import SEARCHES
from raypipe.tune.telling import Teller, quiet, reason_of, tell_failures
from raypipe.tune.trial import KEPT, TrialBase, run_trial

Mode = Literal["min", "max"]
NESTED_CPUS = 0.01
"""A trial that trains on workers of its own only waits for them; Ray refuses 0."""


def tune(spec: PipelineSpec, dataset: DatasetVersion, ctx: RunContext) -> TuneResult:
    """Search `spec.tune.space`; the best finished trial becomes the model.

    A trial with `train.num_workers: 1` trains in one process, others on a worker group of their own. A trial that
    fails is counted and shown; the search goes on. Trials that an earlier attempt of this run finished are kept, unless
    `ctx.fresh`.

    Raises:
        TrainingError: no trial finished; carries the first trial's reason.
    """
    assert spec.tune is not None, "the plan runs tune only where the file has a tune section"
    mode = resolved_mode(spec.tune)
    if ctx.fresh:
        ctx.store.delete_prefix(layout.trials(ctx.run_id))
    finished = finished_trials(ctx.store, ctx.run_id)
    if finished:
        ctx.progress.say("tune", f"{len(finished)} of {spec.tune.num_trials} trials finished before and are kept")
    base = TrialBase(spec, dataset, ctx.store.uri, ctx.run_id, ctx.name, ctx.code_dir, finished=finished)
    results = _search(base, mode, ctx)
    outcomes = {trial_id: read_outcome(ctx.store, ctx.run_id, trial_id) for trial_id in (_trial_id(r) for r in results)}
    trials = tuple(_trial(result, outcomes, spec.tune) for result in results)
    tell_failures(trials, ctx.progress)
    done = [trial for trial in trials if trial.status == "completed" and trial.metric is not None]
    if not done:
        reason = next((trial.error for trial in trials if trial.error), "no trial reported")
        raise TrainingError(f"tune: none of {len(trials)} trials finished; the first said: {reason}")
    best = _best(done, mode)
    outcome = outcomes[best.trial_id]
    assert outcome is not None
    return TuneResult(
        metric=spec.tune.metric,
        mode=mode,
        best_trial=best.trial_id,
        best_values=best.values,
        dataset=outcome[0],
        best=outcome[1],
        trials=trials,
    )


def resolved_mode(spec: TuneSpec) -> Mode:
    """Whether larger or smaller is better."""
    if spec.mode != "auto":
        return spec.mode
    return "max" if spec.metric.removeprefix("val_") in HIGHER_IS_BETTER else "min"


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
    workers = spec.largest_train.num_workers
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
    needed = {kind: amount * train.num_workers for kind, amount in ray_bundle(train.resources).items()}
    fits = [
        min(node["Resources"].get(kind, 0.0) / amount for kind, amount in needed.items())
        for node in nodes
        if node["Alive"]
    ]
    return max(1, min(max_concurrent, math.floor(max(fits, default=1.0))))


def _search(base: TrialBase, mode: Mode, ctx: RunContext) -> list[Any]:
    import ray
    from ray import tune as ray_tune

    spec = base.spec.tune
    assert spec is not None
    # Tune warns in these words about a console and a storage that this run does not use.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    max_concurrent_trials = max_concurrent(base.spec, ray.cluster_resources(), grows=can_grow(ray.nodes()))
    search = SEARCHES[spec.search.kind](
        spec.search,
        seed=seeds.derive(base.spec.seed, "search"),
        finished=[trial.drawn for trial in base.finished.values()],
        metric=spec.metric,
        mode=mode,
        # Not TuneConfig's own bound, which Tune applies to some searches only.
        max_concurrent=max_concurrent_trials,
    )
    base = replace(base, side_by_side=side_by_side(base.spec, ray.nodes(), max_concurrent_trials))
    scratch = tempfile.mkdtemp(prefix="raypipe-tune-")
    try:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(
                partial(run_trial, base=base), ray_tune.PlacementGroupFactory([trial_bundle(base.spec)])
            ),
            param_space=space.domains(spec.space),
            tune_config=ray_tune.TuneConfig(
                metric=spec.metric,
                mode=mode,
                num_samples=spec.num_trials,
                search_alg=search,
                scheduler=build_scheduler(spec.scheduler, max_epochs=base.spec.largest_train.epochs),
                # A later trial then starts at once. Not where a trial's workers live on until its process ends.
                reuse_actors=base.spec.largest_train.num_workers == 1,
            ),
            run_config=ray_tune.RunConfig(
                name=f"{ctx.name}-{ctx.run_id}",
                storage_path=scratch,
                verbose=0,
                callbacks=[Teller(ctx.progress, spec, base.spec.train.epochs, mode)],
            ),
        )
        with quiet():
            grid = tuner.fit()
        return [grid[index] for index in range(len(grid))]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def trial_bundle(spec: PipelineSpec) -> dict[str, float]:
    """What a trial's own process occupies."""
    train = spec.largest_train
    return {"CPU": NESTED_CPUS} if train.num_workers > 1 else ray_bundle(train.resources)


def _trial_id(result: Any) -> str:
    metrics = result.metrics or {}
    return str(metrics.get(KEPT) or metrics.get("trial_id") or result.path.rstrip("/").split("_")[-1])


def _trial(result: Any, outcomes: dict[str, tuple[DatasetVersion, TrainResult] | None], spec: TuneSpec) -> Trial:
    trial_id, metrics = _trial_id(result), result.metrics or {}
    outcome = outcomes[trial_id]
    status = "completed" if outcome else "failed" if result.error else "stopped"
    value = outcome[1].metrics[spec.metric] if outcome else metrics.get(spec.metric)
    return Trial(
        trial_id=trial_id,
        values=space.values(spec.space, {k: v for k, v in (result.config or {}).items() if k in spec.space}),
        status=status,
        metric=None if value is None else float(value),
        epochs=int(metrics.get("epoch", 0)),
        error=reason_of(result.error) if status == "failed" else None,
    )


def _best(done: list[Trial], mode: Mode) -> Trial:
    sign = 1 if mode == "max" else -1
    return max(done, key=lambda trial: sign * (trial.metric or 0.0))
