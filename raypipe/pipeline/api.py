"""The pipeline as a typed Python object: what `raypipe validate`, `plan` and `run` call."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

from raypipe.errors import RaypipeError, SpecError
from raypipe.pipeline.ahead import begun_ahead
from raypipe.pipeline.demand import demand_of
from raypipe.pipeline.plan import Planner, Step, check_step, step_names
from raypipe.pipeline.rival import champion_of
from raypipe.pipeline.run import Walk, collect_needed, run, run_one
from raypipe.pipeline.stages import WITHOUT_RAY, alias_of, import_rooms, train_rows
from raypipe.pipeline.state import RunState, flat
from raypipe.pipeline.unfinished import how_to_go_on, noted
from raypipe.records import DatasetVersion, Endpoint, StageRecord
from raypipe.registry.aliases import Alias
from raypipe.runtime.connect import Cluster, connect
from raypipe.runtime.context import RunContext, new_run_id
from raypipe.runtime.environment import hush
from raypipe.runtime.kept import joinable
from raypipe.runtime.progress import Progress
from raypipe.runtime.reach import check_shared, open_reachable
from raypipe.spec.advice import advice
from raypipe.spec.files import check_files
from raypipe.spec.load import PipelineFile, load_pipeline
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.track.tracking import About, check_trackers, tracked

ENDPOINT_POLL_S = 1.0
"""How often a waiting run looks whether its endpoint was stopped from elsewhere."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        records: by stage: data, train or tune, evaluate, register, serve; those that were reached.
        steps: by stage: whether it ran or was reused, and why.
        wall_s: wall seconds of each stage that ran.
        alias: where the pipeline's alias points at the end of the run: not at the run's version where it found an older
            one; None where it moves none.
        endpoint_stays: the endpoint outlives this process: it is on a cluster that was there before.
    """

    run_id: str
    name: str
    store: str
    records: Mapping[str, StageRecord]
    steps: Mapping[str, Step] = field(default_factory=dict)
    wall_s: Mapping[str, float] = field(default_factory=dict)
    alias: Alias | None = None
    endpoint_stays: bool = False

    @property
    def endpoint(self) -> Endpoint | None:
        """The live endpoint, where the pipeline ends in one."""
        found = self.records.get("serve")
        return found if isinstance(found, Endpoint) else None


class Pipeline:
    """One pipeline file, checked.

    Attributes:
        file: the file with its spec.
    """

    def __init__(self, file: PipelineFile, store: Store | str | None = None) -> None:
        self.file = file
        self._store = store
        self._asked_store = store if store is None or isinstance(store, str) else store.uri

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = (), store: Store | str | None = None) -> Pipeline:
        """Read and check a pipeline file.

        Args:
            overrides: `field.path=value` texts laid over the file.
            store: where everything is kept; unset: the file's `store`, $RAYPIPE_STORE, else `.raypipe`.
        Raises:
            SpecError: with file, line and field of every problem.
        """
        return cls(load_pipeline(path, overrides), store)

    @property
    def spec(self) -> PipelineSpec:
        """The whole tree of the file, with defaults filled in."""
        return self.file.spec

    def open_store(self) -> Store:
        """The pipeline's store; opened once. Raises StoreAccessError, and SpecError in a job that would lose it."""
        if not isinstance(self._store, Store):
            self._store = open_reachable(self._store or self.spec.store)
        return self._store

    def validate(self) -> None:
        """Check that the local files it names are there. Starts and imports nothing heavy.

        Raises:
            SpecError: with file, line and field of every missing one.
        """
        check_files(self.file)

    def plan(self, *, resume: str | None = None, fresh: bool = False) -> list[Step]:
        """Which stages would run, which would be reused, and why. Reads the store, starts no Ray."""
        self.validate()
        store = self.open_store()
        planner = self._planner(store, self._state(store, resume or new_run_id(), must_exist=resume), fresh)
        return self._comparable(planner.walk(), store)

    def advice(self, steps: Iterable[Step] = ()) -> list[str]:
        """Settings that have no effect, one line each; with a plan's steps, also those that its dataset shows."""
        records = [step.found.record for step in steps if step.found is not None]
        dataset = next((each for each in records if isinstance(each, DatasetVersion)), None)
        return advice(self.spec, None if dataset is None else train_rows(dataset))

    def run(
        self,
        *,
        resume: str | None = None,
        until: str | None = None,
        only: str | None = None,
        wait: bool = False,
        fresh: bool = False,
        run_id: str | None = None,
        on_done: Callable[[RunResult], None] | None = None,
        stream: TextIO | Literal["stderr"] | None = "stderr",
    ) -> RunResult:
        """From the dataset to the end of the file, using what earlier runs left from the same inputs.

        Args:
            resume: id of an interrupted run to go on with, under the same id; training continues from its checkpoint.
            until: last stage to do.
            only: do this stage alone, from what is there already.
            wait: stay until the endpoint is stopped or Ctrl-C, where Ray was started here; without it the endpoint
                ends with this call (on a cluster that was there before, it stays).
            fresh: use nothing that earlier runs left.
            run_id: run to work in, made if new; unset: a new one.
            on_done: called when all stages are done, before any waiting.
            stream: where progress lines go; None is silent.
        Raises:
            RaypipeError: the file, the data, the store, the cluster or a stage; see raypipe/errors.py.
        """
        if fresh and resume is not None:
            raise SpecError("--fresh uses nothing of earlier runs and --resume goes on with one; give one of them")
        for option, stage in (("--until", until), ("stage", only)):
            if stage is not None:
                check_step(stage, self.spec, option)
        self.validate()
        self._check_port(until, only)
        check_trackers(self.spec.track)
        store = self.open_store()
        store.check()  # before anything starts: a wrong bucket is an answer now, not after minutes
        state = self._state(store, resume or run_id or new_run_id(), must_exist=resume)
        planner = self._planner(store, state, fresh)
        ctx = self._context(store, state.run_id, stream, fresh=fresh)
        ctx.progress.say("run", f"{state.run_id} of pipeline '{self.spec.name}' in {store.uri}")
        walk = Walk()
        coming = self._steps_ahead(planner, until, only)
        for step in coming:
            if step.unfinished is not None:
                ctx.progress.say(step.name, str(step.unfinished))
        names = [step.name for step in coming]
        with (
            self._cluster(names, ctx.progress) as cluster,
            begun_ahead(self.spec, names, cluster, ctx) as ahead,
        ):
            ctx = replace(ctx, workers=ahead.workers)
            if not state.exists():
                state.describe(self._description())
            trackers = tracked(self.spec.track, self._about(ctx), ctx.progress)
            with ctx.progress.kept(store), trackers, self._resumable(state, ctx, walk, only, until):
                if only is not None:
                    run_one(only, planner, ctx, walk)
                else:
                    run(planner, ctx, walk, until=until, done=ahead.done)
            result = self._result(ctx, walk, cluster)
            if on_done is not None:
                on_done(result)
            if wait and result.endpoint is not None and cluster is not None and cluster.started_here:
                wait_until_stopped(result.endpoint)
        return result

    @contextmanager
    def _resumable(
        self, state: RunState, ctx: RunContext, walk: Walk, only: str | None, until: str | None
    ) -> Iterator[None]:
        """Have it known, while the stages run and after they were broken off, how to go on with the run."""
        words = ["raypipe", only or "run", str(self.file.path)]
        words += [word for override in self.file.overrides for word in ("--set", override)]
        words += ["--store", self._asked_store] if self._asked_store is not None else []
        words += ["--until", until] if until is not None else []
        resume = shlex.join([*words, "--run" if only else "--resume", state.run_id])
        try:
            with noted(state, resume):
                yield
        except BaseException as error:
            stage = next(reversed(walk.steps), "data")
            if text := how_to_go_on(state, stage, error, resume):
                ctx.progress.say(stage, text)
            raise

    def _check_port(self, until: str | None, only: str | None) -> None:
        """Refuse a taken port before minutes of work end there, and before seconds of imports."""
        serves = self.spec.serve
        if serves is not None and (only or until or "serve") == "serve" and starts_ray_here():
            from raypipe.serve.ingress import check_port_free

            check_port_free(serves.host, serves.port)

    def _steps_ahead(self, planner: Planner, until: str | None, only: str | None) -> list[Step]:
        """Stages that will run, as far as can be told now; the plan is decided again on the way."""
        if only is not None:
            walk = Walk()
            collect_needed(only, planner, walk)
            step = planner.decide(only, walk.records)
            return [] if step.reuse else [step]
        names = step_names(self.spec)
        wanted = names[: names.index(until) + 1] if until is not None else names
        ahead = [step for step in planner.walk() if step.name in wanted and not step.reuse]
        return self._comparable(ahead, planner.store)

    def _comparable(self, ahead: list[Step], store: Store) -> list[Step]:
        """The steps, unless a gate compares with a champion that is gone: better told now than after the training."""
        if any(step.name == "evaluate" and not step.reuse for step in ahead):
            champion_of(self.spec, store)
        return ahead

    @contextmanager
    def _cluster(self, steps: list[str], progress: Progress) -> Iterator[Cluster | None]:
        """Ray for these steps, or nothing where none of them needs it."""
        if all(step in WITHOUT_RAY for step in steps):
            yield None
            return
        code_dir = self.file.code_dir if self.spec.own_modules else None
        demand, imports = demand_of(self.spec, steps), partial(import_rooms, steps, self.spec.data.source.format)
        with connect(demand, code_dir=code_dir, progress=progress, while_starting=imports) as cluster:
            check_shared(self.open_store())
            yield cluster

    def _state(self, store: Store, run_id: str, *, must_exist: str | None) -> RunState:
        state = RunState(store, run_id, self.spec.name)
        if must_exist is not None and not state.exists():
            raise SpecError(f"--resume {must_exist}: no such run in {store.uri}", "runs are listed under runs/ there")
        return state

    def _planner(self, store: Store, state: RunState, fresh: bool) -> Planner:
        return Planner(spec=self.spec, store=store, state=state, code_dir=self.file.code_dir, fresh=fresh)

    def _context(
        self, store: Store, run_id: str, stream: TextIO | Literal["stderr"] | None, *, fresh: bool
    ) -> RunContext:
        return RunContext(
            run_id=run_id,
            store=store,
            progress=Progress(run_id, stream),
            name=self.spec.name,
            seed=self.spec.seed,
            fresh=fresh,
            code_dir=self.file.code_dir,
        )

    def _about(self, ctx: RunContext) -> About:
        asked = {name: value for name, value in flat(self.spec.model_dump(mode="json")).items() if value is not None}
        return About(pipeline=self.spec.name, run_id=ctx.run_id, store=ctx.store, asked=asked)

    def _description(self) -> dict[str, Any]:
        from raypipe import __version__

        return {
            "spec": self.spec.model_dump(mode="json"),
            "file": str(self.file.path.resolve()),
            "overrides": list(self.file.overrides),
            "raypipe": __version__,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _result(self, ctx: RunContext, walk: Walk, cluster: Cluster | None) -> RunResult:
        alias = None
        if "register" in walk.records:
            with suppress(RaypipeError):  # the run is done; a store that is away now does not undo it
                alias = alias_of(self.spec, ctx.store)
        return RunResult(
            run_id=ctx.run_id,
            name=self.spec.name,
            store=ctx.store.uri,
            records=dict(walk.records),
            steps=dict(walk.steps),
            wall_s=dict(ctx.progress.wall_s),
            alias=alias,
            endpoint_stays=cluster is not None and not cluster.started_here,
        )


def starts_ray_here() -> bool:
    """Whether `connect()` without an address will start Ray in this process."""
    ray = sys.modules.get("ray")  # not imported: then surely not started
    if ray is not None and ray.is_initialized():
        return False
    return os.environ.get("RAY_ADDRESS", "local") in ("", "local") and joinable() is None


def wait_until_stopped(endpoint: Endpoint) -> None:
    """Return when the endpoint is no longer deployed (`raypipe stop` from another terminal)."""
    from ray.exceptions import RayActorError

    from raypipe.serve import running

    hush()
    never = threading.Event()
    while True:
        try:
            if running.state_of(endpoint.name) == running.NOT_STARTED:
                return
        except RayActorError:  # Serve's controller went while it was asked
            return
        never.wait(ENDPOINT_POLL_S)
