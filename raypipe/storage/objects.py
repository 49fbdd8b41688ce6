"""What every obstore backend shares: calls translated to the Store contract, errors to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast
from uuid import uuid4

import obstore
from obstore import exceptions as failed

from raypipe.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    RaypipeError,
    StoreAccessError,
    StoreError,
    masked,
)
from raypipe.retry import Retry
from raypipe.storage import layout
from raypipe.storage.store import ObjectInfo, Store

T = TypeVar("T")

_RETRY = Retry(max_attempts=5, first_delay_s=0.2, deadline_s=12.0)
"""Around the backend's own retries: a store that is away is told after 25 s at most, a short absence is not noticed."""

_MAX_KEY_BYTES = 1024
_NO_KEY_PARTS = ("", ".", "..")
_UPLOADING = re.compile(r"#\d+$")
"""How a folder's backend names a file that is still being written."""


class ObjectStore(Store):
    """A Store over one obstore backend."""

    def __init__(self, uri: str, backend: Any) -> None:
        self.uri = uri
        self._backend: Any = backend

    def check(self) -> None:
        key = layout.probe(uuid4().hex)
        for _ in self.list(layout.probes()):  # first, because some servers make a misspelt bucket when it is written to
            break
        self.write(key, b"raypipe")
        try:
            if self.read(key) != b"raypipe":
                raise StoreAccessError(f"{self.uri}: an object read back differs from what was written")
        finally:
            self.delete(key)

    def read(self, key: str) -> bytes:
        return self.read_with_etag(key)[0]

    def read_with_etag(self, key: str) -> tuple[bytes, str]:
        def get() -> tuple[bytes, str]:
            answer = obstore.get(self._backend, key)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

        return self._call(get, key)

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        def get() -> memoryview:
            try:
                answer = obstore.get(self._backend, key, options={"range": (start, stop)})
                return memoryview(cast(Any, answer.bytes()))
            except failed.GenericError:
                # Each backend has its own words for a range that begins behind the object's end.
                if obstore.head(self._backend, key)["size"] <= start:
                    return memoryview(b"")
                raise

        return self._call(get, key)

    def write(self, key: str, data: bytes | memoryview) -> None:
        # Few parts at a time: each must arrive within the read timeout, on a slow line too.
        self._call(lambda: obstore.put(self._backend, key, data, max_concurrency=4), key)

    def write_if_absent(self, key: str, data: bytes) -> None:
        # One try: after a lost answer a second PUT could find our own object; only the caller can tell whose it is.
        self._call(lambda: obstore.put(self._backend, key, data, mode="create", use_multipart=False), key, Retry(1))

    def write_if_unchanged(self, key: str, data: bytes, etag: str) -> None:
        self._call(
            lambda: obstore.put(self._backend, key, data, mode={"e_tag": etag}, use_multipart=False), key, Retry(1)
        )

    def exists(self, key: str) -> bool:
        try:
            self._call(lambda: obstore.head(self._backend, key), key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        def collect() -> list[ObjectInfo]:
            found: Any = cast(Any, obstore).list(self._backend, prefix=prefix or None)
            return [ObjectInfo(str(o["path"]), int(o["size"]), str(o["e_tag"])) for page in found for o in page]

        found = self._call(collect, prefix) if prefix else _RETRY.call(lambda: self._once(collect, ""))
        yield from sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        try:
            self._call(lambda: obstore.delete(self._backend, key), key)
        except ObjectMissing:
            return

    def _call(self, action: Callable[[], T], key: str, retry: Retry | None = None) -> T:
        self._check_key(key)
        return (retry or _RETRY).call(lambda: self._once(action, key))

    def _check_key(self, key: str) -> None:
        bad_part = any(part in _NO_KEY_PARTS or _UPLOADING.search(part) for part in key.split("/"))
        if bad_part or not key.isprintable() or len(key.encode()) > _MAX_KEY_BYTES:
            raise StoreAccessError(
                f"{self.uri}: {key[:80]!r} cannot be a key: parts between single '/', none of them '.' or '..', "
                f"printable, at most {_MAX_KEY_BYTES} bytes"
            )

    def _once(self, action: Callable[[], T], key: str) -> T:
        try:
            return action()
        except (failed.BaseError, OSError, ValueError) as error:
            raise self._translated(error, key) from None

    def _translated(self, error: Exception, key: str) -> RaypipeError:
        where = f"{self.uri}/{key}"
        reason = masked(str(error)).split("\n", 1)[0][:300]
        if isinstance(error, failed.AlreadyExistsError):
            return ObjectExists(f"{where} exists already")
        if isinstance(error, failed.PreconditionError | failed.NotModifiedError):
            return ObjectChanged(f"{where} changed since it was read")
        if isinstance(error, FileNotFoundError):
            return self._missing(where, str(error))
        if isinstance(error, failed.PermissionDeniedError | failed.UnauthenticatedError | PermissionError):
            return StoreAccessError(f"{where}: access denied", self.access_hint)
        return self._unanswered(where, reason, str(error))

    access_hint = "check who owns the folder and its permissions"

    def _missing(self, where: str, details: str) -> RaypipeError:
        return ObjectMissing(f"{where} does not exist")

    def _unanswered(self, where: str, reason: str, details: str) -> RaypipeError:
        return StoreError(f"{where}: storage did not do it: {reason}", "run the same command again")
