"""Looks for the next request a moment longer before the process sleeps.

A process that sleeps is woken late, its core is slow and its cache cold: of 370 us that one client waits for an answer
of a small model, HAProxy included, 70 go that way (measured, two cores). A client that asks again at once is worth
looking out for; for any other the time would be lost, so one that took longer is not looked out for until it hurries
again.
"""

from __future__ import annotations

import select
import time

POLL_S = 0.0004
"""Longest look, and what counts as at once: twice the way through HAProxy to a client of little work, and back."""


class Polling:
    """Connections of one event loop, which stands still meanwhile: whoever has sent something ends the look."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._owners: dict[int, object] = {}

    def add(self, fd: int, owner: object) -> None:
        """A connection is open."""
        self._poll.register(fd, select.POLLIN)
        self._owners[fd] = owner

    def remove(self, fd: int, owner: object) -> None:
        """It no longer is; where another has its number by now, that one stays."""
        if self._owners.get(fd) is owner:
            self._poll.unregister(fd)
            del self._owners[fd]

    def first(self, until: float) -> object | None:
        """Whose connection can be read first.

        Args:
            until: by time.perf_counter().
        Returns:
            None: time is over.
        """
        while time.perf_counter() < until:
            if ready := self._poll.poll(0):
                return self._owners[ready[0][0]]
        return None
