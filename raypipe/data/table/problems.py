"""All that is wrong at once: whoever mends a file should not have to run it again for each column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raypipe.errors import DataError

MAX_SHOWN = 20
"""Problems in one message."""


class NeedsNumbers(DataError):
    """A column holds text where numbers are needed; stray.py looks what text that is.

    Args:
        column: its name.
    """

    def __init__(self, message: str, hint: str = "", column: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, column)
        self.column = column


class SeveralProblems(DataError):
    """Errors of which none hides the next.

    Args:
        errors: all of them.
    """

    def __init__(self, message: str, hint: str = "", errors: Sequence[DataError] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, errors)
        self.errors = tuple(errors)


class Problems:
    """Collects errors; `refuse` raises them together."""

    def __init__(self) -> None:
        self._errors: list[DataError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """A DataError inside is kept for `refuse`, and what follows the block goes on."""
        try:
            yield
        except DataError as error:
            self.add(error)

    def add(self, error: DataError) -> None:
        self._errors += each(error)

    def refuse(self) -> None:
        """Raise what was collected, if anything was: a single error as it is, several as SeveralProblems."""
        if self._errors:
            raise together(self._errors)


def each(error: DataError) -> tuple[DataError, ...]:
    """The errors that were raised together."""
    return error.errors if isinstance(error, SeveralProblems) else (error,)


def together(errors: Sequence[DataError]) -> DataError:
    """One error for all; the same message is told once."""
    distinct = list({error.message: error for error in errors}.values())
    if len(distinct) == 1:
        return distinct[0]
    shown = distinct[:MAX_SHOWN]
    lines = [f"\n  {error.message}" for error in shown]
    more = f"\n  and {len(distinct) - MAX_SHOWN} more" if len(distinct) > MAX_SHOWN else ""
    hints = dict.fromkeys(error.hint for error in shown if error.hint)
    return SeveralProblems(f"{len(distinct)} things are wrong:{''.join(lines)}{more}", "; ".join(hints), distinct)
