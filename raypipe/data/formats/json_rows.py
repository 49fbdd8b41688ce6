"""One line of JSON lines as an object, read as strictly as the standard says."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

SHOWN = 80
"""Characters of a value that a message shows."""


def json_object(line: bytes) -> dict[str, Any]:
    """The fields of one line.

    Raises:
        ValueError: it is no JSON, no object, or names a field twice.
    """
    text = line.decode()
    value = json.loads(text, object_pairs_hook=_fields, parse_constant=_refuse_constant, parse_float=_finite)
    if not isinstance(value, dict):
        raise ValueError(f"is no JSON object but {shown(value)}")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"names the field '{twice}' twice")
    return fields


def _refuse_constant(word: str) -> None:
    raise ValueError(f"is no JSON: {word} is no number there; write null")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"is no JSON that can be kept: {text[:SHOWN]} is too large for a number")
    return value


def reason(error: Exception) -> str:
    """Why a line is no object, in words that follow 'the row'."""
    if isinstance(error, json.JSONDecodeError):
        return f"is no JSON: {error.msg}, column {error.colno}"
    if isinstance(error, UnicodeEncodeError):
        return "holds half a surrogate pair, which is no text"
    return "is nested too deep" if isinstance(error, RecursionError) else str(error)


def shown(value: Any) -> str:
    """A value as a message shows it."""
    return json.dumps(value, ensure_ascii=False)[:SHOWN]
