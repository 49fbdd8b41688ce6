"""What is saved, how often, and how the newest complete checkpoint is found.

A checkpoint is tensors in safetensors and the rest in JSON, published with digests: an interrupted write has no
manifest and is never chosen, a damaged one is passed over while an older one can be read. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from raypipe.errors import CheckpointError, DigestMismatch, ObjectMissing
from raypipe.storage import Store, layout
from raypipe.storage.publish import MANIFEST, publish, read_published

TENSORS = "tensors.safetensors"
STATE = "state.json"


@dataclass
class TrainState:
    """Where a training stands, beside its tensors.

    Attributes:
        fingerprint: of everything that shapes the training; a checkpoint of another is refused.
        epoch: the epoch under way, from 1.
        epoch_step: optimizer steps done in it.
        step: optimizer steps done in all.
        loss_sum, rows: of this epoch so far, for train_loss; in a checkpoint, of all workers.
        history: EpochMetrics as dicts, one a finished epoch.
        best_epoch: best so far by the watched metric; 0 before the first.
    """

    fingerprint: str
    epoch: int = 1
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0


class Checkpoint(NamedTuple):
    """A checkpoint as it was read."""

    state: TrainState
    tensors: dict[str, Tensor]


def save(store: Store, run_id: str, state: TrainState, tensors: dict[str, Tensor], *, num_to_keep: int) -> None:
    """Publish a checkpoint at `state.step`, then delete what is older than the newest `num_to_keep` up to this one."""
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    files = {STATE: json.dumps(state.__dict__).encode(), TENSORS: safetensors.torch.save(stored)}
    publish(store, layout.checkpoint(run_id, state.step), files)
    # A later one is there only where it was damaged and passed over: it must not count for one that can be read.
    for step in [step for step in _steps(store, run_id)[0] if step <= state.step][num_to_keep:]:
        _delete(store, layout.checkpoint(run_id, step))


def newest(store: Store, run_id: str, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run that can be read, or None when none was ever complete; and what was passed over.

    Raises:
        CheckpointError: there are complete checkpoints and all of them are damaged; or the newest readable one belongs
            to a training with other settings, or another version of raypipe wrote it.
    """
    complete, incomplete = _steps(store, run_id)
    damaged: list[str] = []
    for step in complete:
        try:
            found = read(store, run_id, step, fingerprint)
        except (DigestMismatch, ObjectMissing) as error:  # ObjectMissing: a part was lost, or deleted while it was read
            damaged.append(error.message)
            continue
        return found, [f"the checkpoint of a later step was passed over: {message}" for message in damaged]
    if damaged:
        raise CheckpointError(
            f"{store.uri}/{layout.checkpoints(run_id)}: none of the {len(damaged)} checkpoint(s) can be read, so the "
            f"training cannot go on: {'; '.join(damaged)[:1000]}",
            f"restore one from a backup or an older bucket version, or begin the training anew: --run {run_id} --fresh",
        )
    steps = ", ".join(str(step) for step in incomplete)
    return None, [f"no checkpoint is complete (of step {steps} parts are there), so nothing is kept"] if steps else []


def read(store: Store, run_id: str, step: int, fingerprint: str) -> Checkpoint:
    """One checkpoint, every byte checked.

    Raises:
        DigestMismatch, ObjectMissing: it is damaged, or not there.
        CheckpointError: it belongs to a training with other settings, or another version of raypipe wrote it.
    """
    where = f"{store.uri}/{layout.checkpoint(run_id, step)}"
    files = read_published(store, layout.checkpoint(run_id, step))
    state = _read_state(files, where)
    if state.fingerprint != fingerprint:
        raise CheckpointError(
            f"{where} belongs to a training with other settings",
            "start a new run (without --resume), or give back the settings of that run",
        )
    return Checkpoint(state, safetensors.torch.load(files[TENSORS]))


def clear(store: Store, run_id: str) -> None:
    """Delete every checkpoint of a run: its training begins anew."""
    complete, incomplete = _steps(store, run_id)
    for step in (*complete, *incomplete):
        _delete(store, layout.checkpoint(run_id, step))


def _read_state(files: dict[str, bytes], where: str) -> TrainState:
    found = json.loads(files.get(STATE, b"{}"))
    known = {each.name for each in fields(TrainState)}
    differing = [*sorted(known - found.keys()), *sorted(found.keys() - known)]
    if differing or TENSORS not in files:
        what = ", ".join(f"state.{name}" for name in differing) or TENSORS
        raise CheckpointError(
            f"{where} was written by another version of raypipe: {what} is missing or not known here",
            "start a new run (without --resume), or resume with the raypipe that began this one",
        )
    return TrainState(**found)


def flatten_optimizer(state: dict[str, Any]) -> dict[str, Tensor]:
    """Optimizer state as named tensors; all state of SGD, Adam and AdamW is tensors."""
    return {
        f"optimizer/{index}/{name}": value
        for index, values in state["state"].items()
        for name, value in values.items()
        if value is not None
    }


def unflatten_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `flatten_optimizer`; param groups come from the optimizer just built from the same spec."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": groups}


def _steps(store: Store, run_id: str) -> tuple[list[int], list[int]]:
    """Steps of complete checkpoints, and of those without a manifest; newest first."""
    complete: set[int] = set()
    begun: set[int] = set()
    for info in store.list(layout.checkpoints(run_id)):
        folder, _, file = info.key.rpartition("/")
        found = re.fullmatch(r"step-(\d+)", folder.rpartition("/")[2])
        if found:
            (complete if file == MANIFEST else begun).add(int(found[1]))
    return sorted(complete, reverse=True), sorted(begun - complete, reverse=True)


def _delete(store: Store, prefix: str) -> None:
    # The manifest goes first: from then on the checkpoint counts as incomplete.
    store.delete(f"{prefix}/{MANIFEST}")
    store.delete_prefix(prefix)
