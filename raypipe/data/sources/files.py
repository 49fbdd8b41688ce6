"""Which files a source names, and how their bytes are reached: a folder, `s3://`, or `http(s)://`.

A file is pinned when it is listed: whoever reads it reads what was listed, or the reading ends with SourceChanged.
Listing opens no file, but those of a small source, which are known by content: such a source may be touched, copied, or
lie on each machine of a cluster by itself, and is still the same.  All others are known by what their place tells.
"""

from __future__ import annotations

import glob
import io
import os
import posixpath
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from raypipe.data.sources import disk, web
from raypipe.data.sources.paths import absolute, base_of, is_data, matches, refuse_kind, split_glob
from raypipe.data.sources.place import Place, SourceFile
from raypipe.errors import DataError, RaypipeError, StoreError, did_you_mean
from raypipe.spec.endings import has_ending, in_either_case

DIGESTED_FILES, DIGESTED_BYTES = 64, 16 * 2**20
"""Local files are known by content where a path names no more of them, and no more bytes."""

HTTP = web.SCHEMES
S3 = "s3://"

GZIP_MAGIC = b"\x1f\x8b"


class UnreadableFile(DataError):
    """One file that cannot be opened."""


def find(paths: str | list[str], root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The files that paths, folders and globs name, in the order given, sorted inside folders and globs.

    Args:
        root: what relative paths start from: a folder, `s3://bucket/prefix` or `https://...`.
        suffixes: what counts inside a folder; a file named by itself always counts.
    Raises:
        DataError: nothing is there.
        StoreAccessError: S3 refuses the credentials.
    """
    files: dict[str, SourceFile] = {}
    base = base_of(root)
    for path in [paths] if isinstance(paths, str) else paths:
        refuse_kind(absolute(path, root))
        for file in _find_one(absolute(path, root), path, root, suffixes):
            refuse_kind(file.uri)
            name = file.uri.removeprefix(base)
            files.setdefault(file.uri, SourceFile(name, file.uri, file.size_bytes, file.tag, file.pin, file.digest))
    listed = list(files.values())
    return [disk.with_digest(file) for file in listed] if _is_small(listed) else listed


def read_bytes(file: SourceFile) -> bytes:
    """All bytes of a file as stored (a `.gz` stays compressed).

    Raises:
        SourceChanged: it is not the file that was listed any more.
        UnreadableFile: it cannot be opened.
    """
    with open_file(file) as handle:
        return handle.read()


def read_start(file: SourceFile, num_bytes: int) -> bytes:
    """About the first bytes of a file as stored, so many or all; raises like `open_file`."""
    if file.uri.startswith(HTTP):
        return web.fetch_start(file.uri, num_bytes)
    with open_file(file) as handle:
        return handle.read(num_bytes)


def open_file(file: SourceFile) -> pa.NativeFile:
    """A file for random access; one over HTTP is downloaded whole.

    Opening, reading and closing raise SourceChanged when it is not the file that was listed any more.
    """
    opened = _opened(file)
    return pa.BufferReader(opened.getbuffer()) if isinstance(opened, io.BytesIO) else _SourceStream(_Source(opened))


def open_text(file: SourceFile) -> io.IOBase | pa.NativeFile:
    """A stream of the file's content, decompressed when the name ends in `.gz`; raises like `open_file`."""
    if not file.uri.startswith(HTTP):
        return pa.CompressedInputStream(open_file(file), "gzip") if has_ending(file.uri, ".gz") else _opened(file)
    data = read_bytes(file)
    # The bytes decide, not the name alone: servers may undo the compression on the way.
    is_gzip = has_ending(urlsplit(file.uri).path, ".gz") and data.startswith(GZIP_MAGIC)
    return pa.CompressedInputStream(pa.BufferReader(data), "gzip") if is_gzip else pa.BufferReader(data)


# --- listing ---------------------------------------------------------------------------------------------------------


def _is_small(files: list[SourceFile]) -> bool:
    is_local = all("://" not in file.uri for file in files)
    return is_local and len(files) <= DIGESTED_FILES and sum(f.size_bytes or 0 for f in files) <= DIGESTED_BYTES


def _find_one(uri: str, written: str, root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    try:
        place = _place(uri)
        base, pattern = split_glob(written)
        path, base = _within(place, uri), _within(place, absolute(base, root))
        files = _matching(place, path, base, pattern, suffixes)
        if not files:
            raise _missing(uri, written, suffixes, place, path)
        return files
    except StoreError as error:
        if uri.startswith(HTTP):
            raise
        raise type(error)(f"data source {uri}: {error.message}", error.hint) from None
    except OSError as error:
        raise _unreadable(str(error.filename or uri), error) from None


def _within(place: Place, uri: str) -> str:
    path = uri.removeprefix(place.start)
    return path if uri.startswith(HTTP) else path.rstrip("/") or path[:1]


def _place(uri: str) -> Place:
    """Where a uri lies."""
    if uri.startswith(HTTP):
        return web.Web()
    if uri.startswith(S3):
        from raypipe.data.sources.buckets import Objects

        bucket = uri.removeprefix(S3).partition("/")[0]
        if not bucket or glob.has_magic(bucket):
            raise DataError(f"data.source: {uri} names no bucket", "s3://bucket/path; only the path may hold `*?[`")
        return Objects(bucket)
    if "://" in uri:
        raise DataError(f"data.source: {uri} cannot be read", "use a local path, s3://bucket/key or https://")
    return disk.Disk()


def _matching(place: Place, path: str, base: str, pattern: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The file of that path, else the files below `base` that match the pattern, else the data files of the folder."""
    if (file := place.file(path)) is not None:
        return [file]
    chosen: list[SourceFile] = []
    if pattern:
        wanted = in_either_case(posixpath.normpath(pattern)).split("/")
        start = place.start + base
        listed = place.below(base, is_deep=wanted == ["**"] or len(wanted) > 1)
        chosen = [file for file in listed if matches(file.uri.removeprefix(start).strip("/").split("/"), wanted)]
    if not chosen:
        start = place.start + path
        chosen = [file for file in place.below(path) if is_data(file.uri.removeprefix(start), suffixes)]
    return sorted(chosen, key=lambda file: file.uri)


def _missing(uri: str, written: str, suffixes: tuple[str, ...], place: Place, path: str) -> DataError:
    folder, _, last = uri.rpartition("/")
    if place.is_folder(path):
        names = [file.uri.rpartition("/")[2] for file in place.below(path)]
        kinds = Counter(os.path.splitext(name)[1].lower() or name for name in names)
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


def _unreadable(uri: str, error: OSError) -> UnreadableFile:
    return UnreadableFile(
        f"data source {uri} cannot be read: {error.strerror or error}", "correct the path, or who may read it"
    )


# --- reading what was listed -----------------------------------------------------------------------------------------


def _opened(file: SourceFile) -> io.IOBase:
    try:
        return _place(file.uri).open(file)
    except OSError as error:
        raise _unreadable(file.uri, error) from None


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

    def __init__(self, source: _Source, mode: str = "r") -> None:
        self._source = source

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        failure = self._source.failure
        if failure is not None and isinstance(error, Exception) and not isinstance(error, RaypipeError):
            raise failure from None
