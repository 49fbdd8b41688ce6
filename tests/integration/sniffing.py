"""Which words cross this machine's loopback by TCP while a block runs, for whoever may listen there."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

ALL_PROTOCOLS = 3
"""ETH_P_ALL."""

OUTGOING = 4
"""PACKET_OUTGOING: loopback shows each packet as sent and again as received."""

SO_RCVBUFFORCE = 33
TCP = 6
PACKET_BYTES = 2**16 + 64
RECEIVE_BUFFER_BYTES = 64 * 2**20
POLL_S = 0.1
DRAIN_S = 5.0
"""Longest that packets of the block are still read after it."""

Way = tuple[tuple[str, int], tuple[str, int]]
"""Address and port of who sends, and of who receives."""


class Heard:
    """What was heard.

    Attributes:
        words: found on each way; ways without one are there, too.
    """

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words: dict[Way, set[bytes]] = {}
        self._listened_for = words
        self._overlap = max(map(len, words)) - 1
        self._ends: dict[Way, bytes] = defaultdict(bytes)

    def hear(self, way: Way, payload: bytes) -> None:
        """The next bytes of a way; a word may begin in those before."""
        text = self._ends[way] + payload
        self.words.setdefault(way, set()).update(word for word in self._listened_for if word in text)
        self._ends[way] = text[-self._overlap :]

    def ways_of(self, words: Sequence[bytes]) -> set[Way]:
        """On which one of these was heard."""
        return {way for way, found in self.words.items() if not found.isdisjoint(words)}


@contextmanager
def listening_for(words: Sequence[bytes]) -> Iterator[Heard]:
    """Listen while the block runs.

    Raises:
        PermissionError: this process may not (CAP_NET_RAW).
    """
    heard, over_at, end = Heard(words), [float("inf")], os.urandom(16)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS)) as listener:
        with suppress(PermissionError):
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        listener.bind(("lo", 0))
        listener.settimeout(POLL_S)

        def listen() -> None:
            while time.monotonic() < over_at[0] + DRAIN_S:
                try:
                    packet, (_, _, kind, *_) = listener.recvfrom(PACKET_BYTES)
                except TimeoutError:
                    continue
                if kind == OUTGOING:
                    continue
                if packet.endswith(end):
                    return
                if (found := parsed(packet)) is not None:
                    heard.hear(*found)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            over_at[0] = time.monotonic()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:  # heard after all that came before it
                last.bind(("127.0.0.1", 0))
                last.sendto(end, last.getsockname())
                thread.join()


def parsed(packet: bytes) -> tuple[Way, bytes] | None:
    """Who sends what to whom; None: it is not TCP, or holds nothing."""
    if packet[0] >> 4 == 4:
        start, kind, family = 4 * (packet[0] & 15), packet[9], socket.AF_INET
        end, places, size = int.from_bytes(packet[2:4], "big") or len(packet), (12, 16), 4
    else:
        start, kind, family = 40, packet[6], socket.AF_INET6
        end, places, size = 40 + int.from_bytes(packet[4:6], "big"), (8, 24), 16
    if kind != TCP:
        return None
    payload = packet[start + 4 * (packet[start + 12] >> 4) : end]
    if not payload:
        return None
    hosts = [socket.inet_ntop(family, packet[at : at + size]) for at in places]
    ports = [int.from_bytes(packet[start + at : start + at + 2], "big") for at in (0, 2)]
    return ((hosts[0], ports[0]), (hosts[1], ports[1])), payload
