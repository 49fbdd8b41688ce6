"""Faults to put in: storage that loses answers."""

from __future__ import annotations

from raypipe.errors import StoreError
from raypipe.testing.fakes import MemoryStore


class LosingStore(MemoryStore):
    """A store in memory whose next conditional writes end without an answer.

    Args:
        landed: one entry a write to come: whether it took place although the caller is told it may not have.
    """

    def __init__(self, *landed: bool) -> None:
        super().__init__()
        self.landed = list(landed)

    def write_if_absent(self, key: str, data: bytes) -> None:
        """As the contract says, until the answer is lost."""
        if not self.landed or self.landed[0]:
            super().write_if_absent(key, data)
        self._lose(key)

    def write_if_unchanged(self, key: str, data: bytes, etag: str) -> None:
        """As the contract says, until the answer is lost."""
        if not self.landed or self.landed[0]:
            super().write_if_unchanged(key, data, etag)
        self._lose(key)

    def _lose(self, key: str) -> None:
        if self.landed:
            self.landed.pop(0)
            raise StoreError(f"{self.uri}/{key}: storage did not answer")
