"""Who may ask: holders of a key, and pages of the origins that the file names. Decided before a body is read."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from raypipe.errors import RequestError
from raypipe.serve.keys import Keys
from raypipe.serve.protocols import Reply
from raypipe.spec.serve import LOOPBACK, ServeSpec

CORS_HEADERS = "authorization, content-type, content-encoding, x-api-key, inference-header-content-length"
"""What a page of an allowed origin may send."""

CORS_EXPOSED = "x-raypipe-model, retry-after, inference-header-content-length, allow"
"""What it may read of an answer beside the body."""

CORS_MAX_AGE_S = "600"


class Door:
    """Of one replica.

    Args:
        own_digest: of the key that the deployment itself asks with; empty: none.
    Raises:
        ServeError: the keys cannot be read.
    """

    def __init__(self, spec: ServeSpec, own_digest: str = "") -> None:
        self.keys = Keys.load(spec.auth, own_digest) if spec.auth is not None else None
        self._origins = frozenset(each.encode() for each in spec.cors.origins) if spec.cors is not None else frozenset()
        self._is_loopback = spec.host in LOOPBACK

    def check(self, headers: Mapping[bytes, bytes], scope: str) -> str:
        """Let a request in.

        Args:
            headers: names in lower case; of a gRPC call: `keys.headers_of` its metadata.
            scope: of its route.
        Returns:
            The name of the key it came with; empty where none is asked for.
        Raises:
            RequestError: 401, 403, 429: see Keys.check; 403 for a page of another origin.
        """
        if scope == "open":
            return ""
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            self._check_own_page(origin, headers.get(b"host", b""))
        return "" if self.keys is None else self.keys.check(headers, scope)

    def _check_own_page(self, origin: bytes, host: bytes) -> None:
        """Browsers name the page that asks. A name that only lately leads to a loopback address is a page's trick."""
        asked = origin.partition(b"://")[2].lower()
        if asked and asked == host.lower() and (not self._is_loopback or _is_loopback_name(asked)):
            return
        raise RequestError(
            "pages of this origin may not ask here",
            "name it in serve.cors.origins",
            status=403,
            code="origin_not_allowed",
        )

    def preflight(self, method: str, headers: Mapping[bytes, bytes]) -> Reply | None:
        """The answer to a browser that asks whether a page of another origin may ask; None: it is not that question."""
        if method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        if headers.get(b"origin") not in self._origins:
            return None
        allowed = {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": CORS_HEADERS,
            "access-control-max-age": CORS_MAX_AGE_S,
        }
        return Reply(b"", 204, headers=allowed)

    def shared_with(self, origin: bytes | None) -> dict[str, str]:
        """Headers that let a page of an allowed origin read the answer."""
        if not self._origins:
            return {}
        if origin is None or origin not in self._origins:
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": origin.decode("latin-1"),
            "access-control-expose-headers": CORS_EXPOSED,
            "vary": "origin",
        }


def _is_loopback_name(host: bytes) -> bool:
    """Whether a host, with or without a port, is this machine's own."""
    name = host.decode("latin-1")
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
