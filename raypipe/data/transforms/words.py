"""Text to characters, bytes and words, many rows at a time.

B rows, N characters, bytes or words of all rows, one after another.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import pc, some

UNSEEN, SPACE, LETTER, DIGIT, SIGN = range(5)

CLASSES = {"L": LETTER, "M": LETTER, "N": DIGIT, "Z": SPACE}
"""First letter of a character's Unicode category -> its class; others are signs, but for white space among them."""

_class_of = np.zeros(0x110000, np.uint8)
"""Code point -> class; filled as characters turn up."""


def characters(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Code points, uint32 [N], and the row of each, int64 [N]."""
    return _points(_joined(text)), _rows(pc.utf8_length(text))


def utf8(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Bytes, uint8 [N], and the row of each, int64 [N]."""
    return np.frombuffer(_joined(text).encode(), np.uint8), _rows(pc.binary_length(text))


def words(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Runs of letters, digits and `_`, and every other sign by itself [N], without white space; and the row of each."""
    joined, row_N = _joined(text), _rows(pc.utf8_length(text))
    point_N = _points(joined)
    class_N = np.where(point_N == ord("_"), LETTER, _classes(point_N))
    class_N[class_N == DIGIT] = LETTER
    begins_N = _changes(class_N, row_N) | (class_N == SIGN)
    found, first = _cut(joined, point_N, begins_N)
    is_word = class_N[first] != SPACE
    return some(found, is_word), row_N[first[is_word]]


def pieces(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Runs of letters, of digits, of signs and of white space [N], which together are the text; and the row of each.

    A space before a run that is no white space belongs to that run.
    """
    joined, row_N = _joined(text), _rows(pc.utf8_length(text))
    point_N = _points(joined)
    class_N = _classes(point_N)
    begins_N = _changes(class_N, row_N)
    after = np.flatnonzero(begins_N & (class_N != SPACE))
    after = after[after > 0]
    after = after[(point_N[after - 1] == ord(" ")) & (row_N[after - 1] == row_N[after])]
    begins_N[after], begins_N[after - 1] = False, True
    found, first = _cut(joined, point_N, begins_N)
    return found, row_N[first]


def places(row_N: np.ndarray) -> np.ndarray:
    """The place of each within its row, from 0."""
    num_B = np.bincount(row_N)
    return np.arange(len(row_N)) - (np.cumsum(num_B) - num_B)[row_N]


def _joined(text: pa.Array) -> str:
    return "".join(text.to_pylist())


def _points(joined: str) -> np.ndarray:
    return np.frombuffer(joined.encode("utf-32-le"), "<u4")


def _rows(size_B: pa.Array) -> np.ndarray:
    return np.repeat(np.arange(len(size_B)), size_B.to_numpy(zero_copy_only=False))


def _changes(class_N: np.ndarray, row_N: np.ndarray) -> np.ndarray:
    """Where a run begins, bool [N]."""
    begins_N = np.ones(len(class_N), bool)
    begins_N[1:] = (class_N[1:] != class_N[:-1]) | (row_N[1:] != row_N[:-1])
    return begins_N


def _classes(point_N: np.ndarray) -> np.ndarray:
    class_N = _class_of[point_N]
    unseen = np.unique(point_N[class_N == UNSEEN])
    if len(unseen):
        _class_of[unseen] = [_classify(chr(point)) for point in unseen.tolist()]
        class_N = _class_of[point_N]
    return class_N


def _classify(character: str) -> int:
    return SPACE if character.isspace() else CLASSES.get(unicodedata.category(character)[0], SIGN)


def _cut(joined: str, point_N: np.ndarray, begins_N: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The text of all rows cut where `begins_N` holds, and the place in it where each part begins."""
    size_N = 1 + (point_N >= 0x80).astype(np.int32) + (point_N >= 0x800) + (point_N >= 0x10000)
    end_N = np.cumsum(size_N, dtype=np.int32)
    first = np.flatnonzero(begins_N)
    offsets = np.append(end_N[first] - size_N[first], end_N[-1:]).astype(np.int32)
    if not len(first):
        return pa.array([], pa.string()), first
    data = joined.encode()
    return pa.StringArray.from_buffers(len(first), pa.py_buffer(offsets), pa.py_buffer(data)), first
