"""What is saved, how often, and how the newest complete checkpoint is found.

A checkpoint is tensors in safetensors and the rest in JSON, published with digests: an interrupted write has no
manifest and is never chosen, a damaged one is passed over. Nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

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


def save(store: Store, run_id: str, state: TrainState, tensors: dict[str, Tensor], *, num_to_keep: int) -> None:
    """Publish a checkpoint at `state.step`, then delete what is older than the newest `num_to_keep`."""
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    files = {STATE: json.dumps(state.__dict__).encode(), TENSORS: safetensors.torch.save(stored)}
    publish(store, layout.checkpoint(run_id, state.step), files)
    for step in _complete_steps(store, run_id)[num_to_keep:]:
        _delete(store, layout.checkpoint(run_id, step))


def newest(store: Store, run_id: str, fingerprint: str) -> tuple[TrainState, dict[str, Tensor]] | None:
    """The newest complete checkpoint of a run, or None when there is none.

    Raises:
        CheckpointError: it belongs to a training with other settings, or another version of raypipe wrote it.
    """
    for step in _complete_steps(store, run_id):
        try:
            files = read_published(store, layout.checkpoint(run_id, step))
        except (DigestMismatch, ObjectMissing):
            continue  # damaged, or deleted while being read: the one before it is complete
        state = _read_state(files, f"{store.uri}/{layout.checkpoint(run_id, step)}")
        if state.fingerprint != fingerprint:
            raise CheckpointError(
                f"{store.uri}/{layout.checkpoint(run_id, step)} belongs to a training with other settings",
                "start a new run (without --resume), or give back the settings of that run",
            )
        return state, safetensors.torch.load(files[TENSORS])
    return None


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


def _complete_steps(store: Store, run_id: str) -> list[int]:
    """Steps of complete checkpoints, newest first."""
    keys = (info.key for info in store.list(layout.checkpoints(run_id)))
    return sorted(
        (int(key.split("/")[-2].removeprefix("step-")) for key in keys if key.endswith(MANIFEST)), reverse=True
    )


def _delete(store: Store, prefix: str) -> None:
    # The manifest goes first: from then on the checkpoint counts as incomplete.
    store.delete(f"{prefix}/{MANIFEST}")
    store.delete_prefix(prefix)
