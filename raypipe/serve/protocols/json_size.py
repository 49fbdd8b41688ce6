"""How many texts, lists and objects a JSON body may hold, counted before it is parsed: each is an object in Python.

16 MB of `[],[],...` take half a gigabyte and seconds in which nobody else is answered, and are refused anyway once they
are parsed. What a model can read is known from its signature; a body that holds more is refused by its bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from raypipe.errors import RequestError
from raypipe.records import Column, Signature

SLACK = 50_000
"""Texts, lists and objects beside those of rows, or of columns that the model does not read; a body of no more bytes is
never counted."""

EXTRA_NAMES, EXTRA_LISTS = 64, 8
"""What a row may have beside the columns of the model, where others are ignored."""

MAX_TEXTS = 1000
"""Of a list of texts, on the average of the most rows that a request may have."""

ESCAPE, QUOTE, NAMING = b"\\", ord('"'), ord(":")
LIST, OBJECT = ord("["), ord("{")
OBJECT_OR_LIST = LIST ^ OBJECT  # one bit, which only these two characters can lack and have


class JsonSize:
    """What a body may hold for one model.

    Args:
        max_rows: most rows one request may have.
    """

    def __init__(self, signature: Signature, max_rows: int) -> None:
        inputs = signature.inputs
        others = signature.extra_columns == "ignore"
        # {"b64": ...} may stand for a picture, so a value may bring a name and an object
        self._names_a_row = 2 * len(inputs) + EXTRA_NAMES * others
        within = sum(column.name.count(".") for column in inputs)  # objects that fields may stand in
        self._names_a_row += within
        self._parts_a_row = 1 + len(inputs) + within + sum(map(_lists, inputs)) + EXTRA_LISTS * others
        self._texts_a_row = sum(map(_texts, inputs))
        self._max_rows = max_rows

    def check(self, body: bytes | bytearray) -> None:
        """Refuse what holds more than any rows that the model reads.

        Raises:
            RequestError: 413.
        """
        if len(body) <= SLACK:
            return
        held = Held(body.count(b"[") + body.count(b"{"), body.count(b":"), body.count(b'"') // 2)
        if self._is_too_much(held) and self._is_too_much(held := held_by(body)):
            raise RequestError(
                f"the body holds {held.texts} texts, {held.names} of them names, and {held.parts} lists and objects, "
                f"which no {self._max_rows} rows of this model need",
                "send fewer rows per request, and in each only what the model reads",
                status=413,
            )

    def _is_too_much(self, held: Held) -> bool:
        most_names = SLACK + min(held.parts, self._max_rows) * self._names_a_row
        most_texts = 2 * most_names + self._max_rows * self._texts_a_row  # a name may have a text as its value
        most_parts = SLACK + self._max_rows * self._parts_a_row
        return held.names > most_names or held.texts > most_texts or held.parts > most_parts


class Held(NamedTuple):
    """What a JSON document holds; each is an object of Python once it is parsed.

    Attributes:
        parts: lists and objects.
        names: of the values of objects.
        texts: names included.
    """

    parts: int
    names: int
    texts: int


def held_by(body: bytes | bytearray) -> Held:
    """Counts what stands outside the texts of a JSON document."""
    if ESCAPE in body:  # what is left are the quotes that begin or end a text
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    found = np.frombuffer(body, np.uint8)
    quotes = found == QUOTE
    outside = ~np.bitwise_xor.accumulate(quotes)
    opening = (found | OBJECT_OR_LIST) == OBJECT
    parts, names = (int(np.count_nonzero(each & outside)) for each in (opening, found == NAMING))
    return Held(parts, names, int(np.count_nonzero(quotes)) // 2)


def _texts(column: Column) -> int:
    """Texts that one value of a column is at most written with."""
    if column.is_list:
        return MAX_TEXTS
    return math.prod(column.shape) if column.dtype == "string" else 1


def _lists(column: Column) -> int:
    """Lists that one value of a column is written with."""
    return sum(math.prod(column.shape[:depth]) for depth in range(len(column.shape)))
