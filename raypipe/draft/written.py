"""A pipeline file as it is written: sections of lines with comments, and the request that goes with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from raypipe.errors import one_line

MAX_LINE = 120

TRANSFORMS = "transforms: # fitted on train alone"
"""The line of `data` before those of its transforms."""

WIDTH = 110
"""Characters of a line, where values can be broken."""


@dataclass
class Written:
    """A pipeline file in the making.

    Attributes:
        about: what it does, for its first line.
        data, model, train, gates: lines of these sections, without their own indentation.
        request: one row as a client sends it; None: the first that `data` reads.
        guesses: what was guessed and should be looked at, in short.
    """

    about: str
    data: list[str] = field(default_factory=list)
    model: str = ""
    model_note: str = ""
    train: list[str] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    request: dict[str, Any] | None = None
    guesses: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """The file."""
        head = f"# {self.about}  `raypipe validate pipeline.yaml` checks it, `raypipe schema` describes it."
        note = (
            ["# What was guessed from the data says so: look at it before you trust the result."]
            if self.guesses
            else []
        )
        model = f"model: {self.model}" + (f" # {self.model_note}" if self.model_note else "")
        evaluate = ["evaluate:", "  gates:", *(f"    - {gate}" for gate in self.gates)]
        serve = "serve: {port: 8000, min_replicas: 1, max_replicas: 2}"
        sections = [
            [head, *note, f"name: {name}", "seed: 1"],
            ["data:", *(f"  {line}" for line in self.data)],
            [model],
            ["train:", *(f"  {line}" for line in self.train)],
            evaluate,
            [serve],
        ]
        return "\n\n".join("\n".join(map(_short, lines)) for lines in sections) + "\n"


def _short(line: str) -> str:
    """A line whose comment stands above it where both are too long for one."""
    text, sign, comment = line.rpartition(" # ")
    if len(line) <= MAX_LINE or not text.strip() or any(mark in text for mark in "\n'\""):
        return line
    return f"{' ' * (len(line) - len(line.lstrip()))}{sign.lstrip()}{comment}\n{text}"


def flow(value: Any, indent: int = 0) -> str:
    """A value on one line, or broken where it is long: `{kind: impute, columns: [a, b]}`.

    Args:
        indent: blanks before its further lines.
    """
    text = json.dumps(value, ensure_ascii=False)
    if not text.isprintable() or "\\" in text:  # as JSON, which YAML reads too: no name breaks a line
        return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=WIDTH - indent)
    lines = text.removesuffix("...\n").strip().split("\n")
    return f"\n{' ' * indent}".join(line.strip() for line in lines)


def item(value: Any, comment: str = "") -> str:
    """A list item of a section of `data`, with a comment on a line of its own where it would not fit."""
    return f"  - {flow(value, 6)}" + (f" # {comment}" if comment else "")


def bad_rows(num_bad: int, num_good: int, what: str) -> str:
    """A line of `data` that allows some more rows that cannot be read than those that were looked at hold."""
    share = min(1.0, max(0.01, round(2 * num_bad / (num_bad + num_good), 3)))
    found = f"{num_bad:,} of {num_bad + num_good:,} {what} that were looked at cannot be read" if num_bad else what
    return f"bad_rows: {{max_frac: {share:g}}} # {found}"


def some(names: Sequence[str], most: int = 6) -> str:
    """Names for a comment or a message, on one line whatever they hold."""
    listed = ", ".join(name if name else "(no name)" for name in names[:most])
    return one_line(" ".join((listed + (f" and {len(names) - most} more" if len(names) > most else "")).split()))
