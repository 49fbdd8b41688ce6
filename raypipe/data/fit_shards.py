"""Transforms fitted over stored shards: on train alone, and tried on the other splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import ray

from raypipe.data.checks.stray import encoded_numbers
from raypipe.data.shards import features, read_shard
from raypipe.data.shuffle.written import WrittenShards
from raypipe.data.tasks import collect
from raypipe.data.transforms import FittedTransforms, State
from raypipe.data.transforms.fitting import Contributions, contributions, fit, summed
from raypipe.data.transforms.passes import has_enough, may_refuse_of_train
from raypipe.records import Shard, Signature
from raypipe.runtime.context import RunContext
from raypipe.spec.transforms import Transform
from raypipe.storage import open_store

TASK_BYTES = 96 * 2**20
"""Shards that one task reads, one after another."""


def fit_shards(
    transforms: Sequence[Transform], written: WrittenShards, signature: Signature, ctx: RunContext
) -> FittedTransforms:
    """Fit on the train shards; then see that the other splits, and train where it may, hold nothing the transforms
    refuse.

    What the first pass needs was taken while the shards were written; taken again where some rows were left out as not
    needed because more train rows were reckoned with before them than there are.
    """
    train = [item for item in written.shards if item.split == "train"]
    others = [item for item in written.shards if item.split != "train"]
    before = np.cumsum([0, *(item.shard.num_rows for item in train)]).tolist()
    numbered = [(rows, item.shard) for rows, item in zip(before, train, strict=False)]

    def run(fitted: FittedTransforms, group: Sequence[Transform]) -> Iterator[Contributions]:
        first = written.first_pass
        if not fitted.state() and (first.was_reckoned or not any(has_enough(transform) for transform in group)):
            yield first.train
            return
        tasks = [
            _contributions_task.remote(ctx.store.uri, fitted.state(), group, signature, some)
            for some in _grouped(numbered)
        ]
        for task in tasks:
            yield from collect([task], "fitting transforms")

    fitted = fit(transforms, signature.inputs, run)
    for line in encoded_numbers(fitted.state()):
        ctx.progress.say("data", line)
    tried = [] if written.first_pass.takes_others(fitted) else others
    if may_refuse_of_train(transforms):
        tried = [*train, *tried]
    groups = ([shard for _, shard in some] for some in _grouped([(0, item.shard) for item in tried]))
    tries = [_apply_task.remote(ctx.store.uri, fitted.state(), signature, some) for some in groups]
    collect(tries, "trying the transforms on all rows")
    return fitted


def _grouped(shards: Sequence[tuple[int, Shard]]) -> list[list[tuple[int, Shard]]]:
    """Neighbouring shards, about TASK_BYTES together."""
    groups: list[list[tuple[int, Shard]]] = []
    room = 0
    for rows, shard in shards:
        if not groups or room < shard.size_bytes:
            groups.append([])
            room = TASK_BYTES
        groups[-1].append((rows, shard))
        room -= shard.size_bytes
    return groups


def contributions_of(
    store_uri: str,
    before: Sequence[State],
    group: Sequence[Transform],
    signature: Signature,
    shards: Sequence[tuple[int, Shard]],
) -> Contributions:
    """What neighbouring shards contribute to the transforms of a group.

    Args:
        shards: with the rows of train before each.
    """
    fitted = FittedTransforms.from_state(before)
    store = open_store(store_uri)
    inputs = signature.inputs
    return summed(
        group,
        (
            contributions(fitted, group, features(read_shard(store, shard), signature), inputs, rows_before=rows_before)
            for rows_before, shard in shards
        ),
    )


def apply_to(store_uri: str, states: Sequence[State], signature: Signature, shards: Sequence[Shard]) -> None:
    """Apply the fitted transforms and forget the outcome. Raises DataError on a value they do not take."""
    fitted = FittedTransforms.from_state(states)
    store = open_store(store_uri)
    for shard in shards:
        fitted.apply_exact(features(read_shard(store, shard), signature), signature.inputs)


_contributions_task = ray.remote(contributions_of)
_apply_task = ray.remote(apply_to)
