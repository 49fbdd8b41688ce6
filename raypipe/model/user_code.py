"""An exception that comes out of the user's network, in words: its type, its text, and where it was raised."""

from __future__ import annotations

import site
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

MAX_CHARS = 700
"""Of an exception's text that is told; torch writes paragraphs."""

_OURS = str(Path(__file__).parents[1])
_INSTALLED = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *site.getsitepackages())


def described(error: BaseException) -> str:
    """`model.py line 12, in forward: RuntimeError: what it says`, all on one line."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    where = _place(error)
    told = f"{kind}: {text[:MAX_CHARS]}" if text else kind
    return f"{where}: {told}" if where else told


def described_if_own(error: BaseException) -> str:
    """`described` where the user's own files raised it; else type and text, as no line of a library says more."""
    return described(error) if is_raised_by(error) else f"{type(error).__name__}: {error}"


def is_raised_by(error: BaseException) -> bool:
    """Whether it was raised below a line of the user's own files."""
    return _own_step(error) is not None


def is_ours(error: BaseException) -> bool:
    """Whether it was raised by a line of raypipe itself: no user can do anything about it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _is_below(frames[-1].filename, _OURS)


def _place(error: BaseException) -> str:
    """The last line of the user's files that it passed; of other libraries' where it passed none."""
    steps = list(traceback.walk_tb(error.__traceback__))
    step = _own_step(error) or (steps[-1] if steps else None)
    return "" if step is None else f"{_shown(step[0].f_code.co_filename)} line {step[1]}, in {step[0].f_code.co_name}"


def _own_step(error: BaseException) -> tuple[FrameType, int] | None:
    """Frame and line. No source is read: an endpoint comes here for every row that a network refuses."""
    own = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith("<") and not any(_is_below(file, folder) for folder in (_OURS, *_INSTALLED)):
            own = frame, line
    return own


def _is_below(file: str, folder: str) -> bool:
    return file.startswith(f"{folder}/")


def _shown(file: str) -> str:
    """From the folder that it was imported from: on a cluster that is a copy whose name says nothing."""
    folders = [str(Path(entry or ".").absolute()) for entry in sys.path]
    nearest = max((folder for folder in folders if _is_below(file, folder)), key=len, default=None)
    return file if nearest is None else file[len(nearest) + 1 :]
