"""What was recognised in CSV files, in lines for people."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from raypipe.data.formats.csv_values import Forms
from raypipe.data.formats.encodings import ASCII
from raypipe.data.table.declared import TEXT_DTYPES
from raypipe.spec.sources import CsvSource

MAX_LINES = 50
"""Lines that are told of columns."""

SHOWN = 40

OF_FILE = ("encoding", "delimiter", "quote", "escape", "skip_lines", "row_names", "decimal_point", "thousands")
"""Fields of a source that its files may tell."""

USUAL = {"encoding": (ASCII, "utf-8"), "delimiter": (",",), "decimal_point": (".",)}
"""Field -> what needs no word."""

READ_AS = {
    **TEXT_DTYPES,
    "time": f"{TEXT_DTYPES['time']}, in seconds since midnight",
    "duration": f"{TEXT_DTYPES['duration']}, in seconds",
}
"""Words of `dtypes` that texts may be recognised as -> what they become."""


def lines_of_file(given: CsvSource, source: CsvSource) -> list[str]:
    """One that says how a file lies, where that is not as most do.

    Args:
        given: what the spec says.
        source: that with what was recognised.
    """
    fields: dict[str, object] = {}
    for name in OF_FILE:
        value = getattr(source, name)
        if value != getattr(given, name) and value not in USUAL.get(name, ()):
            fields[name] = value
    return [f"recognised: {', '.join(f'{n}: {json.dumps(v)}' for n, v in fields.items())}"] if fields else []


def lines_of_columns(
    forms: Forms, texts: Mapping[str, pa.Array], zeros: Mapping[str, str], *, is_shown: bool
) -> list[str]:
    """One for each column in which something was recognised.

    Args:
        texts: column -> its distinct texts.
        zeros: columns that stay text as they are written with leading zeros, each with such a text.
        is_shown: whether lines may show what the file holds.
    """

    def like(name: str) -> str:
        return f" like {texts[name][0].as_py()[:SHOWN]!r}" if is_shown else ""

    lines: list[str] = []
    for name, sign in forms.numbers.items():
        left_out = f", {sign} left out" if sign else ""
        lines.append(f"column '{name}': text{like(name)} is read as numbers{left_out}")
    for name, written in forms.dates.items():
        lines.append(f"column '{name}': dates written {written} are read as ISO 8601")
    for name, dtype in forms.kinds.items():
        lines.append(
            f"column '{name}': texts{like(name)} are read as {READ_AS[dtype]}; data.source.dtypes: "
            f"{{{json.dumps(name)}: string}} keeps the text"
        )
    for name, text in zeros.items():
        shown = f" ({text!r})" if is_shown else ""
        lines.append(
            f"column '{name}' is written with leading zeros{shown} and stays text; data.source.dtypes: "
            f"{{{json.dumps(name)}: int64}} makes numbers of it"
        )
    lines += _lines_of_unclear(forms)
    for name, text in forms.odd.items():
        what = f"{text[:SHOWN]!r} is" if is_shown else "some texts are"
        other = next((each for each in texts[name].to_pylist() if each != text), "")
        shown = f" like {other[:SHOWN]!r}" if is_shown else ""
        lines.append(
            f"column '{name}' stays text: {what} not written like the other numbers in it{shown}; what means 'no "
            "value' is named in data.source.null_values"
        )
    differ = isinstance(forms.decimal_point, dict)
    for name, mark in forms.doubtful.items():
        point = f"{{{json.dumps(name)}: {mark!r}}}" if differ else repr(mark)
        lines.append(
            f"column '{name}' stays text: in its numbers{like(name)} {mark!r} may stand between thousands or before a "
            f"fraction; set data.source.thousands: {mark!r} or data.source.decimal_point: {point}"
        )
    for name, mark in forms.unlike.items():
        lines.append(
            f"column '{name}' stays text: in its numbers{like(name)} {mark!r} stands between thousands, in those of "
            "other columns something else does; write them alike"
        )
    for name, dtype in forms.likely.items():
        lines.append(
            f"column '{name}' stays text: its values{like(name)} may be {READ_AS[dtype]}; data.source.dtypes: "
            f"{{{json.dumps(name)}: {dtype}}} makes numbers of it"
        )
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], *([f"and {more} more columns in which something was recognised"] if more > 0 else [])]


def _lines_of_unclear(forms: Forms) -> list[str]:
    """Of columns that stay as they are, though they may be something else."""
    lines: list[str] = []
    for name, formats in forms.unclear.items():
        both = " or ".join(json.dumps(written) for written in formats)
        lines.append(
            f"column '{name}' stays text: its dates may be {both}; set data.source.date_format: {{{name}: ...}}"
        )
    for name, written in forms.compact.items():
        lines.append(
            f"column '{name}' stays numbers, all of which are dates like {written}; data.source.date_format: "
            f"{{{json.dumps(name)}: {json.dumps(written)}}} makes dates of it"
        )
    for name in forms.quoted:
        lines.append(
            f"column '{name}' keeps the single quotes around its texts; if they are none of the text, set "
            'data.source.quote: "\'"'
        )
    return lines
