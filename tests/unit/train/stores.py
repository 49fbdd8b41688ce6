"""Stores that tell what was asked of them."""

from __future__ import annotations

from collections import Counter

from raypipe.testing.fakes import MemoryStore


class CountingStore(MemoryStore):
    """A store in memory that remembers what was read.

    Attributes:
        reads: whole objects, and how often.
        ranges: parts of objects: last name of the key, start, stop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.ranges: list[tuple[str, int, int]] = []

    def read(self, key: str) -> bytes:
        self.reads[key] += 1
        return super().read(key)

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        self.ranges.append((key.rpartition("/")[2], start, stop))
        return super().read_range(key, start, stop)
