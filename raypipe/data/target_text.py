"""Targets that are texts: as the ids that a network learns to write, and back as texts.

A target is its tokens' ids, then END, then padding.  Shape letters: B rows, T tokens of a target, its end included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.data.spelling import PADDING, Spelling, num_ids
from raypipe.data.table.columns import Values
from raypipe.data.transforms import FittedTransforms, State
from raypipe.data.transforms.text import Tokens
from raypipe.records import Language
from raypipe.spec.sequences import TargetTokens


def end_of(language: Language) -> int:
    """The id behind a target's last token; a network is given it to begin with, too."""
    return num_ids(language)


def language_of_target(spec: TargetTokens, target: str, transforms: FittedTransforms) -> Language:
    """The tokens of the target's column, where transforms were fitted on it as well."""
    (state,) = [state for state in transforms.state() if target in state["columns"]]
    return language_fitted(state, target, spec.max_length + 1).model_copy(update={"refuse": tuple(spec.refuse)})


def language_fitted(state: State, column: str, context_length: int) -> Language:
    """The tokens that a `tokens` transform has learned of a column."""
    known = state["columns"][column]
    return Language(
        context_length=context_length,
        tokens=tuple(known.get("vocabulary", ())),
        tokenizer=state["tokenizer"],
        merges=tuple((left, right) for left, right in known.get("merges", ())),
    )


def without_target(transforms: FittedTransforms, target: str) -> tuple[State, ...]:
    """The transforms of the features alone."""
    return tuple(state for state in transforms.state() if target not in state["columns"])


class TargetText:
    """How one model's targets are written.

    Args:
        target: the column, for messages.
    """

    def __init__(self, language: Language, target: str) -> None:
        self.end = end_of(language)
        self._spelling = Spelling(language)
        spec = TargetTokens(
            tokenizer=language.tokenizer,
            max_length=language.context_length - 1,
            max_vocabulary=num_ids(language) if language.tokenizer == "bpe" else None,
            refuse=list(language.refuse),
        )
        state = spec.of(target).model_dump(mode="json", exclude={"columns"})
        self._tokens = Tokens(state, {"vocabulary": language.tokens, "merges": language.merges}, target)

    def ids(self, texts: Values | NDArray[Any]) -> NDArray[np.int64]:
        """int64 [B, T].

        Args:
            texts: [B], as objects or in Arrow.
        Raises:
            DataError: one that `refuse` names.
        """
        array: Any = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        array = array if pa.types.is_string(array.type) else array.cast(pa.string())
        text_BT = np.pad(self._tokens.apply(array).astype(np.int64), ((0, 0), (0, 1)))
        text_BT[np.arange(len(text_BT)), (text_BT != PADDING).sum(axis=1)] = self.end
        return text_BT

    def texts(self, ids_BT: NDArray[Any]) -> list[str]:
        """What ids say, up to the first END."""
        return ["".join(self.pieces(row)) for row in np.asarray(ids_BT).astype(np.int64).tolist()]

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The same of one target, piece by piece; see Spelling."""
        return self._spelling.pieces(takewhile(lambda number: number != self.end, ids))


def target_text(language: Language, target: str) -> TargetText:
    """The same object for the same tokens: what looks up many characters takes a while to make."""
    return _made(language.model_dump_json(), target)


@lru_cache(maxsize=4)
def _made(language: str, target: str) -> TargetText:
    return TargetText(Language.model_validate_json(language), target)
