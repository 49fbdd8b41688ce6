"""Ready-made: a column, or the folder of the file, says where a row goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.splits.base import SPLITS, UNDECIDED, Misfits, SplitKind
from raypipe.data.table.row_hash import Values
from raypipe.spec.splits import ColumnSplit

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see


class ByColumn(SplitKind):
    """A word in each row."""

    split: ColumnSplit

    def code(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        return _by_word(values[self.split.column], self.split)


class ByFolder(SplitKind):
    """A folder a split: all rows of a file belong to one."""


def _by_word(values: Values, split: ColumnSplit) -> tuple[np.ndarray, list[Misfits]]:
    code = np.full(len(values), UNDECIDED, np.uint8)
    for name, words in split.words.items():
        code[_is_one_of(values, words)] = SPLITS.index(name)
    meant = "; ".join(f"{name}: {', '.join(map(repr, words))}" for name, words in split.words.items() if words)
    return code, [(code == UNDECIDED, f"'{split.column}' is none of the values that data.split knows ({meant})")]


def _is_one_of(values: Values, words: Sequence[str | int | bool]) -> np.ndarray:
    if isinstance(values, pa.Array):
        texts = [word for word in words if isinstance(word, str)]
        return pc.is_in(values, pa.array(texts, pa.string())).to_numpy(zero_copy_only=False)
    same = [w for w in words if not isinstance(w, str) and isinstance(w, bool) == (values.dtype.kind == "b")]
    return np.isin(values, same) if values.ndim == 1 and same else np.zeros(len(values), bool)
