"""Where files lie: what every place (folders, buckets, the web) tells of a file, and how it opens one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

from raypipe.errors import SourceChanged

CHANGED_HINT = "run again when nothing writes to the source any more; files that never change have names of their own"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source, as it was listed.

    Attributes:
        name: relative to the data root where it lies below it; shown in messages.
        uri: absolute path or address.
        size_bytes: None where the server does not tell.
        tag: differs between two contents of one uri; compared from run to run, on one machine.
        pin: what holds on every machine as long as the file is the one that was listed; empty when that is not known.
        digest: SHA-256 of the content where it was read, else empty; it counts more than the pin.
    """

    name: str
    uri: str
    size_bytes: int | None
    tag: str
    pin: str = ""
    digest: str = ""


class Place(Protocol):
    """Lists files, each under its uri as its name, and opens what it listed or raises SourceChanged.

    Paths are what follows `start` in a uri, and have no `/` at their end.  What cannot be listed or opened is an
    OSError or StoreError.
    """

    start: str
    """How every uri there begins."""

    def file(self, path: str) -> SourceFile | None:
        """The file of that path, if it is one."""
        ...

    def below(self, path: str, is_deep: bool = True) -> list[SourceFile]:
        """All files below a folder, or at least those right in it; none where there is no folder."""
        ...

    def is_folder(self, path: str) -> bool: ...

    def open(self, file: SourceFile) -> io.IOBase:
        """A file for random access."""
        ...


def changed(where: str, how: str) -> SourceChanged:
    """The error of a source that is not what was listed any more, wherever it lies."""
    return SourceChanged(f"data source {where} {how} while this run read it", CHANGED_HINT)
