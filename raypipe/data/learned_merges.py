"""Byte pairs that a language model's tokens are made of, learned from train before its text is cut into windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import reduce

import pyarrow as pa

from raypipe.data.formats.parts import readable
from raypipe.data.formats.text import decoded
from raypipe.data.formats.token_windows import without_bad_bytes
from raypipe.data.sources.files import open_text
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import SourceFile
from raypipe.data.transforms.text import Tokens
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import TextWindowsSource
from raypipe.spec.splits import SplitRule, TimeSplit
from raypipe.spec.transforms import TokensTransform

LEARNED_CHARS = 64 * 2**20
"""Of all files together: the first."""

ROW_CHARS = 2**14
"""Text whose words are counted at a time; a word that is cut there counts as two."""


def with_merges(spec: DataSpec) -> DataSpec:
    """The spec whose text is cut by the byte pairs of train, where it says `tokenizer: bpe`.

    Raises:
        DataError: a file is not there or cannot be read, or there is nothing to learn from.
    """
    source = spec.source
    if not isinstance(source, TextWindowsSource) or source.tokenizer != "bpe" or source.merges is not None:
        return spec
    merges = _learned(spec, source)
    (tokens,) = spec.transforms
    changed = {"transforms": [tokens.model_copy(update={"merges": merges})]}
    for name in ("source", "val_source", "test_source"):
        each = getattr(spec, name)
        if each is not None:
            changed[name] = each.model_copy(update={"merges": merges})
    return spec.model_copy(update=changed)


def _learned(spec: DataSpec, source: TextWindowsSource) -> list[tuple[int, int]]:
    transform = TokensTransform(
        kind="tokens", columns=["text"], tokenizer="bpe", max_length=ROW_CHARS, max_vocabulary=source.max_vocabulary
    )
    counted = [Tokens.partial(transform, rows, "text") for rows in _text(spec)]
    if not counted:
        raise DataError("data.source.tokenizer: bpe finds no text in train to learn from", "name files with a text")
    whole = reduce(lambda first, second: Tokens.combine(transform, first, second, "text"), counted)
    return [(left, right) for left, right in Tokens.finish(transform, whole, "text")["merges"]]


def _text(spec: DataSpec) -> Iterator[pa.Array]:
    """The text of train, in rows."""
    left = LEARNED_CHARS
    for part in spec.parts():
        if part.field != "source" or part.split not in (None, "train"):
            continue
        share = 1.0 if part.split == "train" else train_share(spec.split)
        for file in list_files(part.source, spec.root or "."):
            if left <= 0:
                return
            most = min(left, int(share * _num_chars(file)))
            for piece in _start(file, most):
                yield pa.array([piece[i : i + ROW_CHARS] for i in range(0, len(piece), ROW_CHARS)], pa.string())
            left -= most


def train_share(split: SplitRule) -> float:
    """The part of each text that is train, from its start, by a split by position."""
    assert isinstance(split, TimeSplit), "spec/language.py refuses others"
    if split.by_share:
        return 1.0 - split.val_frac - split.test_frac
    borders = [float(moment) for moment in (split.val_from, split.test_from) if isinstance(moment, int | float)]
    return min(1.0, *borders) if borders else 1.0


def _num_chars(file: SourceFile) -> int:
    with readable(file.name, "text", "fetch a good copy"), closing(open_text(file)) as stream:
        return sum(map(len, decoded(stream)))


def _start(file: SourceFile, num_chars: int) -> Iterator[str]:
    """The first characters of a file, piece by piece."""
    with readable(file.name, "text", "fetch a good copy"), closing(open_text(file)) as stream:
        for piece in decoded(stream):
            if num_chars <= 0:
                return
            yield without_bad_bytes(piece[:num_chars])
            num_chars -= len(piece)
