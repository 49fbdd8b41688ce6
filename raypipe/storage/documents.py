"""JSON documents that say whether they are whole: each ends in a SHA-256 over its key and all bytes before it.

    {"model": "digits", "version": 7, ..., "sha256": "9f86d0..."}

A document that was changed, cut off, or copied under another key is refused. The digest has no key of its own, so it
finds damage and mistakes, not somebody who writes a document and its digest anew.

A document without a digest is one that an older raypipe wrote: it is read as it is, and sealed when written again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from raypipe.errors import DocumentError
from raypipe.records import Record
from raypipe.storage.store import Store

R = TypeVar("R", bound=Record)

_SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n\}\Z')
_SEAL_BYTES = 81
"""Length of what `_SEAL` matches."""

_TRACE_OF_A_SEAL = re.compile(rb'"sha256"|"[0-9a-f]{64}"')
"""One of the two is left of a seal when the other is damaged, so that no damage turns a document into an older one."""

RESTORE = "restore the object from a backup or an older bucket version, or make it again"


def seal(key: str, document: Record | Mapping[str, Any]) -> bytes:
    """The stored form of a document, which holds at least one field, for this key alone."""
    if isinstance(document, Record):
        text = document.to_json()
    else:
        text = json.dumps(document, indent=1, sort_keys=True).encode()
    body = text.removesuffix(b"\n}")
    return body + b',\n "sha256": "' + _digest(key, body).encode() + b'"\n}'


def is_sealed(data: bytes) -> bool:
    """Whether stored bytes carry a digest; it may not match."""
    return _SEAL.search(data, max(0, len(data) - _SEAL_BYTES)) is not None


def unseal(where: str, key: str, data: bytes) -> bytes:
    """The document as it was before it was sealed.

    Args:
        where: the store's URI, for messages.
    Raises:
        DocumentError: it is not what was written under this key.
    """
    tail = max(0, len(data) - _SEAL_BYTES)
    found = _SEAL.search(data, tail)
    if found is None:
        if _TRACE_OF_A_SEAL.search(data, tail):
            raise DocumentError(f"{where}/{key} is damaged: its digest is not readable", RESTORE)
        return data
    body = data[: found.start()]
    if _digest(key, body) != found[1].decode():
        raise DocumentError(f"{where}/{key} is damaged, or was copied from another place: its digest differs", RESTORE)
    return body + b"\n}"


def parse(store: Store, key: str, data: bytes, kind: type[R]) -> R:
    """The record in stored bytes.

    Raises:
        DocumentError: it is damaged, or not a record of this kind as this raypipe knows it.
    """
    body = unseal(store.uri, key, data)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if is_sealed(data):  # so it is what was written, by a raypipe that writes it differently
            what = f"is whole, but from another version of raypipe than this one ({_first_problem(error)})"
            raise DocumentError(
                f"{store.uri}/{key} {what}", "use the raypipe that wrote it, or make it again"
            ) from None
        what = f"is damaged: not a readable {kind.__name__} ({error.error_count()} problems)"
        raise DocumentError(f"{store.uri}/{key} {what}", RESTORE) from None


def read_document(store: Store, key: str, kind: type[R]) -> R:
    """A record under a key.

    Raises:
        ObjectMissing: nothing is there.
        DocumentError: see `parse`.
    """
    return parse(store, key, store.read(key), kind)


def read_mapping(store: Store, key: str) -> dict[str, Any]:
    """A document that is no record: any JSON mapping.

    Raises:
        ObjectMissing: nothing is there.
        DocumentError: it is damaged.
    """
    try:
        value = json.loads(unseal(store.uri, key, store.read(key)))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DocumentError(f"{store.uri}/{key} is damaged: not a JSON mapping", RESTORE)
    return cast("dict[str, Any]", value)


def write_document(store: Store, key: str, document: Record | Mapping[str, Any]) -> None:
    """Write or replace a document, sealed."""
    store.write(key, seal(key, document))


def _digest(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest()


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg'][:100]}"
