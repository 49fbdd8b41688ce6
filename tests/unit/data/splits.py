"""Rows, and the splits they come into, as the data stage walks through them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.splits.base import SplitKeys, SplitState
from raypipe.data.splits.content import Content
from raypipe.data.splits.split import codes, decide, split_keys, tally
from raypipe.data.table.row_hash import Values, row_hash
from raypipe.spec.data import DataSpec


def spec(split: Mapping[str, Any], **fields: Any) -> DataSpec:
    """Of a CSV file with the target `y`."""
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv"}, "target": "y", "split": split, **fields}
    )


def rows(num: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A feature, a group of about seven, a time, a part and one of four classes, of each row."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=num),
        "g": rng.integers(0, max(2, num // 7), num),
        "t": rng.permutation(num),
        "part": rng.integers(0, 4, num),
        "y": rng.choice(4, num, p=[0.6, 0.25, 0.1, 0.05]),
    }


def row_id(values: Mapping[str, Values], data: DataSpec) -> np.ndarray:
    """Of features and target."""
    return row_hash({name: values[name] for name in [*data.feature_names(values), data.target]})


def keyed(values: Mapping[str, Values], data: DataSpec, forced: int | None = None) -> tuple[SplitKeys, list[str]]:
    """Keys of the rows that fit, and why the others do not."""
    keys, misfits = split_keys(values, row_id(values, data), data, forced)
    return keys, [reason for bad, reason in misfits if bad.any()]


def divided(values: Mapping[str, Values], data: DataSpec, cuts: Iterable[int] = ()) -> tuple[np.ndarray, SplitState]:
    """The code of each row when the rows come in blocks cut at `cuts`."""
    edges = [0, *sorted(cuts), len(next(iter(values.values())))]
    blocks = [{name: v[a:b] for name, v in values.items()} for a, b in pairwise(edges)]
    keys = [keyed(block, data)[0] for block in blocks]
    ids = [row_id(block, data) for block in blocks]
    tallies = [tally(k, block, data) for k, block in zip(keys, blocks, strict=True)]
    state = json.loads(json.dumps(decide(lambda: tallies, Content(), data)))
    traveled = [SplitKeys.from_columns(pa.table(k.columns())) for k in keys]
    return np.concatenate([codes(k, i, state, data) for k, i in zip(traveled, ids, strict=True)]), state
