"""What one call of a format's reader reads, and how it fails over damaged bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from raypipe.data.sources.place import SourceFile
from raypipe.errors import DataError, RaypipeError


class Named(Protocol):
    """What messages name."""

    @property
    def name(self) -> str: ...


class Sized(Named, Protocol):
    @property
    def size_bytes(self) -> int | None:
        """None where nobody tells."""
        ...


class Part(Sized, Protocol):
    """What one call of a format's reader reads: a file, a range of one, or some small ones together."""

    @property
    def num_rows(self) -> int | None:
        """None where only reading tells."""
        ...

    @property
    def num_files(self) -> int: ...


@dataclass(frozen=True, slots=True)
class FileRange:
    """What lies in [start, stop) of a file, counted in the format's unit: bytes, row groups, record batches."""

    file: SourceFile
    size_bytes: int | None
    start: int = 0
    stop: int | None = None
    """None is the end of the file."""
    num_rows: int | None = None

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def num_files(self) -> int:
        return 1


def as_range(part: SourceFile | FileRange) -> FileRange:
    """A file as the range that is all of it."""
    return part if isinstance(part, FileRange) else FileRange(part, part.size_bytes)


@contextmanager
def readable(
    file: str, what: str, hint: str = "write it again, fetch a good copy, or correct the path"
) -> Iterator[None]:
    """Whatever a decoder raises over damaged bytes becomes one DataError.

    Args:
        what: e.g. "CSV".
    """
    try:
        yield
    except RaypipeError:
        raise
    except Exception as error:  # decoders fail in every way there is: no list of types is complete
        reason = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
        raise DataError(f"{file} is not readable as {what}: {reason}", hint) from None
