"""A folder with exactly the layout it would have in S3."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from obstore.store import LocalStore

from raypipe.errors import ObjectChanged, ObjectMissing, RaypipeError, StoreAccessError
from raypipe.storage.objects import ObjectStore
from raypipe.storage.store import ObjectInfo

LOCKS = ".locks"
"""Folder of lock files; no object lives there."""


class LocalFolder(ObjectStore):
    """Store in a local (or network-mounted) folder."""

    def __init__(self, path: str) -> None:
        root = Path(path).expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreAccessError(f"store {root}: the folder cannot be made: {error.strerror}") from None
        self._root = root
        super().__init__(str(root), LocalStore(str(root)))

    def read_with_etag(self, key: str) -> tuple[bytes, str]:
        # Not the backend's tag, made of inode, time and size: where file times are coarse, two quick writes repeat it.
        try:
            data, _ = super().read_with_etag(key)
        except StoreAccessError:
            if self._lies_below_a_file(key):
                raise ObjectMissing(f"{self.uri}/{key} does not exist") from None
            raise
        return data, hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        return not self._lies_below_a_file(key) and super().exists(key)

    def _lies_below_a_file(self, key: str) -> bool:
        """Whether `a/b` is an object and the key `a/b/c`: possible in S3, not in a folder."""
        parts = key.split("/")[:-1]
        return any(self._root.joinpath(*parts[: i + 1]).is_file() for i in range(len(parts)))

    def write_if_unchanged(self, key: str, data: bytes, etag: str) -> None:
        with self._turn(key):
            try:
                _, found = self.read_with_etag(key)
            except ObjectMissing:
                found = None
            if found != etag:
                raise ObjectChanged(f"{self.uri}/{key} changed since it was read")
            self.write(key, data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (info for info in super().list(prefix) if not info.key.startswith(f"{LOCKS}/"))

    @contextmanager
    def _turn(self, key: str) -> Generator[None, None, None]:
        """A folder has no conditional replace: writers of one key take turns on a lock file."""
        path = self._root / LOCKS / hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            path.parent.mkdir(exist_ok=True)
            handle = path.open("w")
        except OSError as error:
            raise self._translated(error, key) from None
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _unanswered(self, where: str, reason: str, details: str) -> RaypipeError:
        if f"os error {errno.ENOSPC}" in details or f"os error {errno.EDQUOT}" in details:
            return StoreAccessError(f"{where}: no space left on the disk", "free some space, then run it again")
        if f"os error {errno.EROFS}" in details or f"os error {errno.ENOTDIR}" in details:
            return StoreAccessError(f"{where}: cannot be written: {reason}", "name another store: --store DIR")
        return super()._unanswered(where, reason, details)
