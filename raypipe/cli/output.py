"""What commands say: results on stdout (tables or JSON), errors as one message on stderr and an exit code."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import typer

from raypipe.errors import RaypipeError, find_known, masked, one_line

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

TERMINATED = 143
"""Exit code after SIGTERM."""


_told_to_stop = threading.Event()
"""SIGTERM came."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """The same for a script: whatever the block raises ends the process with one message and an exit code.

    Being told to stop (SIGTERM) unwinds the block, so that what it started is taken down.
    """
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted")
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as end:
        raise SystemExit(_code(end)) from None
    except Exception as error:
        raise SystemExit(_report(error, as_json=False)) from None


def terminate(signum: int, frame: object) -> None:
    """Handler of SIGTERM: leave through every `with` and `finally`."""
    _told_to_stop.set()
    raise SystemExit(TERMINATED)


def _code(end: SystemExit) -> str | int | None:
    """Where the handler runs while Ray's C++ code waits, Ray puts a SystemExit(1) in the place of ours."""
    return TERMINATED if _told_to_stop.is_set() else end.code


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Make a command end in one message and an exit code, whatever it raises.

    A user's mistake shows no traceback. An error that is ours writes its traceback to a file and names it;
    RAYPIPE_DEBUG=1 shows it at once.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except SystemExit as end:
            raise SystemExit(_code(end)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nobody to tell
            raise typer.Exit(1) from None
        except Exception as error:
            raise typer.Exit(_report(error, as_json=bool(kwargs.get("as_json")))) from None

    return run


def _report(error: Exception, *, as_json: bool) -> int:
    known = find_known(error)
    if os.environ.get("RAYPIPE_DEBUG"):
        print(_traceback(error), file=sys.stderr, flush=True)
    if known is None:
        known = _unexpected(error)
    first, *others = known.message.split("\n")
    say(f"error: {first}")
    for line in others:
        say(f"       {line}")  # set in, so that a name with a line break in it forges no line of ours
    if known.hint:
        say(f"  try: {known.hint}")
    if as_json:
        kind = type(known).__name__ if known is find_known(error) else type(error).__name__
        document = {"error": {"kind": kind, "message": known.message, "hint": known.hint, "exit_code": known.exit_code}}
        show_json(document)
    return known.exit_code


def _unexpected(error: Exception) -> RaypipeError:
    text = (masked(str(error)).strip().splitlines() or [""])[0][:300]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="raypipe-", suffix=".log", delete=False, encoding="utf-8") as log:
            log.write(_traceback(error))
        hint = f"the traceback is in {log.name}; RAYPIPE_DEBUG=1 shows it"
    except OSError as full:  # no room for it, or no folder
        hint = f"RAYPIPE_DEBUG=1 shows the traceback; no file could take it ({full.strerror})"
    return RaypipeError(f"raypipe failed: {type(error).__name__}: {text}", hint)


def _traceback(error: Exception) -> str:
    """Where an error came from, with the errors behind it; what others wrote into their texts is masked too."""
    return masked("".join(traceback.format_exception(error)))


def say(text: str) -> None:
    """A line for people, on stderr; see `one_line`."""
    print(one_line(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A line of the result, on stdout; see `one_line`."""
    print(one_line(text), flush=True)


def show_json(value: Any) -> None:
    """The result as one JSON document on one line."""
    show(json.dumps(value, default=str))


def show_set_in(head: str, text: str) -> None:
    """A line of the result; where a terminal is narrower, the text goes on below its own beginning."""
    if not sys.stdout.isatty():
        show(head + text)
        return
    from rich.console import Console
    from rich.table import Table

    row = Table.grid()
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(head, one_line(text))
    Console(highlight=False, markup=False, emoji=False).print(row)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows for people: a drawn table on a terminal, aligned columns elsewhere."""
    cells = [["" if value is None else one_line(str(value)) for value in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*headers, box=None, header_style="bold", pad_edge=False)
        for row in cells:
            table.add_row(*row)
        Console(highlight=False, markup=False).print(table)
        return
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    for row in [list(headers), *cells]:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def number(value: float) -> str:
    """A metric as people read it: 4 digits after the point, fewer when they say nothing."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"
