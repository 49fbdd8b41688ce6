"""Spec -> ordered steps, each marked run or reuse, with the reason in words.

A stage's outcome is known by its inputs: the part of the file it reads, the digests of what earlier stages left, and a
version of the stage itself.  Equal inputs, equal outcome: a record made from them is used again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import SpecError
from raypipe.pipeline.first_weights import digest_of_first_weights
from raypipe.pipeline.rival import rival_ref
from raypipe.pipeline.state import Found, Inputs, Records, RunState, flat
from raypipe.pipeline.unfinished import GOES_ON, UnfinishedRun, kept
from raypipe.pipeline.unfinished import find as find_unfinished
from raypipe.records import DatasetVersion, TrainResult, TuneResult
from raypipe.spec.base import fingerprint
from raypipe.spec.code import find_module
from raypipe.spec.data import DataSpec
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store

STAGE_VERSIONS = {"data": 3, "train": 2, "tune": 1, "evaluate": 1, "register": 1, "serve": 1}
"""Raise one when the same inputs give another outcome than before: older records are then not used again."""

ALWAYS = {"register": "gives the model its version", "serve": "brings the endpoint up"}
"""Stages that change the world outside the run: they always run, and repeating them is harmless."""

SAME = {"data": "same source and spec", "evaluate": "same model, dataset and gates"}
"""What was equal when a record is used again; `same data and spec` where nothing is said."""

WORDS = {
    "source": "the source files",
    "dataset": "the dataset",
    "code": "the model's source files",
    "artifact": "the model",
    "champion": "the champion",
    "first_weights": "the weights that model.init_from names",
    "stage_version": "raypipe's own stage",
}
"""How an input that is no field of the file is called."""

MAX_CHANGES_TOLD = 3


@dataclass(frozen=True)
class Step:
    """One stage of a run, and what was decided about it.

    Attributes:
        inputs: what its outcome depends on; None while an earlier stage has yet to run.
        found: the outcome that is used again; None: it runs.
        reason: why, e.g. `reused: same data and spec as r7e9` or `runs: train.epochs changed`.
        unfinished: another run that did not end in this stage, from the same inputs, and could be gone on with.
    """

    name: str
    inputs: Inputs | None
    found: Found | None
    reason: str
    unfinished: UnfinishedRun | None = None

    @property
    def text(self) -> str:
        """The decision as people read it in a plan."""
        return self.reason if self.unfinished is None else f"{self.reason}; {self.unfinished}"

    @property
    def reuse(self) -> bool:
        """Whether an earlier outcome is used again."""
        return self.found is not None


@dataclass(frozen=True)
class Planner:
    """Decides about one step at a time, from the records of the steps before it.

    Attributes:
        code_dir: folder that `model.kind: import` paths start from.
        fresh: use nothing that earlier runs left.
    """

    spec: PipelineSpec
    store: Store
    state: RunState
    code_dir: Path
    fresh: bool = False

    def decide(self, name: str, records: Records) -> Step:
        """What to do about a stage whose earlier stages are all in `records`."""
        inputs = INPUTS[name](self, records)
        self._check_resumable(name, inputs)
        if name in ALWAYS:
            return Step(name, inputs, None, f"runs: {ALWAYS[name]}")
        if self.fresh:
            return Step(name, inputs, None, "runs: --fresh")
        found = self.state.find(name, inputs)
        if found is None:
            unfinished = find_unfinished(self.state, name, inputs)
            return Step(name, inputs, None, f"runs: {self._why_run(name, inputs)}", unfinished)
        if found.run_id == self.state.run_id:
            return Step(name, inputs, found, "reused: done earlier in this run")
        return Step(name, inputs, found, f"reused: {SAME.get(name, 'same data and spec')} as {found.run_id}")

    def walk(self) -> list[Step]:
        """All steps, without running any: what follows a step that runs is not known yet, so it runs too."""
        steps: list[Step] = []
        records: Records = {}
        pending = ""
        for name in step_names(self.spec):
            step = Step(name, None, None, f"runs: after {pending}") if pending else self.decide(name, records)
            if step.found is not None:
                records[name] = step.found.record
            else:
                pending = name
            steps.append(step)
        return steps

    def _why_run(self, name: str, inputs: Inputs) -> str:
        if name in GOES_ON and self.state.inputs(name) is not None:
            return f"goes on in this run ({kept(self.store, self.state.run_id, name) or 'from its start'})"
        last = self.state.last(name)
        if last is None:
            return "no earlier result"
        changed = changes(last[1], inputs)
        if not changed:
            return f"the earlier result of {last[0]} {self.state.flaw(name, last[0])}"
        more = len(changed) - MAX_CHANGES_TOLD
        told = ", ".join(changed[:MAX_CHANGES_TOLD]) + (f" and {more} more" if more > 0 else "")
        return f"{told} changed"

    def _check_resumable(self, name: str, inputs: Inputs) -> None:
        """A run's checkpoints and trials belong to the settings they were made with."""
        before = self.state.inputs(name) if name in GOES_ON and not self.fresh else None
        changed = changes(before, inputs) if before is not None else []
        if changed:
            raise SpecError(
                f"run {self.state.run_id} cannot go on with {name}: {', '.join(changed)} changed since it started",
                "start a new run (leave --resume and --run out), or go back to what the run was started with",
            )


def step_names(spec: PipelineSpec) -> tuple[str, ...]:
    """The stages of a pipeline in order: a search replaces train, and serve is there when the file has it."""
    model = "train" if spec.tune is None else "tune"
    return ("data", model, "evaluate", "register", *(("serve",) if spec.serve is not None else ()))


def check_step(name: str, spec: PipelineSpec, option: str) -> None:
    """Refuse a stage this pipeline does not have.

    Raises:
        SpecError: naming the stages there are.
    """
    names = step_names(spec)
    if name in names:
        return
    if name == "serve":
        raise SpecError(f"{option} serve: the file has no `serve` section", "add one, e.g. `serve: {port: 8000}`")
    if name == "tune":
        raise SpecError(f"{option} tune: the file has no `tune` section", "add one, or use train")
    if name == "train":
        raise SpecError(f"{option} train: the file searches (it has a `tune` section)", "use tune instead of train")
    close = difflib.get_close_matches(name, names, n=1)
    raise SpecError(
        f"{option} {name}: no such stage; this pipeline has {', '.join(names)}",
        f"did you mean '{close[0]}'?" if close else "",
    )


def chosen(records: Records) -> tuple[TrainResult, DatasetVersion]:
    """The model that goes on, and the dataset it was trained on: the best trial's where there was a search."""
    tuned = records.get("tune")
    if isinstance(tuned, TuneResult):
        return tuned.best, tuned.dataset
    trained, dataset = records["train"], records["data"]
    assert isinstance(trained, TrainResult) and isinstance(dataset, DatasetVersion)
    return trained, dataset


def changes(before: Inputs, now: Inputs) -> list[str]:
    """Names of the inputs that differ, as fields of the file where they are some."""
    old, new = flat(before), flat(now)
    paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    return list(dict.fromkeys(WORDS.get(path.partition(".")[0], path) for path in paths))


# ---- what each stage's outcome depends on


def _data_inputs(planner: Planner, records: Records) -> Inputs:
    data = planner.spec.data
    return {
        "name": planner.spec.name,
        "data": data.shaping(),
        "source": source_fingerprint(data),
        "stage_version": STAGE_VERSIONS["data"],
    }


def source_fingerprint(spec: DataSpec) -> str:
    """Changes when a source file or the key of a masked column does; lists files and reads at most small sources.

    Imports no Ray: it is what `raypipe plan` waits for.

    Raises:
        DataError: the source is not there.
        SpecError: the key of a masked column is not there.
    """
    from raypipe.data.sources.listing import listed

    keys = ""
    if spec.masking:
        from raypipe.data.masking import read_keys

        keys = read_keys(spec.masking).fingerprint()
    return fingerprint(listed(spec), keys)


def _train_inputs(planner: Planner, records: Records) -> Inputs:
    dataset = records["data"]
    assert isinstance(dataset, DatasetVersion)
    return {
        "model": planner.spec.model.shaping(),
        "train": planner.spec.train.shaping(),
        "seed": planner.spec.seed,
        "dataset": dataset.version,
        "code": _code_digests(planner),
        **_first_weights(planner),
        "stage_version": STAGE_VERSIONS["train"],
    }


def _tune_inputs(planner: Planner, records: Records) -> Inputs:
    assert planner.spec.tune is not None
    inputs = _train_inputs(planner, records)
    data = planner.spec.data
    return {
        **inputs,
        # How many trials run at one time is what a user lowers after a search ran out of memory.
        "tune": planner.spec.tune.model_dump(mode="json", exclude={"max_concurrent_trials"}),
        # Trials may search data fields, so they read more than the dataset version.
        "data": data.shaping(),
        "stage_version": [STAGE_VERSIONS["train"], STAGE_VERSIONS["tune"]],
    }


def _evaluate_inputs(planner: Planner, records: Records) -> Inputs:
    trained, dataset = chosen(records)
    return {
        "evaluate": planner.spec.evaluate.model_dump(mode="json", include={"gates"}),
        "artifact": trained.artifact.digest,
        "dataset": dataset.version,
        "champion": rival_ref(planner.spec, planner.store, trained.artifact),
        "stage_version": STAGE_VERSIONS["evaluate"],
    }


def _register_inputs(planner: Planner, records: Records) -> Inputs:
    trained, _ = chosen(records)
    return {
        "registry": planner.spec.registry.model_dump(mode="json"),
        "artifact": trained.artifact.digest,
        "stage_version": STAGE_VERSIONS["register"],
    }


def _serve_inputs(planner: Planner, records: Records) -> Inputs:
    assert planner.spec.serve is not None
    return {"serve": planner.spec.serve.model_dump(mode="json"), "stage_version": STAGE_VERSIONS["serve"]}


INPUTS: dict[str, Callable[[Planner, Records], Inputs]] = {
    "data": _data_inputs,
    "train": _train_inputs,
    "tune": _tune_inputs,
    "evaluate": _evaluate_inputs,
    "register": _register_inputs,
    "serve": _serve_inputs,
}


def _first_weights(planner: Planner) -> Inputs:
    digest = digest_of_first_weights(planner.spec.model, planner.store, planner.code_dir)
    return {} if digest is None else {"first_weights": digest}


def _code_digests(planner: Planner) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for path in planner.spec.own_modules.values():
        found |= find_module(path, planner.code_dir).digests
    return found or None
