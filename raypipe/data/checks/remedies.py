"""What helps against each reason for which a row is bad."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from raypipe.data.checks.bad_rows import BadRows
from raypipe.data.table.marks import NOT_UTF8, UNREAD
from raypipe.spec.data import DataSpec

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

NOT_DECLARED = "which is no"
UNUSUAL = "where most rows hold"
UNEVEN = "values, the header"
BEHIND_QUOTE = "text behind a closing quote"
"""How the reasons of formats read, or a part of them that they share."""

MAX_NAMED = 10
"""Columns in a remedy."""

_MISSING = re.compile(r"'(.*)' is missing")
_OF_A_COLUMN = re.compile(r"'(.*)' (is|holds) \w+")

_UNREAD_REMEDIES = {
    NOT_UTF8: "save the file as UTF-8, e.g. iconv -f latin1 -t utf-8, or, for CSV, name its data.source.encoding",
    NOT_DECLARED: "correct those values or data.source.dtypes, of CSV also decimal_point, thousands, signs and "
    "date_format (string keeps text as it is); texts that mean 'no value' belong in data.source.null_values of CSV, "
    "and are null in JSON",
    UNUSUAL: "write values of one type in each field, null where there is none, or name the type in data.source.dtypes",
    UNEVEN: "give every row as many values as the header has, with quotes around those that hold the delimiter; "
    "remarks among the rows of CSV are left out by data.source.comment; where a sign such as a backslash stands before "
    "delimiters that are none, set data.source.escape, and data.source.quote where other quotes stand around cells",
    BEHIND_QUOTE: "write a quote inside a quoted cell twice, or, where a sign such as a backslash stands before it, "
    "set data.source.escape; where no quotes stand around cells, set data.source.quote: ''",
}


def missing(name: str) -> str:
    """The reason of a row without a value that it must have."""
    return f"'{name}' is missing"


def negative(name: str) -> str:
    """The reason of a row whose weight is below 0."""
    return f"'{name}' is negative"


def unread_reasons(texts: pa.ChunkedArray) -> Counter[str]:
    """Of what formats say of rows that they could not read: kind of reason -> rows."""
    num_rows: Counter[str] = Counter()
    for mark in _UNREAD_REMEDIES:
        is_it = pc.match_substring(texts, mark)
        texts, num_rows[mark] = texts.filter(pc.invert(is_it)), is_it.filter(is_it).length()
    num_rows[UNREAD] = len(texts)
    return +num_rows


def remedies(bad: BadRows, spec: DataSpec) -> list[str]:
    """What to do, for the reasons of most rows first."""
    features = spec.features
    imputed = {name for transform in spec.transforms if transform.kind == "impute" for name in transform.columns}
    gaps: list[str] = []
    advice: list[str] = []
    for reason, _ in bad.reasons.most_common():
        match = _MISSING.fullmatch(reason)
        name = match[1] if match else None
        if reason in _UNREAD_REMEDIES:
            advice.append(_UNREAD_REMEDIES[reason])
        elif reason == UNREAD:
            advice.append("mend or remove the rows that cannot be read")
        elif name in spec.targets and spec.task == "multi_label" and isinstance(spec.target, str):
            advice.append(
                "if a row without a value has no label, set data.label_sets: {missing: no_label}; else leave such rows "
                f"out with data.source.where: [{{column: {name}, op: not_null}}]"
            )
        elif name in spec.targets:
            where = f"data.source.where: [{{column: {name}, op: not_null}}]"
            advice.append(f"a missing target is never imputed: give it, or leave such rows out with {where}")
        elif spec.weight is not None and (of := _OF_A_COLUMN.fullmatch(reason)) and of[1] == spec.weight:
            advice.append(
                f"give '{spec.weight}', which data.weight names, a number from 0 up in every row (a row of 0 does not "
                "count), or leave data.weight out"
            )
        elif name is not None and name in spec.split.reads:
            advice.append(f"give '{name}' in every row, as data.split divides the rows by it")
        elif name is not None and name not in imputed and (features is None or name in features):
            gaps.append(name)
        else:
            advice.append("mend the rows, or correct what data.expectations and data.split ask of them")
    if gaps:
        advice.insert(0, f"add an `impute` transform (of text: strategy most_frequent) for {_named(gaps)}")
    return list(dict.fromkeys(advice))


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:MAX_NAMED]) + more
