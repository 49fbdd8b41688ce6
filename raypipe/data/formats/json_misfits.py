"""Which rows of JSON are no objects, or hold values of a type that few rows have: for rows that Arrow did not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe.data.formats.chunk import Chunk
from raypipe.data.formats.json_rows import json_object, reason, shown
from raypipe.data.table.nested import fields_of

OBJECT = "object"


@dataclass
class Judged:
    """What the rows of a chunk hold; those that are bad are among its unread ones.

    Attributes:
        parsed: row -> its object, of the rows that are some.
        right: row -> the fields that are right in it, by dotted name, of rows where others are not.
        mixed: fields that nobody asked for and that hold several types -> what is wrong with them.
    """

    parsed: dict[int, dict[str, Any]] = field(default_factory=dict)
    right: dict[int, dict[str, Any]] = field(default_factory=dict)
    mixed: dict[str, str] = field(default_factory=dict)

    def without_mixed(self, row: int) -> dict[str, Any]:
        """The object of a row without the fields that are mixed."""
        return _pruned(self.parsed[row], "", self.mixed)


def judge(chunk: Chunk, dtypes: Mapping[str, str], asked: Collection[str] | None) -> Judged:
    """Parse every row by itself.

    Args:
        dtypes: declared types of fields, by dotted name.
        asked: fields that matter; None: all do.
    """
    judged = Judged()
    seen: dict[str, Counter[str]] = {}
    for row in range(len(chunk)):
        if row in chunk.unread:
            continue
        try:
            judged.parsed[row] = json_object(chunk.row(row))
            fields_of(judged.parsed[row])
        except (ValueError, RecursionError) as error:
            judged.parsed.pop(row, None)
            chunk.unread[row] = reason(error)
            continue
        for name, value in _walked(judged.parsed[row]):
            seen.setdefault(name, Counter())[family(value)] += 1
    usual = {name: _usual(counts) for name, counts in seen.items()}
    for row, fields in judged.parsed.items():
        wrong: dict[str, str] = {}
        for name, value in _walked(fields):
            why = _misfit(value, dtypes.get(name), usual[name])
            if why is None:
                continue
            if name in dtypes or asked is None or _matters(name, asked):
                wrong[name] = why
                chunk.unread[row] = f"holds a wrong value: '{name}' is {shown(value)}, {why}"
            else:
                judged.mixed.setdefault(name, _told(seen[name]))
        if wrong:
            judged.right[row] = {n: v for n, v in fields_of(fields).items() if not _is_within(n, wrong)}
    return judged


def objects(lines: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """The fields of the lines that are JSON objects, by dotted name."""
    found: dict[int, dict[str, Any]] = {}
    for row, line in lines.items():
        with suppress(ValueError, RecursionError):
            found[row] = fields_of(json_object(line.encode()))
    return found


def is_of(value: Any, dtype: str) -> bool:
    """Whether a value is one of a declared type."""
    if dtype in ("string", "bool"):
        return isinstance(value, str if dtype == "string" else bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if dtype.startswith("float"):
        return True
    limits = np.iinfo(dtype)
    return isinstance(value, int) and limits.min <= value <= limits.max


def family(value: Any) -> str:
    """What Arrow keeps in one column."""
    if isinstance(value, list):
        inner = {family(item) for item in value} - {"null"}
        return "mixed list" if len(inner) > 1 else f"list of {inner.pop()}s" if inner else "list"
    names = {bool: "true/false", int: "number", float: "number", str: "text", dict: OBJECT, type(None): "null"}
    return names[type(value)]


def _walked(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value, objects and what is in them, by dotted name."""
    for name, value in fields.items():
        yield before + name, value
        if isinstance(value, dict):
            yield from _walked(value, f"{before}{name}.")


def _misfit(value: Any, dtype: str | None, usual: str) -> str | None:
    if value is None:
        return None
    if dtype is not None:
        return None if is_of(value, dtype) else f"which is no {dtype}"
    found = family(value)
    if found == usual or (found == "list" and usual.startswith("list")):
        return None
    return f"where most rows hold a {usual}" if found != "mixed list" else "a list of several types"


def _matters(name: str, asked: Collection[str]) -> bool:
    """Whether a field that is asked for is this one, or in it."""
    return any(each == name or each.startswith(f"{name}.") for each in asked)


def _is_within(name: str, wrong: Collection[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in wrong)


def _usual(counts: Counter[str]) -> str:
    """The family most values have; of equal ones the first that was seen."""
    return next((name for name, _ in counts.most_common() if name not in ("null", "list", "mixed list")), "list")


def _told(counts: Counter[str]) -> str:
    kinds = [name for name, _ in counts.most_common() if name != "null"]
    return f"holds a {kinds[0]} in some rows and a {kinds[1]} in others" if len(kinds) > 1 else f"holds a {kinds[0]}"


def _pruned(fields: Mapping[str, Any], before: str, mixed: Collection[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if before + name not in mixed:
            kept[name] = _pruned(value, f"{before}{name}.", mixed) if isinstance(value, dict) else value
    return kept
