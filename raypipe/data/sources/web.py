"""Files at an http(s) address: what HEAD told of is what GET brings, or the reading ends."""

from __future__ import annotations

from typing import Any

from raypipe.data.sources.disk import changed
from raypipe.errors import DataError, StoreAccessError, StoreError, masked
from raypipe.retry import Retry

SCHEMES = ("http://", "https://")

TIMEOUT_S = 60.0

RETRY = Retry(max_attempts=4, first_delay_s=0.1, max_delay_s=5.0, deadline_s=30.0)

BUSY = (408, 429)
"""Answers of a server that wants the same request later, besides those of 500 and above."""


def describe(uri: str) -> tuple[int, str]:
    """Size in bytes, 0 where the server does not tell, and what changes with the content: ETag, time or size."""
    headers = _request("HEAD", uri, {}).headers
    tag = headers.get("etag") or headers.get("last-modified") or _size_tag(headers)
    return int(headers.get("content-length", 0)), tag


def fetch(uri: str, tag: str) -> bytes:
    """The whole file.

    Args:
        tag: what `describe` told; empty is any file.
    Raises:
        SourceChanged: another file is there now.
    """
    condition = {}
    if tag.startswith('"'):  # a weak ETag never matches
        condition = {"if-match": tag}
    elif tag.endswith(" GMT"):
        condition = {"if-unmodified-since": tag}
    answer = _request("GET", uri, condition)
    told = answer.headers.get("etag"), answer.headers.get("last-modified"), _size_tag(answer.headers)
    # Bytes as they came: some servers pack a file for the way, others unpack it.
    is_other_size = tag.startswith("size ") and tag not in ("size 0", f"size {answer.num_bytes_downloaded}")
    if answer.status_code == 412 or is_other_size or (tag and tag not in told and any(told[:2])):
        raise changed(shown(uri), "changed")
    return bytes(answer.content)


def shown(uri: str) -> str:
    """An address without what may be secret: name and password, and the query."""
    return masked(uri)


def _size_tag(headers: Any) -> str:
    return f"size {int(headers.get('content-length', 0))}"


def _request(method: str, uri: str, headers: dict[str, str]) -> Any:
    return RETRY.call(lambda: _request_once(method, uri, headers))


def _request_once(method: str, uri: str, headers: dict[str, str]) -> Any:
    import httpx

    try:
        # identity: the length that HEAD tells is then that of the file
        headers = {"accept-encoding": "identity", **headers}
        answer = httpx.request(method, uri, headers=headers, follow_redirects=True, timeout=TIMEOUT_S)
    except httpx.InvalidURL as error:
        raise DataError(
            f"data source {shown(uri)} is no address: {error}", "correct data.source or data.root"
        ) from None
    except httpx.HTTPError as error:
        why = shown(str(error))
        raise StoreError(
            f"data source {shown(uri)} did not answer: {why}", "check the network, then run again"
        ) from None
    status = answer.status_code
    if status in (401, 403):
        raise StoreAccessError(f"data source {shown(uri)}: access denied (HTTP {status})")
    if status >= 500 or status in BUSY:
        raise StoreError(f"data source {shown(uri)} answered HTTP {status}", "run the same command again")
    if answer.is_error and status != 412:
        hint = "correct data.source or data.root; over HTTP every file is named, without folders and globs"
        raise DataError(f"data source {shown(uri)} answered HTTP {status}", hint)
    return answer
