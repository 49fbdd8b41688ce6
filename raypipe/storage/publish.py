"""Many files appear together: the parts first, then one manifest with their digests.

The manifest is written last and is the marker: a prefix without one is debris of an interrupted write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from raypipe.errors import DigestMismatch, ObjectMissing
from raypipe.records import Record, digest_of
from raypipe.storage.documents import RESTORE
from raypipe.storage.store import Store

MANIFEST = "manifest.json"


class FileDigest(Record):
    sha256: str
    size_bytes: int


class Manifest(Record):
    """The files under one prefix."""

    files: dict[str, FileDigest]

    @property
    def digest(self) -> str:
        """One digest for all files."""
        return digest_of({name: file.sha256 for name, file in self.files.items()})


def publish(store: Store, prefix: str, files: Mapping[str, bytes]) -> Manifest:
    """Write all files under `prefix`, then the manifest that makes them count."""
    manifest = Manifest(files={n: FileDigest(sha256=sha256(b), size_bytes=len(b)) for n, b in sorted(files.items())})
    for name, data in files.items():
        store.write(f"{prefix}/{name}", data)
    store.write(f"{prefix}/{MANIFEST}", manifest.to_json())
    return manifest


def read_manifest(store: Store, prefix: str) -> Manifest:
    """The manifest of a published prefix.

    Raises:
        ObjectMissing: nothing complete is there.
        DigestMismatch: what is there is not a manifest.
    """
    try:
        return Manifest.model_validate_json(store.read(f"{prefix}/{MANIFEST}"))
    except ValidationError:
        raise DigestMismatch(f"{store.uri}/{prefix}/{MANIFEST} is damaged: not a readable manifest", RESTORE) from None


def read_published(
    store: Store, prefix: str, names: Iterable[str] | None = None, *, digest: str | None = None
) -> dict[str, bytes]:
    """Read files back and check every byte against the manifest.

    Args:
        names: which files; unset reads all.
        digest: the manifest's digest the caller was promised.
    Raises:
        DigestMismatch: a file, or the set of files, is not what was written.
        ObjectMissing: a file or the manifest is not there.
    """
    manifest = read_manifest(store, prefix)
    if digest is not None and manifest.digest != digest:
        raise DigestMismatch(f"{store.uri}/{prefix} holds other files than the record that names it", RESTORE)
    wanted = list(manifest.files) if names is None else list(names)
    if unknown := [name for name in wanted if name not in manifest.files]:
        raise ObjectMissing(f"{store.uri}/{prefix} has no file '{unknown[0]}'; it has {', '.join(manifest.files)}")
    return {name: read_verified(store, f"{prefix}/{name}", manifest.files[name]) for name in wanted}


def copy_published(store: Store, source: str, target: str, *, digest: str) -> Manifest:
    """Copy a published prefix, checking every byte on the way; repeating it is harmless."""
    return publish(store, target, read_published(store, source, digest=digest))


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def read_verified(store: Store, key: str, expected: FileDigest) -> bytes:
    """One object, every byte checked.

    Raises:
        DigestMismatch: it is not what was written.
        ObjectMissing: it is not there.
    """
    data = store.read(key)
    if len(data) != expected.size_bytes or sha256(data) != expected.sha256:
        raise DigestMismatch(
            f"{store.uri}/{key} is damaged: found {len(data)} bytes, SHA-256 {sha256(data)[:12]}; "
            f"written were {expected.size_bytes} bytes, SHA-256 {expected.sha256[:12]}",
            RESTORE,
        )
    return data
