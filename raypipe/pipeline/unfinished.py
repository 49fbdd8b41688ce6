"""Runs that began and did not end: what a plan, the next run and the end of an interrupted one tell about them.

A run leaves a note when it begins and takes it away when there is nothing to go on with. A driver that is killed
takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from raypipe.errors import RaypipeError, StoreError, find_known
from raypipe.pipeline.state import Inputs, RunState, plain, read_json
from raypipe.runtime.process import ProcessId
from raypipe.storage import Store, layout
from raypipe.storage.documents import write_document

GOES_ON = ("train", "tune")
"""Stages that keep what they did before they end; any other is done again by the same command."""

NEEDS_A_CHANGE = (2, 3)
"""Exit codes of errors that stay until the file or the data change, and then it is another run."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that stopped, or still is, in a stage made from certain inputs.

    Attributes:
        process: its driver.
        kept: what it has done that `resume` goes on from, in words; empty when that is nothing.
        resume: the command that goes on with it.
    """

    run_id: str
    process: ProcessId
    kept: str
    resume: str

    def __str__(self) -> str:
        if self.process.lives:
            return f"{self.run_id} does the same now, as process {self.process.pid}"
        where = f" on {self.process.host}" if self.process.is_elsewhere else ""
        return f"{self.run_id} began this{where} and did not end ({self.kept}); `{self.resume}` goes on with it"


@contextmanager
def noted(state: RunState, resume: str) -> Iterator[None]:
    """Leave a note that the run has begun, until the block ends with nothing to go on with.

    Args:
        resume: the command that goes on with the run.
    """
    key = layout.unfinished_run(state.pipeline, state.run_id)
    note = {"run_id": state.run_id, "process": ProcessId.own().document(), "resume": resume}
    write_document(state.store, key, note)
    try:
        yield
    except BaseException as error:
        known = find_known(error)
        if known is not None and known.exit_code in NEEDS_A_CHANGE:
            _forget(state.store, key)
        raise
    _forget(state.store, key)


def find(state: RunState, stage: str, inputs: Inputs) -> UnfinishedRun | None:
    """The newest other run of the pipeline that began this stage from the same inputs, has not ended it, and has
    something to go on from or still runs."""
    if stage not in GOES_ON:
        return None
    runs = [
        run
        for note in _notes(state)
        if note["run_id"] != state.run_id and (run := _unfinished(state, stage, inputs, note)) is not None
    ]
    return max(runs, key=lambda run: (run.process.lives, run.process.started), default=None)


def kept(store: Store, run_id: str, stage: str) -> str:
    """What an unfinished stage of a run has done that can be gone on from, in words; empty when nothing."""
    if stage == "train":
        steps = [layout.checkpoint_step(info.key) for info in store.list(layout.checkpoints(run_id))]
        newest = max((step for step in steps if step is not None), default=None)
        return "" if newest is None else f"its newest checkpoint is of step {newest}"
    finished = sum(layout.is_trial_record(info.key) for info in store.list(layout.trials(run_id)))
    return f"{finished} of its trials finished" if finished else ""


def how_to_go_on(state: RunState, stage: str, error: BaseException, resume: str) -> str:
    """What a user should know when a run ends early in a stage; empty when going on would end the same way."""
    known = find_known(error)
    if known is not None and known.exit_code in NEEDS_A_CHANGE:
        return ""
    if isinstance(error, Exception) and (known is None or not known.transient) and stage not in GOES_ON:
        return ""
    done = ""
    if stage in GOES_ON:
        with suppress(RaypipeError):  # a store that is down: what it holds cannot be told, and the error says why
            done = kept(state.store, state.run_id, stage)
    if done:
        return f"run {state.run_id} stopped ({done}); `{resume}` goes on from there"
    return f"run {state.run_id} stopped; the same command goes on: finished stages are used again"


def _notes(state: RunState) -> Iterator[dict[str, Any]]:
    for info in list(state.store.list(layout.unfinished_runs(state.pipeline))):
        with suppress(StoreError):  # taken away meanwhile, or damaged: a hint less, and nothing else
            note = read_json(state.store, info.key)
            if note is not None and {"run_id", "process", "resume"} <= note.keys():
                yield note


def _unfinished(state: RunState, stage: str, inputs: Inputs, note: dict[str, Any]) -> UnfinishedRun | None:
    run_id = str(note["run_id"])
    other = RunState(state.store, run_id, state.pipeline)
    try:
        process = ProcessId.parse(note["process"])
        if other.inputs(stage) != plain(inputs) or other.has_record(stage):
            return None
        run = UnfinishedRun(run_id, process, kept(state.store, run_id, stage), str(note["resume"]))
    except (KeyError, TypeError, ValueError, RaypipeError):
        return None
    return run if run.kept or run.process.lives else None


def _forget(store: Store, key: str) -> None:
    with suppress(StoreError):  # a note too many is a hint too many
        store.delete(key)
