"""A text as windows of a language model, each of which predicts all its tokens but the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

import pyarrow as pa

from raypipe.data.formats.base import FileFormat
from raypipe.data.formats.parts import FileRange, as_range, readable
from raypipe.data.formats.text import checked, cut, decoded
from raypipe.data.formats.token_windows import bytes_of, merged_of, token_windows
from raypipe.data.sources.files import open_text
from raypipe.data.sources.place import SourceFile
from raypipe.errors import DataError
from raypipe.spec.sources import TextWindowsSource

TABLE_ROWS = 2**14

ABOUT_CHARS = 3
"""Of a token that byte pairs became, where it is only guessed how many rows there will be."""


class TextWindows(FileFormat):
    def read_file(self, part: FileRange | SourceFile, *, source: TextWindowsSource) -> Iterator[pa.Table]:
        return read_file(part, source=source)

    def rows_per_byte(self, part: FileRange, source: TextWindowsSource) -> float | None:
        return 1 / (source.context_length * (ABOUT_CHARS if source.tokenizer == "bpe" else 1))


def read_file(part: FileRange | SourceFile, *, source: TextWindowsSource) -> Iterator[pa.Table]:
    """One file: column `text`, and `position`, where in the file a window begins, from 0 to below 1.

    Of characters a last window that is not full is left out: so all predict equally many.  Two windows that follow each
    other share one character, which the first is asked for and the second begins with.  Of other tokens: token_windows.

    Raises:
        DataError: the file is empty, shorter than one window, or cannot be decompressed.
    """
    with readable(part.name, "text", "fetch a good copy"):
        size, unit = source.context_length + 1, source.context_length if source.tokenizer == "char" else 1
        with closing(open_text(as_range(part).file)) as stream:
            num_chars, num_units = _sizes(decoded(stream), source)
        if num_units < size:
            units = "characters" if source.tokenizer == "char" else "bytes"
            found = f"has {num_units} {units}" if num_units else "is empty"
            raise DataError(
                f"{part.name} {found}; a window of source.context_length {source.context_length} needs {size}",
                "give a longer text, or lower data.source.context_length" if num_units else "name a file with a text",
            )
        with closing(open_text(as_range(part).file)) as stream:
            for rows in _groups(windows(decoded(stream), source), TABLE_ROWS):
                table = checked([window for window, _ in rows], part.name)
                position = pa.array([start // unit * (unit / num_chars) for _, start in rows], pa.float64())
                yield table.add_column(1, "position", position)


def windows(pieces: Iterable[str], source: TextWindowsSource) -> Iterator[tuple[str, int]]:
    """Windows of the text that all pieces make, and how many of its characters come before each.

    Raises:
        DataError: the byte pairs are not learned yet.
    """
    size, stride = source.context_length + 1, source.context_length
    if source.tokenizer == "char":
        found = cut(pieces, size, stride)
        return ((window, place * stride) for place, window in enumerate(found) if len(window) == size)
    if source.tokenizer == "byte":
        return token_windows(pieces, bytes_of, size)
    if source.merges is None:
        raise DataError(
            "data.source.merges is not there, and byte pairs are learned from train alone",
            "read the text as the model's training data was read, or prepare the data with `raypipe data` or `run`",
        )
    return token_windows(pieces, merged_of(source.merges, size), size)


def _sizes(pieces: Iterable[str], source: TextWindowsSource) -> tuple[int, int]:
    """Characters of a text, and of what a window must have enough: these, or bytes."""
    num_chars = num_bytes = 0
    for piece in pieces:
        num_chars += len(piece)
        num_bytes += len(piece.encode(errors="surrogateescape"))
    return num_chars, num_chars if source.tokenizer == "char" else num_bytes


def _groups(rows: Iterator[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    """So many rows at a time."""
    while group := list(islice(rows, size)):
        yield group
