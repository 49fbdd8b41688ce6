"""How much a replica takes in at once: requests, and bytes of their bodies; more is refused before it is read."""

from __future__ import annotations

from raypipe.errors import RequestError
from raypipe.spec.serve import ServeSpec

RETRY_AFTER_S = "1"


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

    __slots__ = ("_bytes", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

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

    def __enter__(self) -> Stay:
        return self

    def __exit__(self, *error: object) -> None:
        """The request has its answer."""
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
