"""What is told of rows that are in two splits, and of splits of other sizes than asked for; and what stops."""

from __future__ import annotations

from collections.abc import Mapping

from raypipe.data.splits.base import SplitState
from raypipe.data.splits.content import Content
from raypipe.data.splits.hashed import EACH_COPY
from raypipe.data.splits.leaks import Leaks, Twins
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import HashSplit

SHOWN = 5

TOLD_SIGMA = 5.0
"""A share that is off by more of its standard deviations is told; rows that all differ come that far once in 10^6."""


def judge(twins: Twins, groups: Leaks, content: Content, spec: DataSpec) -> list[str]:
    """What to tell the user.

    Equal rows are a leak where content does not repeat by chance; where there are few ways to differ, so that train's
    own rows repeat alike, they are ordinary observations, and told.

    Raises:
        DataError: there are leaks, and data.split.leaks is `fail`.
    """
    policy = spec.split.leaks
    given_up = "; the later split gives them up" if policy == "drop" else ""
    grave: list[str] = []
    said: list[str] = []
    if twins.leaks:
        text = f"rows with the same content are in two splits: {_counts(twins.leaks)}; {_twins(twins)}; row ids " + (
            _ids(twins.leaks)
        )
        ordinary = content.repeats_by_chance and twins.are_chance
        (said if ordinary and policy == "fail" else grave).append(text)
        if ordinary and policy != "drop":
            said.append(
                "equal rows are ordinary in this table, whose rows differ in few ways; if each stands for something of "
                "its own, name the columns that tell them apart in data.split.key, or the split in kind: stratified"
            )
    if groups:
        grave.append(f"groups of {list(spec.watched_groups)} are in two splits: {_counts(groups)}")
    if grave and policy == "fail":
        raise DataError(
            "data.split: " + "; ".join(grave) + "; a model tested on what it has learned looks better than it is",
            "remove the copies, or set data.split.leaks: drop (the earlier split keeps them) or warn",
        )
    return [*(text + given_up for text in grave), *said]


def lopsided(sizes: Mapping[str, int], content: Content, state: SplitState, spec: DataSpec) -> list[str]:
    """What to tell of a hash split whose shares are not what was asked for, as few different rows, or keys, weigh
    much."""
    split, num_rows = spec.split, sum(sizes.values())
    if not isinstance(split, HashSplit) or not num_rows:
        return []
    what = "keys" if split.key else "rows"
    lines: list[str] = []
    if state.get(EACH_COPY):
        lines.append(
            f"the {content.num_rows} rows are {content.num_different} different ones, which repeat because there are "
            "few ways to differ: equal rows are divided one by one; if some belong together, name the columns that say "
            "so in data.split.key"
        )
    wanted = {"val": split.val_frac, "test": split.test_frac}
    forced = {part.split for part in spec.parts()}
    off = [
        f"{name} has {sizes[name]} rows where {frac * num_rows:.0f} were asked for"
        for name, frac in wanted.items()
        if frac and not forced & {"val", "test"}
        if abs(sizes[name] - frac * num_rows) > max(TOLD_SIGMA * (frac * (1 - frac) * num_rows) ** 0.5, 1)
    ]
    if off:
        lines.append(
            f"{', '.join(off)}: some {what} are there many times, and equal {what} stay together; for shares as asked "
            "for set data.split.kind: stratified, or name columns that tell the rows apart in data.split.key"
        )
    return lines


def _twins(twins: Twins) -> str:
    """How many rows of val and test train holds too, and how many it would by chance."""
    lines = [
        f"{num} of {twins.num_rows[name]} {name} rows have a twin in train, chance would give about "
        f"{twins.chance * twins.num_rows[name]:.0f}"
        for name, num in twins.num_twins.items()
    ]
    return ", ".join(lines) or "none of them in train"


def _counts(leaks: Leaks) -> str:
    return ", ".join(f"{count} in {pair}" for pair, count in leaks.pairs.items())


def _ids(leaks: Leaks) -> str:
    more = ", ..." if len(leaks.named) > SHOWN else ""
    return ", ".join(f"{number:016x}" for number in leaks.named[:SHOWN]) + more
