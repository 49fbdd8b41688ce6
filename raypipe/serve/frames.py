"""Messages between a replica and its side process, over a pair of sockets.

A message is a pickle. Its bytes and arrays lie beside the pickle, as they are: neither side copies them, and Python's
lock is not held while they pass. Protocols stand in a message by the name of their class, as each side has its own.
Both ends are ours, so what arrives is trusted.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raypipe.serve.protocols.base import Call, Protocol, Reply

HEAD = struct.Struct("<QI")
"""Bytes of the pickle, and how many buffers follow it."""

SIZE = struct.Struct("<Q?")
"""Bytes of a buffer, and whether it is read only: then it arrives as bytes, else as memory of an array."""


class Frames:
    """One end of the connection.

    Args:
        connection: blocking; its own time limits (SO_RCVTIMEO, SO_SNDTIMEO) hold.
        protocols: class name -> this side's protocol.
    """

    def __init__(self, connection: socket.socket, protocols: Mapping[str, Protocol]) -> None:
        self._connection = connection
        self._protocols = protocols

    def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            OSError: the other end is gone, or takes nothing in time.
            Exception: what pickle raises over a message that it does not take; nothing was sent then.
        """
        buffers: list[memoryview] = []
        text = io.BytesIO()
        _Pickler(text, protocol=5, buffer_callback=lambda found: buffers.append(found.raw())).dump(message)
        sizes = [SIZE.pack(buffer.nbytes, buffer.readonly) for buffer in buffers]
        self._connection.sendall(b"".join([HEAD.pack(text.tell(), len(buffers)), *sizes, text.getbuffer()]))
        for buffer in buffers:
            self._connection.sendall(buffer)

    def receive(self) -> Any:
        """Wait for the next message.

        Raises:
            EOFError: the other end is closed.
            OSError: it is gone, or sends nothing in time.
        """
        text_bytes, num_buffers = HEAD.unpack(self._bytes(HEAD.size))
        sizes = list(SIZE.iter_unpack(self._bytes(SIZE.size * num_buffers)))
        text = self._bytes(text_bytes)
        buffers = [self._bytes(size) if is_read_only else self._memory(size) for size, is_read_only in sizes]
        unpickler = _Unpickler(io.BytesIO(text), buffers=buffers)
        unpickler.protocols = self._protocols
        return unpickler.load()

    def _bytes(self, size: int) -> bytes:
        """The next bytes; made by the socket, so that they are neither copied nor zeroed first."""
        found = self._connection.recv(size, socket.MSG_WAITALL) if size else b""
        while len(found) < size:  # a signal came between
            found += self._some(self._connection.recv(size - len(found), socket.MSG_WAITALL))
        return found

    def _memory(self, size: int) -> memoryview:
        memory = np.empty(size, np.uint8).data
        filled = 0
        while filled < size:
            filled += self._some(self._connection.recv_into(memory[filled:], 0, socket.MSG_WAITALL))
        return memory

    @staticmethod
    def _some(received: Any) -> Any:
        if not received:
            raise EOFError("the other end is closed")
        return received


def beside(message: Call | Reply) -> Any:
    """The same, with a body that `send` does not copy into the pickle."""
    return replace(message, body=pickle.PickleBuffer(memoryview(message.body).toreadonly()))


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return type(obj).__name__ if isinstance(obj, Protocol) else None


class _Unpickler(pickle.Unpickler):
    protocols: Mapping[str, Protocol]

    def persistent_load(self, pid: str) -> Protocol:
        return self.protocols[pid]
