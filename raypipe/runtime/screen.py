"""How progress looks: a line an event for whoever reads later, one live view for a person at a terminal.

The view is at the bottom of the terminal while a stage runs; lines that last scroll above it. What only says how far
the stage is moves the view, and its last state stays as a line when the stage ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from raypipe.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESHES_PER_S = 4.0

STAGE_WIDTH = 9
"""Columns that a stage's name takes; `register` is the longest."""


class Screen(Protocol):
    """Where a run's progress is shown; any thread may call it."""

    def line(self, stage: str, text: str) -> None:
        """Show a line that lasts."""
        ...

    def update(self, stage: str, text: str, share: float | None, beside: str) -> None:
        """Show how far a stage is; `Progress.update` has the arguments."""
        ...

    @contextmanager
    def live(self, stage: str) -> Iterator[None]:
        """While the block runs, the stage is what is looked at."""
        ...


def screen_of(stream: TextIO | None) -> Screen:
    """The view that a stream can show: a terminal's own, plain lines for a file or a pipe, none for None."""
    if stream is None:
        return Silent()
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        if console.is_terminal and not console.is_dumb_terminal:
            return Terminal(console)
    return Lines(stream)


class Silent:
    """Shows nothing."""

    def line(self, stage: str, text: str) -> None:
        pass

    def update(self, stage: str, text: str, share: float | None, beside: str) -> None:
        pass

    @contextmanager
    def live(self, stage: str) -> Iterator[None]:
        yield


class Lines:
    """One line an event, with the time of day, no control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, stage: str, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        print(one_line(f"{clock} {stage:<{STAGE_WIDTH}} {text}"), file=self._stream, flush=True)

    def update(self, stage: str, text: str, share: float | None, beside: str) -> None:
        self.line(stage, text)

    @contextmanager
    def live(self, stage: str) -> Iterator[None]:
        yield


class Terminal:
    """Lasting lines above, the live view below; nothing is wider than the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: View | None = None

    def line(self, stage: str, text: str) -> None:
        self._console.print(_row(stage, text))

    def update(self, stage: str, text: str, share: float | None, beside: str) -> None:
        view = self._view
        if view is None:  # between stages there is nothing to move
            self.line(stage, text)
        else:
            view.text = one_line(text)
            view.share = view.share if share is None else share
            view.beside = one_line(beside) or view.beside

    @contextmanager
    def live(self, stage: str) -> Iterator[None]:
        from rich.live import Live

        before, self._view = self._view, View(stage)
        view = self._view
        try:
            with Live(view, console=self._console, refresh_per_second=REFRESHES_PER_S, transient=True):
                yield
        finally:
            self._view = before
            if view.text:
                self.line(stage, view.text)


class View:
    """The state of one stage: what is drawn at each refresh."""

    def __init__(self, stage: str) -> None:
        self.text, self.beside = "", ""
        self.share: float | None = None
        self._stage = stage
        self._start = time.monotonic()

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        seconds = round(time.monotonic() - self._start)
        beside = [self.beside] if self.beside else []
        beside += [f"{seconds // 60}:{seconds % 60:02d}"]
        bar = ProgressBar(total=1.0, completed=self.share or 0.0, pulse=self.share is None)
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=STAGE_WIDTH, no_wrap=True, style="bold cyan")
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        line.add_row(self._stage, bar, "  ".join(beside))
        return Group(line, _row("", self.text)) if self.text else line


def _row(stage: str, text: str) -> RenderableType:
    """A stage's name and a text that is folded within its own column."""
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_column(width=STAGE_WIDTH, no_wrap=True, style="cyan")
    row.add_column(overflow="fold")
    style = "yellow" if text.startswith("warning: ") else "red" if text.startswith("failed ") else ""
    row.add_row(stage, Text(one_line(text), style=style))
    return row
