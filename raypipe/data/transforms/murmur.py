"""MurmurHash3 of many texts at once, as scikit-learn's HashingVectorizer has it.

Source: Appleby 2011, MurmurHash3_x86_32, seed 0.  N texts, W words of 4 bytes each.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

SHORT_BYTES = 64
"""Texts of no more are hashed together, a word of each at a time; a longer one by itself."""

TOGETHER = 2**16


def murmur32(texts: Sequence[str]) -> np.ndarray:
    """Signed 32 bits of each, int64 [N]."""
    found = np.zeros(len(texts), np.uint32)
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    is_short = np.array([len(text) <= SHORT_BYTES for text in encoded], bool)
    short = np.flatnonzero(is_short)
    for start in range(0, len(short), TOGETHER):
        some = short[start : start + TOGETHER]
        found[some] = _hashed([encoded[place] for place in some])
    for place in np.flatnonzero(~is_short):
        found[place] = _hash_of(encoded[place])
    return found.view(np.int32).astype(np.int64)


def _hash_of(text: bytes) -> int:
    padded = text.ljust(len(text) + -len(text) % 4, b"\0")
    code = 0
    for place, (word,) in enumerate(struct.iter_unpack("<I", padded)):
        word = word * 0xCC9E2D51 & 0xFFFFFFFF
        code ^= ((word << 15 | word >> 17) & 0xFFFFFFFF) * 0x1B873593 & 0xFFFFFFFF
        if 4 * place + 4 <= len(text):
            code = ((code << 13 | code >> 19) & 0xFFFFFFFF) * 5 + 0xE6546B64 & 0xFFFFFFFF
    code ^= len(text)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        code = (code ^ code >> shift) * factor & 0xFFFFFFFF
    return code ^ code >> 16


def _hashed(encoded: Sequence[bytes]) -> np.ndarray:
    """uint32 [N]."""
    size_N = np.array([len(text) for text in encoded])
    width = 4 * (int(size_N.max()) // 4 + 1)
    word_NW = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in encoded), "<u4").reshape(len(encoded), -1)
    hash_N = np.zeros(len(encoded), np.uint32)
    for number, word_N in enumerate(word_NW.T):
        mixed_N = hash_N ^ _mixed(word_N)
        is_whole_N, is_tail_N = number < size_N // 4, (number == size_N // 4) & (size_N % 4 > 0)
        turned_N = _rotated(mixed_N, 13) * np.uint32(5) + np.uint32(0xE6546B64)
        hash_N = np.where(is_whole_N, turned_N, np.where(is_tail_N, mixed_N, hash_N))
    hash_N = hash_N ^ size_N.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hash_N = (hash_N ^ (hash_N >> np.uint32(shift))) * np.uint32(factor)
    return hash_N ^ (hash_N >> np.uint32(16))


def _mixed(word_N: np.ndarray) -> np.ndarray:
    return _rotated(word_N * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(word_N: np.ndarray, bits: int) -> np.ndarray:
    return (word_N << np.uint32(bits)) | (word_N >> np.uint32(32 - bits))
