"""Which files a source names, and how their bytes are reached: a folder, `s3://`, or `http(s)://`."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.errors import DataError, StoreAccessError, StoreError, did_you_mean

HASHED_BYTES = 16 * 2**20
"""Files up to this size are identified by content; larger ones by size and time of the last change."""

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: relative to the data root where it lies below it; shown in messages.
        uri: absolute path or address.
        size_bytes: 0 where the server does not tell.
        tag: changes when the content does: content hash, ETag or time of the last change.
    """

    name: str
    uri: str
    size_bytes: int
    tag: str


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
        for file in _find_one(_absolute(path, root), path, root, suffixes):
            found.setdefault(file.uri, file)
    return list(found.values())


def read_bytes(file: SourceFile) -> bytes:
    """All bytes of a file as stored (a `.gz` stays compressed)."""
    if file.uri.startswith(("http://", "https://")):
        return bytes(_http("GET", file.uri).content)
    with open_file(file) as handle:
        return handle.read()


def open_file(file: SourceFile) -> pa.NativeFile:
    """A file for random access."""
    filesystem, path = _filesystem(file.uri)
    try:
        return filesystem.open_input_file(path)
    except OSError as error:
        raise _unreadable(file.uri, error) from None


def open_text(file: SourceFile) -> pa.NativeFile:
    """A stream of the file's content, decompressed when the name ends in `.gz`."""
    filesystem, path = _filesystem(file.uri)
    try:
        return filesystem.open_input_stream(path, compression="gzip" if path.endswith(".gz") else None)
    except OSError as error:
        raise _unreadable(file.uri, error) from None


def _absolute(path: str, root: str) -> str:
    path = os.path.expanduser(path)
    if "://" in path or os.path.isabs(path):
        return path
    return (
        f"{root.rstrip('/')}/{path}" if "://" in root else os.path.normpath(os.path.join(os.path.abspath(root), path))
    )


def _find_one(uri: str, written: str, root: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    if uri.startswith(("http://", "https://")):
        return [_http_file(uri, root)]
    if "://" in uri and not uri.startswith("s3://"):
        raise DataError(f"data.source: {uri} cannot be read", "use a local path, s3://bucket/key or https://")
    filesystem, path = _filesystem(uri)
    try:
        infos = _infos(filesystem, path, suffixes)
    except OSError as error:
        raise _unreadable(uri, error) from None
    if not infos:
        raise _missing(uri, written, suffixes)
    prefix = "s3://" if uri.startswith("s3://") else ""
    return [_source_file(filesystem, prefix, info, root) for info in infos]


def _infos(filesystem: pafs.FileSystem, path: str, suffixes: tuple[str, ...]) -> list[pafs.FileInfo]:
    if glob.has_magic(path):
        base = path[: path.index(next(c for c in path if c in "*?["))].rpartition("/")[0]
        inside = filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
        depth = None if "**" in path else path.count("/")
        pattern = path.replace("**/", "*")
        named = [i for i in inside if fnmatch.fnmatchcase(i.path, pattern) and depth in (None, i.path.count("/"))]
        return sorted((i for i in named if i.is_file), key=lambda i: i.path)
    info = filesystem.get_file_info(path)
    if info.is_file:
        return [info]
    if info.type == pafs.FileType.NotFound:
        return []
    inside = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    data = [i for i in inside if i.is_file and i.path.endswith(suffixes) and not i.base_name.startswith((".", "_"))]
    return sorted(data, key=lambda i: i.path)


def _source_file(filesystem: pafs.FileSystem, prefix: str, info: pafs.FileInfo, root: str) -> SourceFile:
    if prefix or info.size > HASHED_BYTES:
        tag = f"changed {info.mtime_ns}"
    else:
        with filesystem.open_input_file(info.path) as stream:
            tag = hashlib.sha256(stream.read()).hexdigest()
    uri = prefix + info.path
    return SourceFile(_name(uri, root), uri, int(info.size), tag)


def _name(uri: str, root: str) -> str:
    base = (root if "://" in root else os.path.abspath(root)).rstrip("/") + "/"
    return uri.removeprefix(base)


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    if not uri.startswith("s3://"):
        return pafs.LocalFileSystem(), uri
    path = uri.removeprefix("s3://")
    try:
        return pafs.FileSystem.from_uri("s3://" + path.partition("/")[0])[0], path
    except (OSError, ValueError) as error:
        raise _unreadable(uri, error) from None


def _missing(uri: str, written: str, suffixes: tuple[str, ...]) -> DataError:
    folder, _, last = uri.rpartition("/")
    if os.path.isdir(uri):
        return DataError(f"data.source: '{written}' ({uri}) holds no {' or '.join(suffixes)} file", "name the files")
    near = sorted(os.listdir(folder)) if "://" not in uri and os.path.isdir(folder) else []
    return DataError(
        f"data.source: '{written}' matches no file ({uri}){did_you_mean(last, near)}",
        "correct the path; relative paths start from the pipeline file's folder or data.root",
    )


def _unreadable(uri: str, error: Exception) -> Exception:
    reason = str(error).split("\n", 1)[0][:300]
    if any(word in reason for word in ("ACCESS_DENIED", "AccessDenied", "INVALID_ACCESS_KEY", "SIGNATURE", "403")):
        hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role"
        return StoreAccessError(f"data source {uri}: access denied: {reason}", hint)
    if "NETWORK_CONNECTION" in reason or "curlCode" in reason:
        return StoreError(f"data source {uri}: S3 did not answer: {reason}", "check AWS_ENDPOINT_URL and the network")
    return DataError(f"data source {uri} cannot be read: {reason}", "correct the path, or who may read it")


def _http_file(uri: str, root: str) -> SourceFile:
    headers = _http("HEAD", uri).headers
    size = int(headers.get("content-length", 0))
    return SourceFile(
        _name(uri, root), uri, size, headers.get("etag") or headers.get("last-modified") or f"size {size}"
    )


def _http(method: str, uri: str) -> Any:
    import httpx

    try:
        answer = httpx.request(method, uri, follow_redirects=True, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise StoreError(f"data source {uri} did not answer: {error}", "check the network, then run again") from None
    if answer.status_code in (401, 403):
        raise StoreAccessError(f"data source {uri}: access denied (HTTP {answer.status_code})")
    if answer.status_code >= 500:
        raise StoreError(f"data source {uri} answered HTTP {answer.status_code}", "run the same command again")
    if answer.is_error:
        raise DataError(f"data source {uri} answered HTTP {answer.status_code}", "correct data.source or data.root")
    return answer
