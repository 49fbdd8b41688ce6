"""What clients may take of an endpoint: connections, time, headers, memory.

Those of connections, headers and their time are HAProxy's: the first application that Serve starts with sets them.
"""

from __future__ import annotations

from pydantic import Field

from raypipe.spec.base import Spec


class LimitsSpec(Spec):
    """Beyond any of these a client is refused or cut, never the others."""

    max_connections: int = Field(default=2048, ge=16, le=100_000)
    """Open at once, all clients together; more wait to be accepted."""
    max_connections_per_client: int = Field(default=256, ge=1, le=100_000)
    """Open at once from one address; more get 429, more than twice as many are closed. Raise it where all clients come
    through one proxy or load balancer."""
    max_header_bytes: int = Field(default=32 * 2**10, ge=2048, le=64 * 2**10)
    """Larger request headers get 431."""
    max_headers: int = Field(default=100, ge=10, le=200)
    """More header lines in one request get 431."""
    max_held_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Of request bodies that one replica holds at once; beyond that requests get 503 with Retry-After."""
    header_timeout_s: int = Field(default=5, ge=1, le=3600)
    """Longest time for a request's header, and for the first one on a connection."""
    body_timeout_s: float = Field(default=8.0, gt=0, le=3600)
    """Longest time for a request's body, then 408; one that goes on coming at 16 KiB a second or more has
    `request_timeout_s`."""
    stalled_timeout_s: int = Field(default=10, ge=1, le=3600)
    """Longest a client may not read an answer, or not send more of a request."""
    idle_timeout_s: int = Field(default=65, ge=1, le=3600)
    """Longest a connection may stay open between two requests; load balancers keep theirs for 60 s and want more
    here."""
