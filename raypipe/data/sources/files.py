"""Which files a source names, and how their bytes are reached: a folder, `s3://`, or `http(s)://`.

A file is pinned when it is listed: whoever reads it reads what was listed, or the reading ends with SourceChanged.
"""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.data.sources import disk, web
from raypipe.data.sources.disk import PinnedFile, open_pinned
from raypipe.data.sources.ranged import RangedFile
from raypipe.errors import DataError, RaypipeError, StoreError, did_you_mean
from raypipe.spec.sources import FORMAT_NAMES

HASHED_BYTES = 16 * 2**20
"""Local files up to this size are identified by content; larger ones by size and time of the last change."""

BUFFER_BYTES = 2**16
"""Read from a local file at once, at least."""

HTTP = web.SCHEMES
S3 = "s3://"

REFUSED = {
    "Python pickles": (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt"),
    "archives": (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z"),
    "HDF5": (".h5", ".hdf5", ".keras"),
    "Lance": (".lance",),
}
"""Files and folders that are never opened, whatever the format: they can carry code, or hide files that do."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: relative to the data root where it lies below it; shown in messages.
        uri: absolute path or address.
        size_bytes: 0 where the server does not tell.
        tag: changes when the content does: content hash, ETag or time of the last change.
        pin: what holds as long as the file is the one that was listed; empty when that is not known.
    """

    name: str
    uri: str
    size_bytes: int
    tag: str
    pin: str = ""


def find(paths: str | list[str], root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The files that paths, folders and globs name, in the order given, sorted inside folders and globs.

    Args:
        root: what relative paths start from: a folder, `s3://bucket/prefix` or `https://...`.
        suffixes: what counts inside a folder; a file named by itself always counts.
    Raises:
        DataError: nothing is there.
        StoreAccessError: S3 refuses the credentials.
    """
    found: dict[str, SourceFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        _refuse(absolute(path, root))
        for file in _find_one(absolute(path, root), path, root, suffixes):
            _refuse(file.uri)
            found.setdefault(file.uri, file)
    return list(found.values())


def read_bytes(file: SourceFile) -> bytes:
    """All bytes of a file as stored (a `.gz` stays compressed).

    Raises:
        SourceChanged: it is not the file that was listed any more.
    """
    if file.uri.startswith(HTTP):
        return web.fetch(file.uri, file.pin)
    with open_file(file) as handle:
        return handle.read()


def open_file(file: SourceFile) -> pa.NativeFile:
    """A file for random access; one over HTTP is downloaded whole.

    Opening, reading and closing raise SourceChanged when it is not the file that was listed any more.
    """
    if file.uri.startswith(HTTP):
        return pa.BufferReader(read_bytes(file))
    return _SourceStream(_Source(_opened(file)), mode="r")


def open_text(file: SourceFile) -> io.IOBase | pa.NativeFile:
    """A stream of the file's content, decompressed when the name ends in `.gz`; raises like `open_file`."""
    if file.uri.startswith(HTTP):
        data = read_bytes(file)
        # The bytes decide, not the name alone: servers may undo the compression on the way.
        is_gzip = urlsplit(file.uri).path.endswith(".gz") and data.startswith(GZIP_MAGIC)
        return pa.CompressedInputStream(pa.BufferReader(data), "gzip") if is_gzip else pa.BufferReader(data)
    return pa.CompressedInputStream(open_file(file), "gzip") if file.uri.endswith(".gz") else _opened(file)


def absolute(path: str, root: str) -> str:
    """Where a path leads that starts from `root`, unless it starts elsewhere by itself."""
    path = os.path.expanduser(path)
    if "://" in path or os.path.isabs(path):
        return path
    return (
        f"{root.rstrip('/')}/{path}" if "://" in root else os.path.normpath(os.path.join(os.path.abspath(root), path))
    )


def split_glob(path: str) -> tuple[str, str]:
    """The folder before the first name with `*?[` in it, and the pattern from there on; empty where there is none."""
    names = path.split("/")
    first = next((i for i, name in enumerate(names) if glob.has_magic(name)), len(names))
    pattern = "/".join(names[first:])
    return path.removesuffix(pattern), pattern


# --- listing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A file in a listing: its path within the place, and what is known of it."""

    path: str
    size_bytes: int
    pin: str


class _Place(Protocol):
    """Where files lie; paths have no `/` at their end."""

    def file(self, path: str) -> _Found | None:
        """The file of that path, if it is one."""
        ...

    def below(self, path: str, is_deep: bool = True) -> list[_Found]:
        """All files below a folder, or at least those right in it; none where there is no folder."""
        ...

    def is_folder(self, path: str) -> bool: ...


class _Disk:
    """Files of this machine."""

    def __init__(self) -> None:
        self._files = pafs.LocalFileSystem()

    def file(self, path: str) -> _Found | None:
        info = self._files.get_file_info(path)
        return _on_disk(info) if info.is_file else None

    def below(self, path: str, is_deep: bool = True) -> list[_Found]:
        selector = pafs.FileSelector(path, recursive=is_deep, allow_not_found=True)
        return [_on_disk(info) for info in self._files.get_file_info(selector) if info.is_file]

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)


def _on_disk(info: pafs.FileInfo) -> _Found:
    return _Found(info.path, int(info.size), disk.pin(int(info.size), info.mtime_ns))


class _Bucket:
    """Objects of one bucket."""

    def __init__(self, name: str) -> None:
        from raypipe.data.sources.buckets import source_bucket

        self._bucket = source_bucket(name)

    def file(self, path: str) -> _Found | None:
        info = self._bucket.info(path) if path else None
        return None if info is None else _Found(info.key, info.size_bytes, info.etag)

    def below(self, path: str, is_deep: bool = True) -> list[_Found]:
        del is_deep  # S3 lists all in one go
        return [_Found(info.key, info.size_bytes, info.etag) for info in self._bucket.below(path)]

    def is_folder(self, path: str) -> bool:
        return bool(self.below(path))


def _find_one(uri: str, written: str, root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    if uri.startswith(HTTP):
        size, tag = web.describe(uri)
        return [SourceFile(_name(uri, root), uri, size, tag, pin=tag)]
    if "://" in uri and not uri.startswith(S3):
        raise DataError(f"data.source: {uri} cannot be read", "use a local path, s3://bucket/key or https://")
    try:
        place, start, path = _place(uri)
        base, pattern = split_glob(written)
        found = _matching(place, path, _place(absolute(base, root))[2], pattern, suffixes)
        if not found:
            raise _missing(uri, written, suffixes, place, path)
        return [_source_file(start, each, root) for each in found]
    except StoreError as error:
        raise type(error)(f"data source {uri}: {error.message}", error.hint) from None
    except OSError as error:
        raise _unreadable(uri, error) from None


def _place(uri: str) -> tuple[_Place, str, str]:
    """Where it lies, how every address there begins, and the path within."""
    if not uri.startswith(S3):
        return _Disk(), "", uri
    bucket, key = _split_s3(uri)
    if not bucket or glob.has_magic(bucket):
        raise DataError(f"data.source: {uri} names no bucket", "s3://bucket/path; only the path may hold `*?[`")
    return _Bucket(bucket), f"{S3}{bucket}/", key.rstrip("/")


def _split_s3(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key


def _matching(place: _Place, path: str, base: str, pattern: str, suffixes: tuple[str, ...]) -> list[_Found]:
    """The file of that path, else the files below `base` that match the pattern, else the data files of the folder."""
    if (file := place.file(path)) is not None:
        return [file]
    chosen: list[_Found] = []
    if pattern:
        wanted = posixpath.normpath(pattern).split("/")
        listed = place.below(base, is_deep=wanted == ["**"] or len(wanted) > 1)
        chosen = [found for found in listed if _matches(found.path.removeprefix(base).strip("/").split("/"), wanted)]
    if not chosen:
        chosen = [found for found in place.below(path) if _is_data(found.path.removeprefix(path), suffixes)]
    return sorted(chosen, key=lambda found: found.path)


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether each folder and name is as the pattern says, where `**` is any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _is_data(path: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a path below the folder is of rows; what programs keep for themselves (.ipynb_checkpoints) is not."""
    return path.endswith(suffixes) and not any(name.startswith((".", "_")) for name in path.split("/"))


def _source_file(start: str, found: _Found, root: str) -> SourceFile:
    uri = start + found.path
    if start:
        tag = found.pin
    elif found.size_bytes > HASHED_BYTES:
        tag = f"changed {found.pin.rpartition(' ')[2]}"
    else:
        with PinnedFile(uri) as handle:
            tag, found = handle.digest(), _Found(found.path, os.fstat(handle.fileno()).st_size, handle.pin)
    return SourceFile(_name(uri, root), uri, found.size_bytes, tag, found.pin)


def _name(uri: str, root: str) -> str:
    base = (root if "://" in root else os.path.abspath(root)).rstrip("/") + "/"
    return uri.removeprefix(base)


def _refuse(uri: str) -> None:
    """Raise DataError for a file, or a folder in the way to it, of a kind that is never opened."""
    for what, suffixes in REFUSED.items():
        for name in urlsplit(uri).path.lower().split("/") if uri.startswith(HTTP) else uri.lower().split("/"):
            if name.endswith(suffixes):
                formats = ", ".join(FORMAT_NAMES)
                raise DataError(
                    f"data.source: {uri} is not opened: {what} can carry code; the formats are {formats}",
                    "write the rows as one of these formats, e.g. Parquet, with a program that you trust",
                )


def _missing(uri: str, written: str, suffixes: tuple[str, ...], place: _Place, path: str) -> DataError:
    folder, _, last = uri.rpartition("/")
    if place.is_folder(path):
        names = [found.path.rpartition("/")[2] for found in place.below(path)]
        kinds = Counter(os.path.splitext(name)[1] or name for name in names)
        holds = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(10)) or "nothing"
        return DataError(
            f"data.source: '{written}' ({uri}) holds no {' or '.join(suffixes)} file; it holds {holds}",
            "correct data.source.format or data.source.path, or name the files",
        )
    near = sorted(os.listdir(folder)) if "://" not in uri and os.path.isdir(folder) else []
    return DataError(
        f"data.source: '{written}' matches no file ({uri}){did_you_mean(last, near)}",
        "correct the path; relative paths start from the pipeline file's folder or data.root",
    )


def _unreadable(uri: str, error: OSError) -> DataError:
    return DataError(
        f"data source {uri} cannot be read: {error.strerror or error}", "correct the path, or who may read it"
    )


# --- reading what was listed -----------------------------------------------------------------------------------------


def _opened(file: SourceFile) -> io.IOBase:
    return _open_s3(file) if file.uri.startswith(S3) else _open_local(file)


class _Source:
    """A file as Arrow reads it, which keeps our own error that stopped a reading."""

    def __init__(self, inner: io.IOBase) -> None:
        self._inner: Any = inner
        self.failure: RaypipeError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._inner.read(size)
        except RaypipeError as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _SourceStream(pa.PythonFile):
    """Leaves its block with the error that stopped the reading: some of Arrow's decoders keep its words alone."""

    def __init__(self, source: _Source, mode: str) -> None:
        self._source = source

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        failure = self._source.failure
        if failure is not None and isinstance(error, Exception) and not isinstance(error, RaypipeError):
            raise failure from None


def _open_local(file: SourceFile) -> io.BufferedReader:
    is_hashed = file.size_bytes <= HASHED_BYTES
    try:
        return io.BufferedReader(open_pinned(file.uri, file.pin, file.tag if is_hashed else ""), BUFFER_BYTES)
    except OSError as error:
        raise _unreadable(file.uri, error) from None


def _open_s3(file: SourceFile) -> RangedFile:
    from raypipe.data.sources.buckets import source_bucket

    bucket, key = _split_s3(file.uri)
    return RangedFile(partial(source_bucket(bucket).read_pinned, key, file.pin), file.size_bytes)
