"""How many fields and integers a protobuf message has, counted on its bytes before it is parsed.

Each tensor, text or parameter becomes an object of some eighty bytes: 16 MB of empty tensors, two bytes each, take 670
MB for a moment. An integer of one byte becomes eight. Other numbers are as large as they are sent.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Kinds of a field; the others, which begin and end groups, are none of proto3."""

FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

INTEGERS = (
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
)
"""Numbers that are sent in fewer bytes than they are held in."""

MAX_VARINT_BYTES = 10


class Torn(ValueError):
    """Bytes that are no message of proto3."""


@dataclass(frozen=True)
class Kind:
    """What is to be looked into in a kind of message, by the number of the field.

    Attributes:
        messages: fields that are messages themselves.
        integers: fields that hold many integers.
    """

    messages: dict[int, Kind]
    integers: frozenset[int]


def kind_of_message(descriptor: Any) -> Kind:
    """Of a message none of whose fields may hold its own kind."""
    messages = {each.number: kind_of_message(each.message_type) for each in descriptor.fields if each.message_type}
    integers = frozenset(each.number for each in descriptor.fields if each.is_packed and each.type in INTEGERS)
    return Kind(messages, integers)


def held_by(body: bytes | bytearray, kind: Kind, most_fields: int) -> tuple[int, int]:
    """Fields of a message and of those within it, and integers that are packed in one of them.

    Args:
        most_fields: where there are more, counting ends.
    Raises:
        Torn: it is no message.
    """
    fields = integers = 0
    left = [(0, len(body), kind)]
    while left:
        at, end, kind = left.pop()
        while at < end:
            key, at = _varint(body, at, end)
            fields += 1
            if fields > most_fields:
                return fields, integers
            wire, number = key & 7, key >> 3
            if wire == LENGTH:
                size, at = _varint(body, at, end)
                if at + size > end:
                    raise Torn
                if number in kind.messages:
                    left.append((at, at + size, kind.messages[number]))
                elif number in kind.integers:  # the last byte of each is below 128
                    integers += int(np.count_nonzero(np.frombuffer(body, np.int8, size, at) >= 0))
                at += size
            elif wire == VARINT:
                _, at = _varint(body, at, end)
            elif wire in FIXED_BYTES:
                at += FIXED_BYTES[wire]
            else:
                raise Torn
        if at > end:
            raise Torn
    return fields, integers


def _varint(body: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the low ones first; and where the next begins."""
    found = shift = 0
    for place in range(at, min(end, at + MAX_VARINT_BYTES)):
        byte = body[place]
        found |= (byte & 127) << shift
        if byte < 128:
            return found, place + 1
        shift += 7
    raise Torn
