"""The fitted transforms for the few rows of a request: the same bits as column by column, at a fraction of the calls.

Columns of single numbers that pass through the same kinds lie side by side and are computed together; categories are
looked up one by one. Whatever is unusual (a missing value, an unknown category, another type) is left to the way of
many rows, which has the words for it.  B rows, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.data.transforms.base import TransformKind, start
from raypipe.records import Column

MAX_ROWS = 64
"""Of more rows, columns by themselves are faster: each then lies in one piece."""

NUMBER_KINDS = "fiub"
"""Kinds of numpy types that become float64 alike, one by one or together."""

Step = tuple[str, TransformKind]
"""Column, and what is done to it."""


class FewRows:
    """Worked out once for some inputs.

    Args:
        inputs: the raw feature columns, in order.
        steps: all transforms, in order; none is joint.
    """

    def __init__(self, inputs: Sequence[Column], steps: Sequence[Step]) -> None:
        kinds: dict[str, list[TransformKind]] = {column.name: [] for column in inputs}
        for name, kind in steps:
            if name in kinds:
                kinds[name].append(kind)
        together = [column.name for column in inputs if _is_arithmetic(column, kinds[column.name])]
        chains = {name: tuple(type(kind) for kind in kinds[name]) for name in together}
        names_of: dict[tuple[type[TransformKind], ...], list[str]] = {chain: [] for chain in chains.values()}
        for name in together:
            names_of[chains[name]].append(name)
        self._blocks = [_Block(names, [kinds[name] for name in names]) for names in names_of.values()]
        self._looked_up = [
            (column.name, kinds[column.name][:-1], kinds[column.name][-1])
            for column in inputs
            if column.name not in chains and _is_lookup(column, kinds[column.name])
        ]
        apart = {column.name for column in inputs} - {*chains} - {name for name, _, _ in self._looked_up}
        self._apart = [column for column in inputs if column.name in apart]
        self._steps_apart = [step for step in steps if step[0] in apart]
        place = {name: (i, j) for i, names in enumerate(names_of.values()) for j, name in enumerate(names)}
        self._parts = _runs([place.get(column.name, column.name) for column in inputs])
        self._first = inputs[0].name if inputs else ""

    @property
    def is_faster(self) -> bool:
        """Whether there is anything to be done together or looked up."""
        return bool(self._looked_up) or any(len(block.names) > 1 for block in self._blocks)

    def apply(self, columns: Mapping[str, Any]) -> np.ndarray | None:
        """[B, F] before the cast to float32; None where the rows have to go the way of many.

        Raises:
            DataError: a value that a transform refuses.
        """
        num_rows = len(columns[self._first])
        if not 0 < num_rows <= MAX_ROWS:
            return None
        blocks: list[np.ndarray] = []
        for block in self._blocks:
            computed = block.apply(columns, num_rows)
            if computed is None:
                return None
            blocks.append(computed)
        values: dict[str, Any] = {}
        for name, fillers, kind in self._looked_up:
            raw = columns[name]
            if type(raw) is not np.ndarray or raw.shape != (num_rows,):
                return None
            found = kind.of_few(_filled(raw.tolist(), fillers))
            if found is None:
                return None
            values[name] = found
        for column in self._apart:
            values[column.name] = start(columns[column.name], column)
        for name, kind in self._steps_apart:
            values[name] = kind.apply(values[name])
        parts: list[np.ndarray] = []
        for part in self._parts:
            found = values[part] if isinstance(part, str) else blocks[part[0]][:, part[1]]
            if not isinstance(found, np.ndarray) or len(found) != num_rows:  # text that nothing encodes, for one
                return None
            parts.append(found if found.ndim == 2 else found.reshape(num_rows, -1))
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


class _Block:
    """Columns of single numbers that pass through the same kinds of transforms.

    Args:
        names: of the columns.
        kinds: of each column, in order; all alike.
    """

    def __init__(self, names: Sequence[str], kinds: Sequence[Sequence[TransformKind]]) -> None:
        self.names = names
        self._operations: list[tuple[Callable[..., np.ndarray], list[np.ndarray]]] = []
        for same_kind in zip(*kinds, strict=True):
            constants = zip(*(kind.constants() or () for kind in same_kind), strict=True)
            column_vectors = [np.array(values, np.float64)[:, None] for values in constants]
            self._operations.append((same_kind[0].compute, column_vectors))

    def apply(self, columns: Mapping[str, Any], num_rows: int) -> np.ndarray | None:
        """[B, number of columns]; None where a column is no plain array of numbers."""
        arrays = [columns[name] for name in self.names]
        shape = (num_rows,)
        for values in arrays:
            if type(values) is not np.ndarray or values.shape != shape or values.dtype.kind not in NUMBER_KINDS:
                return None
        block = np.concatenate(arrays, dtype=np.float64, casting="unsafe").reshape(len(arrays), num_rows)
        block += 0.0  # as `start` does, where -0.0 can be
        for compute, constants in self._operations:
            block = compute(block, *constants)
        return block.T


def _is_arithmetic(column: Column, kinds: Sequence[TransformKind]) -> bool:
    if column.shape or column.dtype == "string":
        return False
    return all(kind.constants() is not None for kind in kinds)


def _is_lookup(column: Column, kinds: Sequence[TransformKind]) -> bool:
    if column.shape or not kinds or type(kinds[-1]).of_few is TransformKind.of_few:
        return False
    return all(kind.fills for kind in kinds[:-1])


def _filled(values: list[Any], fillers: Sequence[TransformKind]) -> list[Any]:
    """What is missing (None or NaN) filled by the first that does; after it nothing is missing."""
    if not fillers:
        return values
    fill = fillers[0].fitted["fill"]
    return [fill if value is None or value != value else value for value in values]


def _runs(places: Sequence[Any]) -> list[Any]:
    """(block, index) one by one -> (block, slice) where neighbours lie side by side in a block; names stay."""
    found: list[Any] = []
    for place in places:
        last = found[-1] if found else None
        if isinstance(place, str):
            found.append(place)
        elif isinstance(last, tuple) and last[0] == place[0] and last[1].stop == place[1]:
            found[-1] = (place[0], slice(last[1].start, place[1] + 1))
        else:
            found.append((place[0], slice(place[1], place[1] + 1)))
    return found
