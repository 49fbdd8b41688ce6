"""The shards that were written: what the driver keeps of them, and what must hold of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from raypipe.data.checks.bad_rows import BadRows
from raypipe.data.checks.schema import Schema
from raypipe.data.shuffle import gather, target
from raypipe.data.shuffle.gather import GatherSummary, WrittenShard
from raypipe.data.splits.base import SPLITS
from raypipe.data.splits.content import Content
from raypipe.data.splits.leaks import Twins
from raypipe.data.transforms.fitting import FirstPass
from raypipe.errors import DataError
from raypipe.records import Split, TargetStatistics
from raypipe.spec.data import DataSpec

MERGED_PROFILES = 16
"""Profiles put together by one task."""


@dataclass
class WrittenShards:
    """All shards that were written.

    Attributes:
        shards: in the order of their row ids, those of train, val and test of one range together.
        twins: rows that have equals.
        bad: rows that were set aside because of others.
        first_pass: what the shards contribute to the transforms that are fitted first.
        profiles: references to what neighbouring shards hold (gather.Described), fewer than MERGED_PROFILES.
        moved_bytes: of all pieces; those that were cut again count again.
    """

    first_pass: FirstPass
    shards: list[WrittenShard] = field(default_factory=list)
    twins: Twins = field(default_factory=Twins)
    bad: BadRows = field(default_factory=BadRows)
    profiles: list[ray.ObjectRef] = field(default_factory=list)
    moved_bytes: int = 0

    def add(self, summary: GatherSummary) -> None:
        """Take what one task wrote, without what would grow with the number of tasks."""
        for item in summary.stored:
            self.first_pass.add(item.split, item.contributions, item.shard.num_rows, item.rows_before)
            self.shards.append(replace(item, contributions=None))
        self.twins += summary.twins
        self.bad.add(summary.bad)

    def add_profile(self, profile: ray.ObjectRef) -> None:
        """Have it merged with those before it."""
        self.profiles.append(profile)
        if len(self.profiles) == MERGED_PROFILES:
            self.profiles = [gather.merge_task.remote(*self.profiles)]

    def add_moved(self, num_bytes: int) -> None:
        """Count pieces that were cut again."""
        self.moved_bytes += num_bytes

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {name: sum(item.shard.num_rows for item in self.shards if item.split == name) for name in SPLITS}

    @property
    def labels(self) -> dict[str, Counter[Any]]:
        """Classification: split -> label -> rows."""
        labels: dict[str, Counter[Any]] = {name: Counter() for name in SPLITS}
        for item in self.shards:
            labels[item.split].update(item.labels)
        return labels

    @property
    def weights(self) -> dict[str, dict[Any, float]]:
        """Split -> WrittenShard.weights of all its shards, added up in their order."""
        weights: dict[str, dict[Any, float]] = {name: {} for name in SPLITS}
        for item in self.shards:
            of_split = weights[item.split]
            for label, total in item.weights.items():
                of_split[label] = of_split.get(label, 0.0) + total
        return weights

    @property
    def splits(self) -> dict[str, Split]:
        """The splits, as records name them."""
        shards = {name: tuple(item.shard for item in self.shards if item.split == name) for name in SPLITS}
        return {name: Split(num_rows=sum(s.num_rows for s in some), shards=some) for name, some in shards.items()}


def refuse_empty_splits(stored: WrittenShards, content: Content, spec: DataSpec) -> None:
    sizes = stored.sizes
    few = content.num_different if content.num_different != content.num_rows else None
    same = f"; they are {few} different ones, and equal rows stay together" if few else ""
    for name in spec.wanted_splits:
        if not sizes[name]:
            told = spec.split.model_dump(exclude_none=True)
            settings = ", ".join(f"{field}={value}" for field, value in told.items() if field != "leaks")
            raise DataError(
                f"the {name} split is empty: of {sum(sizes.values())} good rows none fell into it "
                f"(data.split: {settings}){same}",
                "give more rows, or change data.split"
                + (" (name columns that tell rows apart in data.split.key)" if few else "")
                + ("" if name == "train" else f"; val_frac: 0 or test_frac: 0 asks for no {name} split"),
            )


def target_statistics(stored: WrittenShards, schema: Schema) -> TargetStatistics | tuple[TargetStatistics, ...] | None:
    if schema.task != "regression":
        return None
    every = zip(*(item.target for item in stored.shards if item.target), strict=True)
    first, *others = (target.finish(parts) for parts in every)
    return (first, *others) if others else first
