"""Tables of a page, and how a value looks in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raypipe.errors import masked, one_line
from raypipe.report.charts import figure

MAX_VALUE_CHARS = 200


@dataclass(frozen=True)
class Table:
    """A table of a page; the first cell of each row is its header."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]


def shown(value: Any) -> Any:
    """A value as a cell shows it: numbers short, no password of an address, nothing that reorders or breaks a line."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return figure(value)
    text = one_line(masked(str(value)))
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
