"""How a warning about columns reads: which columns, what was found, with figures, and the setting that acts on it."""

from __future__ import annotations

from collections.abc import Sequence

from raypipe.records import DataWarning, WarningKind

MAX_WARNINGS = 50
"""Kept of a version: its record travels with every model."""

MAX_NAMED = 10
"""Columns, classes or values in one warning."""

MIN_ROWS = 50
"""Fewer rows tell nothing."""


def warning(kind: WarningKind, columns: Sequence[str], finding: str, remedy: str, noun: str = "column") -> DataWarning:
    """A warning about one column or several: `column 'a' <finding>; <remedy>`."""
    subject = f"{noun}{'s' if len(columns) > 1 else ''} {listed(columns)}"
    return DataWarning(kind=kind, columns=tuple(columns[:MAX_NAMED]), text=f"{subject} {finding}; {remedy}")


def listed(values: Sequence[object]) -> str:
    """`'a', 'b' and 3 more`."""
    shown = ", ".join(repr(value) if isinstance(value, str) else str(value) for value in values[:MAX_NAMED])
    return shown + (f" and {len(values) - MAX_NAMED} more" if len(values) > MAX_NAMED else "")
