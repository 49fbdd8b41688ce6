"""Files at an http(s) address: what the listing told of is what GET brings, or the reading ends.

Not over obstore: that refuses an answer without a length, as servers give that make one on the way, and compares no
weak ETag and no time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from raypipe.data.sources.place import SourceFile, changed
from raypipe.errors import DataError, StoreAccessError, StoreError, masked
from raypipe.retry import Retry

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

SCHEMES = ("http://", "https://")

TIMEOUT_S = 60.0

RETRY = Retry(max_attempts=4, first_delay_s=0.1, max_delay_s=5.0, deadline_s=30.0)

BUSY = (408, 429)
"""Answers of a server that wants the same request later, besides those of 500 and above."""


class Web:
    """The Place of whole addresses, each of which is a file."""

    start = ""

    def file(self, path: str) -> SourceFile:
        """The file at an address.

        One of which the server tells neither ETag nor time is read, and known by its content: nothing else would show
        that it changed.
        """
        headers = _request("HEAD", path, {}, lambda answer: answer.headers)
        size = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else None
        pin = headers.get("etag") or headers.get("last-modified") or ""
        if pin:
            return SourceFile(path, path, size, pin, pin)
        digest, size = _request("GET", path, {}, _digest)
        return SourceFile(path, path, size, digest, "", digest)

    def below(self, path: str, is_deep: bool = True) -> list[SourceFile]:
        del path, is_deep  # nobody can list the web
        return []

    def is_folder(self, path: str) -> bool:
        del path
        return False

    def open(self, file: SourceFile) -> io.BytesIO:
        """Downloads it whole."""
        return io.BytesIO(fetch(file))


def fetch(file: SourceFile) -> bytes:
    """The whole file.

    Raises:
        SourceChanged: another file is there now.
    """
    condition = {}
    if file.pin.startswith('"'):  # a weak ETag never matches
        condition = {"if-match": file.pin}
    elif file.pin.endswith(" GMT"):
        condition = {"if-unmodified-since": file.pin}
    status, headers, content = _request(
        "GET", file.uri, condition, lambda answer: (answer.status_code, answer.headers, answer.read())
    )
    tags = [headers[name] for name in ("etag", "last-modified") if headers.get(name)]
    is_other = bool(file.pin and tags) and file.pin not in tags
    if file.digest:
        is_other = hashlib.sha256(content).hexdigest() != file.digest
    if status == 412 or is_other:
        raise changed(shown(file.uri), "changed")
    return content


def fetch_start(uri: str, num_bytes: int) -> bytes:
    """The first bytes of a file, so many or all; the rest is not taken."""

    def read(answer: Any) -> bytes:
        start = b""
        for piece in answer.iter_bytes():
            start += piece
            if len(start) >= num_bytes:
                break
        return start[:num_bytes]

    return _request("GET", uri, {}, read)


def shown(uri: str) -> str:
    """An address without what may be secret: name and password, and the query."""
    return masked(uri)


def _digest(answer: Any) -> tuple[str, int]:
    """SHA-256 and size of what comes, a piece at a time."""
    digest, size = hashlib.sha256(), 0
    for piece in answer.iter_bytes():
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def _request(method: str, uri: str, headers: dict[str, str], read: Callable[[Any], T]) -> T:
    """What `read` makes of the answer; all of it is asked for once more where the server is busy or breaks off."""
    return RETRY.call(lambda: _request_once(method, uri, headers, read))


def _request_once(method: str, uri: str, headers: dict[str, str], read: Callable[[Any], T]) -> T:
    import httpx

    try:
        # identity: the length that HEAD tells is then that of the file
        headers = {"accept-encoding": "identity", **headers}
        options: Any = {"follow_redirects": True, "timeout": TIMEOUT_S, "verify": _trusted()}
        with httpx.stream(method, uri, headers=headers, **options) as answer:
            _refuse_status(answer, uri)
            return read(answer)
    except httpx.InvalidURL as error:
        raise DataError(
            f"data source {shown(uri)} is no address: {error}", "correct data.source or data.root"
        ) from None
    except httpx.HTTPError as error:
        why = shown(str(error))
        raise StoreError(
            f"data source {shown(uri)} did not answer: {why}", "check the network, then run again"
        ) from None


@cache
def _trusted() -> ssl.SSLContext:
    """Certificates of authorities, read once a process: that takes longer than fetching a small file."""
    import httpx

    return httpx.create_ssl_context()


def _refuse_status(answer: Any, uri: str) -> None:
    status = answer.status_code
    if status in (401, 403):
        raise StoreAccessError(f"data source {shown(uri)}: access denied (HTTP {status})")
    if status >= 500 or status in BUSY:
        raise StoreError(f"data source {shown(uri)} answered HTTP {status}", "run the same command again")
    if answer.is_error and status != 412:
        hint = "correct data.source or data.root; over HTTP every file is named, without folders and globs"
        raise DataError(f"data source {shown(uri)} answered HTTP {status}", hint)
