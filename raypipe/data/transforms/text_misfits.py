"""Texts that a `tokens` transform is told to refuse, and why, in words.

B rows, N tokens of several rows one after another.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from raypipe.data.transforms import words
from raypipe.errors import DataError
from raypipe.spec.text_transforms import TokensTransform

UNKNOWN = 1
"""Id of a token that train has not."""

MAX_TOLD_CHARS = 40
"""Of a text, or of a vocabulary, in a message."""

COUNTED_IN = {"char": "characters", "byte": "bytes", "word": "words and signs", "bpe": "tokens"}
"""Tokenizer -> what people call its tokens."""


def refuse_misfits(
    text: pa.Array, ids_N: np.ndarray, row_N: np.ndarray, spec: TokensTransform, known: Collection[str], name: str
) -> None:
    """Raise DataError where one of some rows is what `refuse` names.

    Args:
        text: of the rows [B].
        ids_N, row_N: of their tokens; of a row that has too many, `max_length` and one.
        known: the vocabulary.
        name: of the column.
    """
    size_B = np.bincount(row_N, minlength=len(text))
    wrong = {
        "empty": size_B == 0,
        "too_long": size_B > spec.max_length,
        "unknown": np.bincount(row_N[ids_N == UNKNOWN], minlength=len(text)) > 0,
    }
    for why in spec.refuse:
        if wrong[why].any():
            first = text[int(np.argmax(wrong[why]))].as_py()
            what, hint = WORDS[why](first, spec, known)
            raise DataError(f"column '{name}' holds {what}", hint)


def _empty(text: str, spec: TokensTransform, known: Collection[str]) -> tuple[str, str]:
    del spec, known
    return f"a text without a word ({_shown(text)})" if text else "an empty text", "give one with a word or more"


def _too_long(text: str, spec: TokensTransform, known: Collection[str]) -> tuple[str, str]:
    del known
    sizes = {"char": len(text), "byte": len(text.encode())}
    size = sizes.get(spec.tokenizer, f"more than {spec.max_length}")
    what = f"a text of {size} {COUNTED_IN[spec.tokenizer]} ({_shown(text)}), and at most {spec.max_length} are taken"
    return what, "shorten it, or train with a larger max_length"


def _unknown(text: str, spec: TokensTransform, known: Collection[str]) -> tuple[str, str]:
    text = text.lower() if spec.lowercase else text
    tokens = words.words(pa.array([text]))[0].to_pylist() if spec.tokenizer == "word" else list(text)
    unknown = next((token for token in tokens if token not in known), "")
    listed = "".join(sorted(known)) if spec.tokenizer == "char" else ", ".join(known)
    return (
        f"{_shown(unknown)}, which is not among the {len(known)} {COUNTED_IN[spec.tokenizer]} that train taught "
        f"({_shown(listed)})",
        "write it otherwise; or train with more texts and room in max_vocabulary, or with tokenizer: byte, to which no "
        "text is unknown",
    )


WORDS = {"empty": _empty, "too_long": _too_long, "unknown": _unknown}
"""Why a text is refused -> what it is, and what to do, in words."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_TOLD_CHARS else f"{text[:MAX_TOLD_CHARS]}...")
