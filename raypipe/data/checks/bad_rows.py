"""Rows that are set aside: what is kept of them, how they are written, and when there are too many."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow as pa

from raypipe.data.checks.losses import Losses, Targets
from raypipe.data.table import columns
from raypipe.errors import DataError

MAX_KEPT = 1000
"""Bad rows written aside; all are counted."""

NUM_TOLD = 3
"""Bad rows in a message."""

SHOWN_TEXT = 256
"""Characters of a text that `shown` shows."""

SHOWN_VALUES = 16
"""Values of an array that `shown` shows one by one."""


@dataclass
class BadRows:
    """Rows that break the schema, or an expectation that sets them aside.

    Attributes:
        kept: the first MAX_KEPT: `reason`, `row`, and where it is: `position` in the block, `row_number` or `row_id`.
        reasons: for what -> how many rows; a row may have several.
        targets: what the model would have learned of them.
    """

    num_rows: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    targets: Targets = field(default_factory=Targets)

    def add(self, more: BadRows) -> None:
        """Take other rows, of which no more are kept than there is room for."""
        self.num_rows += more.num_rows
        self.reasons += more.reasons
        self.targets.add(more.targets)
        self.kept += more.kept[: MAX_KEPT - len(self.kept)]


def refuse_too_many(
    bad: BadRows,
    num_rows: int,
    max_frac: float,
    notes: Sequence[str] = (),
    losses: Losses | None = None,
    remedies: Sequence[str] = (),
) -> None:
    """Raise DataError when more than `max_frac` of all rows are bad.

    Args:
        notes: lines to show after the first bad rows.
        losses: what goes with the bad rows; allowing more of them is only advised where that is known.
        remedies: what helps against the reasons.
    """
    allowed = int(Fraction(str(max_frac)) * num_rows)
    if bad.num_rows <= allowed:
        return
    lines = "".join(f"\n  {_place(k)}: {k['reason']}: {_short(k['row'])}" for k in bad.kept[:NUM_TOLD])
    lost = losses.lines() if losses else []
    lines += "".join(f"\n  {note}" for note in [*notes, *lost])
    advice = [*(remedies or ["mend the rows"])]
    if losses and lost and not losses.aside.num_unknown:
        advice.append("or, if the model may do without them as told above, raise data.bad_rows.max_frac")
    raise DataError(
        f"{bad.num_rows} of {num_rows} rows break the schema or an expectation; data.bad_rows.max_frac={max_frac:g} "
        f"allows {allowed}{lines}",
        "; ".join(advice),
    )


def shown(table: pa.Table, row: int) -> dict[str, Any]:
    """One row for people to read: an array of many values is told by its type and shape, and long text is cut."""
    return {name: _shown(column.slice(row, 1)) for name, column in columns.by_name(table).items()}


def _shown(column: pa.ChunkedArray) -> Any:
    kind = columns.kind(column.type)
    if not kind.form or column.null_count:
        value = column[0].as_py()
        return f"{value[:SHOWN_TEXT]}..." if isinstance(value, str) and len(value) > SHOWN_TEXT else value
    is_tensor = isinstance(column.type, pa.BaseExtensionType)
    flat = columns.tensor_values(column).reshape(-1) if is_tensor else column.combine_chunks()
    while isinstance(flat, pa.ListArray):
        flat = flat.flatten()
    if len(flat) > SHOWN_VALUES:
        shape = next(iter(columns.shapes(column)), None)
        return f"{len(flat)} values of {kind.dtype}, " + (f"shape {list(shape)}" if shape else "of uneven shape")
    return columns.tensor_values(column)[0].tolist() if is_tensor else column[0].as_py()


def to_lines(bad: BadRows) -> bytes:
    """JSON lines of the rows that are kept."""
    return "".join(json.dumps(_finite(row), default=str) + "\n" for row in bad.kept).encode()


def _finite(value: Any) -> Any:
    """The value with null for every NaN and infinity in it, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _place(kept: Mapping[str, Any]) -> str:
    """Where a bad row is; one that is bad because of others is known by its id."""
    of = f"{kept['source']} " if "source" in kept else ""
    return f"{of}row {kept['row_number']}" if "row_number" in kept else f"row id {kept['row_id']}"


def _short(row: dict[str, Any]) -> str:
    text = str(row)
    return text if len(text) <= 200 else text[:197] + "..."
