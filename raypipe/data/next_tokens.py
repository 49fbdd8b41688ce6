"""What a network reads of a row where the task is to write texts.

A language model reads all but the last of a text's ids and is asked for all but the first. From sequence to sequence a
network reads a source's ids and behind them the target's, one place late, and is asked for the target's.

Shape letters: B rows, S tokens of a source, T tokens of the context, or of a target.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from raypipe.data.target_text import language_fitted
from raypipe.data.transforms import FittedTransforms
from raypipe.records import Language, Signature

Ids = TypeVar("Ids")


def read_shape(signature: Signature, row_shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the network reads of a row that the transforms give in this shape."""
    if signature.task == "language_model":
        return (row_shape[0] - 1,)
    if signature.task == "sequence_to_sequence" and signature.language is not None:
        return (row_shape[0] + signature.language.context_length,)
    return row_shape


def with_target(source_BS: NDArray[np.float32], target_BT: NDArray[Any], begin: int) -> NDArray[np.float32]:
    """What a network reads to tell the target's tokens, [B, S + T]: each from the source and those before it.

    Args:
        begin: the id that stands before a target's first token.
    """
    before_BT = np.concatenate([np.full((len(target_BT), 1), begin), target_BT[:, :-1]], axis=1)
    return np.concatenate([source_BS, before_BT.astype(np.float32)], axis=1)


def read_and_asked(ids: Ids) -> tuple[Ids, Ids]:
    """Ids [B, T + 1] -> those that are read and, one place further, those that are asked for, [B, T] each."""
    return ids[:, :-1], ids[:, 1:]  # pyright: ignore[reportIndexIssue]


def language_of(signature: Signature, transforms: FittedTransforms) -> Language:
    """The tokens of the text, by their ids."""
    (state,) = transforms.state()
    (column,) = signature.inputs
    (length,) = read_shape(signature, transforms.feature_shape(signature.inputs))
    return language_fitted(state, column.name, length)
