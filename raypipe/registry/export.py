"""A version leaves its registry: a store that holds this one version and nothing else that it would need.

What comes out is a store like any other, in a folder, in a bucket, or in an archive of one. So whoever serves it reads
it as always: the record sealed, its number taken by the run that made it, every byte of the artifact under its digest.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from raypipe.errors import ObjectExists, ObjectMissing, RegistryError
from raypipe.records import ModelVersion
from raypipe.storage import Store, layout
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import publish, read_published

ARCHIVES = (".tar.gz", ".tgz")
"""Endings of a name that mean an archive."""


def export(store: Store, version: ModelVersion, target: Store) -> None:
    """Copy a version into another store, every byte checked on the way; the record, which makes it exist, comes last.

    Repeating it is harmless.

    Raises:
        RegistryError: another version has this number there; nothing was changed.
        DigestMismatch, ObjectMissing: the version is damaged here.
    """
    records = {layout.number(version.model, version.version), layout.version(version.model, version.version)}
    copies: dict[str, bytes] = {}
    for key in sorted(records):  # the number first
        try:
            copies[key] = store.read(key)
        except ObjectMissing:  # an older raypipe gave numbers out without a record of it
            if key == layout.version(version.model, version.version):
                raise
    files = read_published(store, version.artifact.key, digest=version.artifact.digest)
    for key, data in copies.items():
        if target.exists(key) and target.read(key) != data:
            raise RegistryError(
                f"{target.uri} holds another {version.model}@{version.version}", "export into an empty place"
            )
    publish(target, version.artifact.key, files)
    for key, data in copies.items():
        try:
            target.write_if_absent(key, data)
        except ObjectExists:  # compared above
            continue


def export_archive(store: Store, version: ModelVersion, file: Path) -> None:
    """The same as a gzipped archive, which SageMaker calls model.tar.gz; made whole or not at all.

    Raises:
        RegistryError: its folder is not there, or the file is there already.
    """
    if file.exists() or not file.parent.is_dir():
        what = "is there already" if file.exists() else "cannot be made: its folder is not there"
        raise RegistryError(f"{file} {what}", "name another --out")
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".raypipe-") as scratch:
        folder, made = Path(scratch, "store"), Path(scratch, file.name)
        export(store, version, LocalFolder(str(folder)))
        with tarfile.open(made, "w:gz") as archive:
            for path in sorted(folder.rglob("*")):
                archive.add(path, str(path.relative_to(folder)), recursive=False, filter=_of_nobody)
        made.rename(file)


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever unpacks it can read it, and nothing tells who packed it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
