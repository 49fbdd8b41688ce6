"""What the end of a file's name says: capitals count like small letters, as cameras, recorders and old systems write
them."""

from __future__ import annotations

import re

_ENDING = re.compile(r"((\.[\w*?]+)?\.gz|\.[\w*?]+)$", re.IGNORECASE | re.ASCII)
"""Of a glob. In brackets its author has said which letters are meant."""


def has_ending(name: str, endings: str | tuple[str, ...]) -> bool:
    """Whether a name or path ends in one of some endings, which are written in small letters."""
    return name.lower().endswith(endings)


def without_ending(name: str, ending: str) -> str:
    """The name without its end where that is the ending, which is written in small letters."""
    stem = name[: len(name) - len(ending)]
    return stem if name[len(stem) :].lower() == ending else name


def in_either_case(pattern: str) -> str:
    """A glob that matches the ending of a name in small letters and in capitals: `*.csv` as `*.[cC][sS][vV]`."""
    return _ENDING.sub(lambda ending: re.sub(r"[a-zA-Z]", _either, ending[0]), pattern)


def _either(letter: re.Match[str]) -> str:
    return f"[{letter[0].lower()}{letter[0].upper()}]"
