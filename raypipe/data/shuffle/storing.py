"""All ranges of a data set to shards, and the transforms fitted on them: the second half of prepare().

Tasks do the work (ranges.py); the driver keeps summaries and references.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from raypipe.data.checks.stray import encoded_numbers
from raypipe.data.shards import share
from raypipe.data.shuffle import ranges
from raypipe.data.shuffle.cutting import RANGE_BYTES, Cut
from raypipe.data.shuffle.ranges import RangeSummary, ShardOrder, StoredShard
from raypipe.data.splits.split import SPLITS, SplitState
from raypipe.data.tasks import collect
from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.fitting import fit, has_enough, may_refuse, passes, try_partials
from raypipe.records import Shard, Signature
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import FractionSplit
from raypipe.spec.transforms import Transform

FETCHED_FRAC = 0.5
"""Of the object stores, for the pieces of tasks that wait to write shards.  Ray fetches them ahead of time; where they
fill a store, every task that returns something there waits two seconds for room."""


@dataclass(frozen=True)
class Stored:
    """All shards that were written.

    Attributes:
        profiles: references to the ProfilePart of neighbouring shards.
    """

    ranges: list[RangeSummary]
    profiles: list[ray.ObjectRef]

    @property
    def shards(self) -> list[StoredShard]:
        return [item for summary in self.ranges for item in summary.stored]

    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {name: sum(item.shard.num_rows for item in self.shards if item.split == name) for name in SPLITS}


def store_all(
    cut: Cut,
    state: SplitState,
    apart: ray.ObjectRef,
    spec: DataSpec,
    signature: Signature,
    version: str,
    ctx: RunContext,
) -> Stored:
    """Write all shards, of about RANGE_BYTES at most; a task makes neighbouring ones, of about as many together.

    Args:
        cut: without its pieces afterwards.
        apart: a reference to ranges.Apart.
    """
    by_rows = ranges.num_parts(cut.num_good, spec.rows_per_shard)
    num_shards = max(by_rows, ranges.num_parts(cut.raw_bytes, RANGE_BYTES))
    num_tasks = min(num_shards, ranges.num_parts(cut.num_bytes, RANGE_BYTES))
    first = tuple(passes(spec.transforms)[0]) if spec.transforms else ()
    split = spec.split
    train_frac = 1 - split.val_frac - split.test_frac if isinstance(split, FractionSplit) else 0.0
    order = ShardOrder(
        spec,
        ctx.store.uri,
        ctx.name,
        version,
        num_shards,
        signature,
        state,
        first,
        rows_before=cut.num_good / num_shards * train_frac / 2,
    )
    room = FETCHED_FRAC * ray.cluster_resources()["object_store_memory"]
    at_a_time = max(2, int(room * num_tasks / max(1, cut.num_bytes)))
    num_ranges = cut.order.num_ranges
    pieces = [list(of_range) for of_range in zip(*cut.pieces, strict=True)]
    cut.pieces.clear()
    waiting: deque[ray.ObjectRef] = deque()
    summaries: list[RangeSummary] = []
    profiles: list[ray.ObjectRef] = []
    for task in range(num_tasks):
        a, b = share(num_shards, task, num_tasks)
        numbers = ranges.overlapping(a, b, num_shards, num_ranges)
        found = [piece for number in numbers for piece in pieces[number]]
        summary, described = ranges.store_task.remote(order, a, b, apart, *found)
        del found
        for number in numbers:
            if (number + 1) * num_shards <= b * num_ranges:
                pieces[number].clear()  # so that a piece is forgotten once its rows are written
        waiting.append(summary)
        profiles.append(described)
        while len(waiting) >= at_a_time:
            summaries += collect([waiting.popleft()], "writing shards")
    return Stored(summaries + collect(list(waiting), "writing shards"), profiles)


def fit_stored(
    transforms: Sequence[Transform], stored: Stored, signature: Signature, ctx: RunContext
) -> FittedTransforms:
    """Fit on the train shards; then see that the other splits hold nothing the transforms refuse.

    What the first pass needs was taken while the shards were written; taken again where some rows were left out as not
    needed because more train rows were reckoned with before them than there are.
    """
    train = [item for item in stored.shards if item.split == "train"]
    others = [item for item in stored.shards if item.split != "train"]
    before = np.cumsum([0, *(item.shard.num_rows for item in train)]).tolist()
    numbered = [(rows, item.shard) for rows, item in zip(before, train, strict=False)]

    reckoned = all(item.rows_before <= rows for rows, item in zip(before, train, strict=False))

    def run(fitted: FittedTransforms, group: Sequence[Transform]) -> list[list[Any]]:
        if not fitted.state() and (reckoned or not any(has_enough(transform) for transform in group)):
            return [item.partials or [] for item in train]
        tasks = [
            ranges.fit_task.remote(ctx.store.uri, fitted.state(), group, signature, some) for some in _grouped(numbered)
        ]
        return [shard for found in collect(tasks, "fitting transforms") for shard in found]

    fitted = fit(transforms, signature.inputs, run)
    for line in encoded_numbers(fitted.state()):
        ctx.progress.say("data", line)
    if may_refuse(transforms) and not try_partials(transforms, fitted, [item.partials or [] for item in others]):
        groups = ([shard for _, shard in some] for some in _grouped([(0, item.shard) for item in others]))
        tries = [ranges.try_task.remote(ctx.store.uri, fitted.state(), signature, some) for some in groups]
        collect(tries, "applying transforms to val and test")
    return fitted


def _grouped(shards: Sequence[tuple[int, Shard]]) -> list[list[tuple[int, Shard]]]:
    """Neighbouring shards, about RANGE_BYTES together."""
    groups: list[list[tuple[int, Shard]]] = []
    room = 0
    for rows, shard in shards:
        if not groups or room < shard.size_bytes:
            groups.append([])
            room = RANGE_BYTES
        groups[-1].append((rows, shard))
        room -= shard.size_bytes
    return groups
