"""Many files appear together: the parts first, then one manifest with their digests.

The manifest is written last and is the marker: a prefix without one is debris of an interrupted write. Where a set is
there already, its files stay until the manifest of the new one is written: whoever breaks off in between leaves the old
set whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress

from pydantic import ValidationError

from raypipe.errors import DigestMismatch, ObjectMissing, StoreError
from raypipe.records import Record, digest_of
from raypipe.storage.documents import RESTORE
from raypipe.storage.store import Store

MANIFEST = "manifest.json"


class FileDigest(Record):
    sha256: str
    size_bytes: int
    object: str = ""
    """Name of the object below the prefix, where it is not the file's own: the set replaced another one."""


class Manifest(Record):
    """The files under one prefix."""

    files: dict[str, FileDigest]

    def size_of(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        return self.files[name].size_bytes if name in self.files else 0

    @property
    def digest(self) -> str:
        """One digest for all files."""
        return digest_of({name: file.sha256 for name, file in self.files.items()})


def publish(store: Store, prefix: str, files: Mapping[str, bytes]) -> Manifest:
    """Write all files under `prefix`, then the manifest that makes them count.

    A complete set that is there already stays whole until then; files that it shares are not written again.
    """
    before = _manifest_before(store, prefix)
    in_use = {each.object or name for name, each in before.items()}
    placed: dict[str, FileDigest] = {}
    for name, data in sorted(files.items()):
        known, digest = before.get(name), sha256(data)
        if known is not None and known.sha256 == digest:
            placed[name] = known
            if _is_whole(store, prefix, name, known):
                continue
        else:
            aside = f"{name}.{digest[:16]}" if name in in_use else ""
            placed[name] = FileDigest(sha256=digest, size_bytes=len(data), object=aside)
        store.write(_key(prefix, name, placed[name]), data)
    manifest = Manifest(files=placed)
    store.write(f"{prefix}/{MANIFEST}", manifest.model_dump_json(indent=1, exclude_defaults=True).encode())
    if before:
        _delete_others(store, prefix, manifest)
    return manifest


def _manifest_before(store: Store, prefix: str) -> dict[str, FileDigest]:
    try:
        return read_manifest(store, prefix).files
    except (ObjectMissing, DigestMismatch):
        return {}


def _is_whole(store: Store, prefix: str, name: str, digest: FileDigest) -> bool:
    try:
        read_verified(store, _key(prefix, name, digest), digest)
    except (ObjectMissing, DigestMismatch):
        return False
    return True


def _delete_others(store: Store, prefix: str, manifest: Manifest) -> None:
    kept = {_key(prefix, name, each) for name, each in manifest.files.items()} | {f"{prefix}/{MANIFEST}"}
    with suppress(StoreError):  # the new set counts; what stays of the old one takes room and harms nobody
        for info in list(store.list(prefix)):
            if info.key not in kept:
                store.delete(info.key)


def _key(prefix: str, name: str, digest: FileDigest) -> str:
    return f"{prefix}/{digest.object or name}"


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
    files = {name: manifest.files[name] for name in wanted}
    return {name: read_verified(store, _key(prefix, name, each), each) for name, each in files.items()}


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
