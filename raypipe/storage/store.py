"""The Store contract: whole objects under keys, with conditional writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int
    etag: str
    """Changes when the object does; not always the tag that `read_with_etag` gives."""


class Store(ABC):
    """Objects at rest. Keys are relative, `/`-separated, spelled by storage/layout.py only.

    Every method raises StoreError (transient) when storage does not answer and
    StoreAccessError when it answers that it will not.
    """

    uri: str
    """Where it is; `open_store(uri)` opens the same store in another process."""

    @abstractmethod
    def check(self) -> None:
        """Prove that objects can be written, read and deleted here."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing."""

    @abstractmethod
    def read_with_etag(self, key: str) -> tuple[bytes, str]:
        """The whole object and the tag that `write_if_unchanged` expects. Raises ObjectMissing."""

    @abstractmethod
    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of the object, fewer where it ends before; read-only. Raises ObjectMissing.

        Args:
            start, stop: 0 <= start < stop.
        """

    @abstractmethod
    def write(self, key: str, data: bytes | memoryview) -> None:
        """Write or replace; readers see the old object or the new one, never a mix."""

    @abstractmethod
    def write_if_absent(self, key: str, data: bytes) -> None:
        """Write a new object. Raises ObjectExists.

        After an answer that got lost on the way the object that exists may be the caller's own: read it to know.
        """

    @abstractmethod
    def write_if_unchanged(self, key: str, data: bytes, etag: str) -> None:
        """Replace the object that had `etag`. Raises ObjectChanged (also when it is gone).

        As with `write_if_absent`, the change may be the caller's own. Bodies of one key should never repeat (put a
        nonce in), because tags may be made from content.
        """

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix + "/"`, in key order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return any(info.key == key for info in self.list(key.rpartition("/")[0]))

    def delete_prefix(self, prefix: str) -> None:
        """Remove every object under a prefix."""
        for info in list(self.list(prefix)):
            self.delete(info.key)
