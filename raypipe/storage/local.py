"""A folder with exactly the layout it would have in S3."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from obstore.store import LocalStore, MemoryStore

from raypipe.errors import ObjectChanged, ObjectMissing, RaypipeError, StoreAccessError
from raypipe.storage.objects import ObjectStore
from raypipe.storage.store import ObjectInfo

T = TypeVar("T")

LOCKS = ".locks"
"""Folder of lock files; no object lives there."""


class LocalFolder(ObjectStore):
    """Store in a local (or network-mounted) folder, made with the first write and for its user alone."""

    def __init__(self, path: str) -> None:
        self._root = Path(path).expanduser().absolute()
        nearest = next(folder for folder in (self._root, *self._root.parents) if os.path.exists(folder))
        if not nearest.is_dir():
            raise StoreAccessError(f"store {self._root}: the folder cannot be made: {nearest} is a file")
        super().__init__(str(self._root), MemoryStore())  # a folder that is not there reads as an empty store

    def write(self, key: str, data: bytes | memoryview) -> None:
        self._make_root()
        super().write(key, data)

    def write_if_absent(self, key: str, data: bytes) -> None:
        self._make_root()
        super().write_if_absent(key, data)

    def _make_root(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreAccessError(f"store {self._root}: the folder cannot be made: {error.strerror}") from None
        self._use_root()

    def _use_root(self) -> None:
        if not isinstance(self._backend, LocalStore):
            self._backend = LocalStore(str(self._root))

    def _once(self, action: Callable[[], T], key: str) -> T:
        if self._root.is_dir():  # by now: another process may have made it
            self._use_root()
        return super()._once(action, key)

    def read_with_etag(self, key: str) -> tuple[bytes, str]:
        # Not the backend's tag, made of inode, time and size: where file times are coarse, two quick writes repeat it.
        with self._naming_missing(key):
            data, _ = super().read_with_etag(key)
        return data, hashlib.sha256(data).hexdigest()

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        with self._naming_missing(key):
            return super().read_range(key, start, stop)

    @contextmanager
    def _naming_missing(self, key: str) -> Generator[None, None, None]:
        """ObjectMissing where the key lies below an object, of which the folder says that it cannot be entered."""
        try:
            yield
        except StoreAccessError:
            if self._lies_below_a_file(key):
                raise ObjectMissing(f"{self.uri}/{key} does not exist") from None
            raise

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
        folders: set[str] = set()
        for info in super().list(prefix):
            if info.key.startswith(f"{LOCKS}/"):
                continue
            folder = info.key.rpartition("/")[0]
            if folder not in folders:  # the backend follows links; one look a folder is enough
                self._check_inside(folder)
                folders.add(folder)
            yield info

    def _check_key(self, key: str) -> None:
        super()._check_key(key)
        self._check_inside(key)

    def _check_inside(self, key: str) -> None:
        """Refuse a key that a symbolic link leads out of the store; the store's own folder may be one.

        Raises:
            StoreAccessError: naming the link.
        """
        root = os.path.realpath(self._root)
        path = os.path.realpath(os.path.join(root, key))
        if path != root and not path.startswith(root.rstrip("/") + "/"):
            parts = key.split("/")
            paths = [os.path.join(root, *parts[: i + 1]) for i in range(len(parts))]
            link = next((each for each in paths if os.path.islink(each)), paths[-1])
            raise StoreAccessError(
                f"{link} is a symbolic link that leads out of the store {self._root}; it is not followed",
                "keep what it points at inside the store, or mount it there",
            )

    @contextmanager
    def _turn(self, key: str) -> Generator[None, None, None]:
        """A folder has no conditional replace: writers of one key take turns on a lock file."""
        self._make_root()
        lock = f"{LOCKS}/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._check_key(lock)
        path = self._root / lock
        try:
            path.parent.mkdir(exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._translated(error, key) from None
        with os.fdopen(handle, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _unanswered(self, where: str, reason: str, details: str) -> RaypipeError:
        if f"os error {errno.ENOSPC}" in details or f"os error {errno.EDQUOT}" in details:
            space = shutil.disk_usage(self._root)
            return StoreAccessError(
                f"{where}: no space left on the disk: {space.free:,} of {space.total:,} bytes are free",
                "free some space, then run it again",
            )
        if f"os error {errno.EROFS}" in details or f"os error {errno.ENOTDIR}" in details:
            return StoreAccessError(f"{where}: cannot be written: {reason}", "name another store: --store DIR")
        return super()._unanswered(where, reason, details)
