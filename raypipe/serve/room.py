"""How much a replica takes in at once: requests, and bytes of their bodies; more is refused before it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from raypipe.errors import RequestError
from raypipe.spec.serve import ServeSpec

RETRY_AFTER_S = "1"

MAX_FEATURES = 2**26
"""Numbers that the rows of one request may become for the network, 256 MiB; more only where a body may have as many
bytes. A word of two letters may become fifty thousand."""


def with_rows_that_fit(spec: ServeSpec, feature_shape: Sequence[int]) -> ServeSpec:
    """The spec with no more rows a request than become MAX_FEATURES numbers.

    Args:
        feature_shape: of what the network reads of a row.
    """
    most = max(1, max(MAX_FEATURES, spec.max_body_bytes) // max(1, math.prod(feature_shape)))
    return spec if spec.max_request_rows <= most else spec.model_copy(update={"max_request_rows": most})


class Room:
    """Of one replica.

    Attributes:
        requests: inside now.
        held_bytes: of bodies, held now.
    """

    def __init__(self, spec: ServeSpec) -> None:
        self.requests = 0
        self.held_bytes = 0
        self.max_requests = spec.max_ongoing_requests + spec.max_queued_requests
        self.max_held_bytes = spec.limits.max_held_bytes

    def enter(self) -> Stay:
        """Let one request in.

        Raises:
            RequestError: 503, there are as many as may be.
        """
        if self.requests >= self.max_requests:
            raise _full(f"{self.requests} requests are here already", "serve.max_queued_requests")
        self.requests += 1
        return Stay(self)


class Stay:
    """Of one request inside, until the block ends: then what it took is given back."""

    __slots__ = ("_bytes", "_goes_on", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0
        self._goes_on = False

    def hold(self, num_bytes: int) -> None:
        """Keep so many bytes more.

        Raises:
            RequestError: 503, too much is held already.
        """
        room = self._room
        if room.held_bytes + num_bytes > room.max_held_bytes and room.held_bytes > self._bytes:
            raise _full(f"{room.held_bytes} bytes of requests are held already", "serve.limits.max_held_bytes")
        room.held_bytes += num_bytes
        self._bytes += num_bytes

    def go_on(self) -> Callable[[], None]:
        """Stay beyond the block; what is returned ends it."""
        self._goes_on = True
        return self._leave

    def __enter__(self) -> Stay:
        return self

    def __exit__(self, *error: object) -> None:
        """The request has its answer, or all of it that is not streamed."""
        if not self._goes_on:
            self._leave()

    def _leave(self) -> None:
        self._room.requests -= 1
        self._room.held_bytes -= self._bytes
        self._bytes = 0


def _full(found: str, setting: str) -> RequestError:
    return RequestError(
        found,
        f"ask again after the seconds that Retry-After says, or raise serve.max_replicas or {setting}",
        status=503,
        headers={"retry-after": RETRY_AFTER_S},
    )
