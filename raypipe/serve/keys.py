"""API keys of an endpoint: digests from a file or a variable, checked before a request's body is read.

Lines, or one JSON list, of objects: {"name": "ann", "sha256": "<64 hex digits>", "scopes": ["predict"]}, and where
wanted "rate" (requests a second), "burst" (requests at once) and "expires" (a time as ISO 8601 with its zone).
A key is 256 random bits, so its plain digest tells nobody the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from raypipe.errors import RequestError, ServeError
from raypipe.spec.access import AuthSpec
from raypipe.spec.base import Name, Spec

KeyScope = Literal["predict", "admin"]

PREFIX = "rp_"
"""So that a key is known for one where it should not be, as scanners of repositories look for it."""

MAX_KEYS = 1000
MAX_FILE_BYTES = 1 << 20
MAX_KEY_CHARS = 512

LOOK_EVERY_S = 1.0
"""A file of keys is looked at no more often."""

OWN_NAME = "raypipe"
"""Who holds the key that a deployment asks its new endpoint with."""

HOW = "send the header authorization: Bearer KEY, or x-api-key: KEY"

logger = logging.getLogger("ray.serve")


class KeyLine(Spec):
    """One key, as a file or variable holds it."""

    name: Name
    """Who holds it; a second key of the same name may take the place of a first."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the key, in hex."""
    scopes: list[KeyScope] = Field(default=["predict"], min_length=1)
    """What it is good for."""
    rate: float | None = Field(default=None, gt=0)
    """Requests a second that each replica answers; unset: as many as come."""
    burst: int = Field(default=1, ge=1)
    """Requests at once that a rate does not hold up."""
    expires: AwareDatetime | None = None
    """From then on it is refused."""


@dataclass
class _Bucket:
    """Tokens that come at a rate; each request takes one."""

    tokens: float
    at: float


@dataclass
class _Key:
    line: KeyLine
    digest: bytes
    bucket: _Bucket | None


class Keys:
    """The keys an endpoint takes.

    Args:
        lines: see the head of this file.
        spec: where they are read again from; None: nowhere.
        own_digest: SHA-256 of one more key, of the deployment itself; empty: none.
    """

    def __init__(self, lines: Iterable[KeyLine], spec: AuthSpec | None = None, own_digest: str = "") -> None:
        self._own = [KeyLine(name=OWN_NAME, sha256=own_digest)] if own_digest else []
        self._spec = spec
        self._path = Path(spec.keys_file).expanduser() if spec is not None and spec.keys_file is not None else None
        self._seen = _state(self._path)
        self._looked_at = time.monotonic()
        self._keys: list[_Key] = []
        self._take([*lines, *self._own])

    @classmethod
    def load(cls, spec: AuthSpec, own_digest: str = "") -> Keys:
        """Read them in the process that asks for them.

        Raises:
            ServeError: there are none, or a line is not as it must be; no line is shown.
        """
        return cls(_read(spec), spec, own_digest)

    def check(self, headers: Mapping[bytes, bytes], scope: str) -> str:
        """Let a request in.

        Args:
            headers: of HTTP, or the metadata of a gRPC call: names in lower case.
            scope: what the request asks for; `open`: everybody may.
        Returns:
            The name of the key; empty where none is asked for.
        Raises:
            RequestError: 401 without a valid key, 403 where it is not good for this, 429 where it came too often.
        """
        if scope == "open":
            return ""
        self._look_again()
        found = self._find(_presented(headers))
        line = found.line
        if line.expires is not None and line.expires <= datetime.now(timezone.utc):
            raise _unauthorized(f"the API key of {line.name} has expired")
        if scope not in line.scopes:
            raise RequestError(
                f"the API key of {line.name} is not good for this: it has no scope {scope}",
                f"ask for a key with the scope {scope}",
                status=403,
            )
        if found.bucket is not None and line.rate is not None:
            _spend(line.name, line.rate, line.burst, found.bucket)
        return line.name

    def _find(self, presented: bytes) -> _Key:
        """Every digest is compared, so that the time taken does not tell which one was close."""
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise _unauthorized("the API key is not known here")
        return found

    def _look_again(self) -> None:
        """Take up a file that has changed; one that cannot be read changes nothing, and is told once."""
        now = time.monotonic()
        if self._path is None or self._spec is None or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        state = _state(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._take([*_read(self._spec), *self._own])
        except ServeError as error:
            logger.error("the keys stay as they were: %s", error.message)

    def _take(self, lines: list[KeyLine]) -> None:
        """Two keys of one name, as there are while one is replaced by another, share what they may ask."""
        buckets = {key.line.name: key.bucket for key in self._keys if key.bucket is not None}
        for line in lines:
            if line.rate is not None:
                buckets.setdefault(line.name, _Bucket(line.burst, time.monotonic()))
        self._keys = [_Key(line, bytes.fromhex(line.sha256), buckets.get(line.name)) for line in lines]


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> dict[bytes, bytes]:
    """Metadata of a gRPC call as `Keys.check` reads it."""
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in metadata}


def new_key() -> str:
    """A key nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


@cache
def own_key() -> str:
    """What this process asks its new endpoints with, where keys are asked for; it ends with the process."""
    return new_key()


def own_digest(auth: AuthSpec | None) -> str:
    """What replicas of an endpoint must know of this process's own key; empty where no key is asked for."""
    return "" if auth is None else digest_of(own_key())


def line_of(key: str, name: str, scopes: list[str], rate: float | None = None, burst: int | None = None) -> str:
    """The line of a key, without the key.

    Raises:
        ValidationError: a value is not as it must be.
    """
    given: dict[str, Any] = {"name": name, "sha256": digest_of(key), "scopes": scopes}
    optional = {"rate": rate, "burst": burst}
    line = KeyLine.model_validate(given | {each: value for each, value in optional.items() if value is not None})
    return line.model_dump_json(exclude_unset=True)


def _presented(headers: Mapping[bytes, bytes]) -> bytes:
    key = headers.get(b"x-api-key")
    if key is None:
        given = headers.get(b"authorization")
        if given is None:
            raise _unauthorized("this endpoint asks for an API key")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            raise _unauthorized("the header authorization holds no Bearer key")
    key = key.strip()
    if not key or len(key) > MAX_KEY_CHARS:
        raise _unauthorized("the API key is not known here")
    return key


def _unauthorized(message: str) -> RequestError:
    return RequestError(message, HOW, status=401, headers={"www-authenticate": "Bearer"})


def _spend(name: str, rate: float, burst: int, bucket: _Bucket) -> None:
    now = time.monotonic()
    bucket.tokens = min(float(burst), bucket.tokens + (now - bucket.at) * rate)
    bucket.at = now
    if bucket.tokens < 1:
        wait_s = (1 - bucket.tokens) / rate
        raise RequestError(
            f"the API key of {name} may ask {rate:g} times a second",
            "ask again after the seconds that Retry-After says",
            status=429,
            headers={"retry-after": str(max(1, math.ceil(wait_s)))},
        )
    bucket.tokens -= 1


def _state(path: Path | None) -> tuple[int, ...] | None:
    """Differs from what it was where the file may have changed."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(spec: AuthSpec) -> list[KeyLine]:
    if spec.keys_env is not None:
        where = f"serve.auth.keys_env: {spec.keys_env}"
        text = os.environ.get(spec.keys_env)
        if text is None:
            raise ServeError(
                f"{where} is not set in the environment of Ray's processes",
                "set it before Ray starts (raypipe up, ray start), or use serve.auth.keys_file",
            )
    else:
        where = f"serve.auth.keys_file: {spec.keys_file}"
        text = _text_of(Path(str(spec.keys_file)).expanduser(), where)
    lines = _lines(text, where)
    if not lines:
        raise ServeError(f"{where} holds no key", "raypipe key NAME makes one")
    return lines


def _text_of(path: Path, where: str) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ServeError(f"{where} is no file", "name a regular file")  # reading a pipe would wait without end
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ServeError(f"{where} cannot be read: {error.strerror}", "it must be there on every node") from None
    if len(content) > MAX_FILE_BYTES:
        raise ServeError(f"{where} is larger than {MAX_FILE_BYTES} bytes", f"at most {MAX_KEYS} keys are read")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ServeError(f"{where} is no text", "raypipe key NAME prints a line of it") from None


def _lines(text: str, where: str) -> list[KeyLine]:
    """Errors tell the line and the field, never what stands there: somebody may have put a key in."""
    hint = 'a line is like {"name": "ann", "sha256": "64 hex digits", "scopes": ["predict"]}; raypipe key NAME makes it'
    is_list = text.lstrip().startswith("[")
    try:
        parts = (
            list(enumerate(json.loads(text), start=1))
            if is_list
            else [(i, json.loads(line)) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
        )
    except (ValueError, RecursionError):
        raise ServeError(f"{where} is not {'a JSON list' if is_list else 'one JSON object a line'}", hint) from None
    if len(parts) > MAX_KEYS:
        raise ServeError(f"{where} holds {len(parts)} keys; at most {MAX_KEYS} are read", "remove those not used")
    lines: list[KeyLine] = []
    for number, part in parts:
        try:
            lines.append(KeyLine.model_validate(part))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(each) for each in first["loc"]) or "the object"
            raise ServeError(f"{where}, key {number}: {place}: {_rule(first)}", hint) from None
    return lines


def _rule(found: Any) -> str:
    """What must hold, without the value that does not."""
    if found["type"] == "string_pattern_mismatch":
        return "must be 64 hex digits in lower case"
    return "is not a known field" if found["type"] == "extra_forbidden" else _without_value(found["msg"])


def _without_value(message: str) -> str:
    return message.removeprefix("Value error, ").rpartition("; ")[2]
