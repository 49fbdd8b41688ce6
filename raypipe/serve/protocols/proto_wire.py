"""What a protobuf message is made of, without parsing it: to know how much of it is bare bytes.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

MAX_FIELDS = 1000
"""A message of more is not looked through: it is none of a few arrays."""

MAX_VARINT_BYTES = 10

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""Types on the wire; 3 and 4, the groups of proto2, are not read."""


def bytes_beside(message: bytes | bytearray, field: int, max_bytes: int) -> bytes | None:
    """All of a message but the contents of one field of bytes, which may be there many times.

    Args:
        field: its number.
    Returns:
        None where that is more than `max_bytes`, or the message is damaged.
    """
    kept = bytearray()
    start = 0
    for _ in range(MAX_FIELDS):
        if start == len(message):
            return bytes(kept)
        try:
            tag, stop = _varint(message, start)
            content = stop
            if tag & 7 == LENGTH_DELIMITED:
                length, content = _varint(message, stop)
                stop = content + length
            elif tag & 7 == VARINT:
                _, stop = _varint(message, stop)
            elif tag & 7 in (FIXED32, FIXED64):
                stop += 4 if tag & 7 == FIXED32 else 8
            else:
                return None
        except ValueError:
            return None
        is_contents = tag >> 3 == field and tag & 7 == LENGTH_DELIMITED
        if stop > len(message) or len(kept) + (content if is_contents else stop) - start > max_bytes:
            return None
        kept += message[start : content if is_contents else stop]
        start = stop
    return None


def _varint(message: bytes | bytearray, start: int) -> tuple[int, int]:
    """A number in base 128, and where it ends.

    Raises:
        ValueError: there is none.
    """
    number = 0
    for place, byte in enumerate(message[start : start + MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, start + place + 1
    raise ValueError("no varint")
