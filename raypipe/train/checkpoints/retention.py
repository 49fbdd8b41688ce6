"""Which checkpoints of a run stay, and how the others go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from raypipe.spec.metrics import is_better_when_higher
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store, layout
from raypipe.storage.publish import MANIFEST
from raypipe.train.checkpoints.index import TrainState


def watched_metric(spec: TrainSpec, metrics: Iterable[str]) -> str:
    """By what epochs are compared: early stopping's metric, else the loss on val rows, or on train rows without any."""
    if spec.early_stopping is not None:
        return spec.early_stopping.metric
    return "val_loss" if "val_loss" in metrics else "train_loss"


def best_steps(spec: TrainSpec, history: Sequence[dict[str, Any]]) -> list[int]:
    """Steps at which the `checkpoint.num_best_to_keep` best epochs ended; of equal ones the earlier."""
    if not history:
        return []
    metric = watched_metric(spec, history[-1]["metrics"])
    sign = -1 if is_better_when_higher(metric.removeprefix("val_")) else 1
    ranked = sorted(history, key=lambda epoch: (sign * epoch["metrics"][metric], epoch["step"]))
    return [epoch["step"] for epoch in ranked[: spec.checkpoint.num_best_to_keep]]


def steps_to_delete(steps: Iterable[int], state: TrainState, spec: TrainSpec) -> list[int]:
    """Of the complete checkpoints of a run those that go, once that of `state` is there.

    What stays: the newest `num_to_keep`, the best `num_best_to_keep`, and the newest at the end of an epoch, from which
    another number of workers may go on. Later ones than `state`'s do not count: they were damaged and passed over.
    """
    until_now = sorted((step for step in steps if step <= state.step), reverse=True)
    kept = {*until_now[: spec.checkpoint.num_to_keep], *best_steps(spec, state.history)}
    kept |= {epoch["step"] for epoch in state.history[-1:]}
    return [step for step in until_now if step not in kept]


def stored_steps(store: Store, run_id: str) -> tuple[list[int], list[int]]:
    """Steps of complete checkpoints, and of those without a manifest; newest first."""
    complete: set[int] = set()
    begun: set[int] = set()
    for info in store.list(layout.checkpoints(run_id)):
        folder, _, file = info.key.rpartition("/")
        found = re.fullmatch(r"step-(\d+)", folder.rpartition("/")[2])
        if found:
            (complete if file == MANIFEST else begun).add(int(found[1]))
    return sorted(complete, reverse=True), sorted(begun - complete, reverse=True)


def delete(store: Store, run_id: str, step: int) -> None:
    """Delete a checkpoint, and what is left of one."""
    prefix = layout.checkpoint(run_id, step)
    # The manifest goes first: from then on the checkpoint counts as incomplete.
    store.delete(f"{prefix}/{MANIFEST}")
    store.delete_prefix(prefix)


def clear(store: Store, run_id: str) -> None:
    """Delete every checkpoint of a run: its training begins anew."""
    complete, incomplete = stored_steps(store, run_id)
    for step in (*complete, *incomplete):
        delete(store, run_id, step)
