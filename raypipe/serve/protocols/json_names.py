"""Whether every object of a JSON body holds each of its names once.

Of two, parsers take the last or the first: what one program checked is then not what the next one reads. Ours tells
nobody. But there are as many names as colons outside texts, and what was parsed holds fewer where one was there twice.
Looking is cheap first: nearly always there are no more colons in all than names where names usually are.
"""

from __future__ import annotations

from typing import Any

from raypipe.errors import RequestError
from raypipe.serve.protocols.json_size import held_by


def check_names_once(body: bytes | bytearray, document: Any) -> None:
    """Refuse a body in which one object holds a name twice.

    Args:
        document: the same, parsed.
    Raises:
        RequestError: 400.
    """
    if body.count(b":") == names_of_rows(document) or ends_of_names(body) == names_found(document):
        return
    if held_by(body).names != names_found(document, everywhere=True):
        raise RequestError(
            "an object in the body holds one of its names more than once",
            "send each name once: of two, readers take different ones",
        )


def names_of_rows(request: Any) -> int:
    """Names of a request and of its rows, without those within a row: of ten thousand rows in half a millisecond."""
    if type(request) is not dict:
        return 0
    found = len(request)
    for value in request.values():
        if type(value) is list and value and type(value[0]) is dict and set(map(type, value)) == {dict}:
            found += sum(map(len, value))
    return found


def names_found(document: Any, *, everywhere: bool = False) -> int:
    """Names of the objects of a parsed document.

    Args:
        everywhere: else, a list is looked into only where its first value is an object: numbers are many.
    """
    found = 0
    left = [document]
    while left:
        each = left.pop()
        if type(each) is dict:
            found += len(each)
            left += [value for value in each.values() if type(value) is dict or type(value) is list]
        elif type(each) is list and each and (everywhere or type(each[0]) is dict):
            left += [value for value in each if type(value) is dict or type(value) is list]
    return found


def ends_of_names(body: bytes | bytearray) -> int:
    """At least as many as there are names: colons after a quote or a blank. A time or an address in a text has none."""
    return sum(body.count(end) for end in (b'":', b" :", b"\n:", b"\t:", b"\r:"))
