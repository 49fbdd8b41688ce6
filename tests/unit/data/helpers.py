"""Small things several tests of the data room need."""

from __future__ import annotations

from pathlib import Path

from raypipe.data.files import SourceFile


def source_file(path: str | Path) -> SourceFile:
    """A file as `files()` lists it."""
    return SourceFile(name=Path(path).name, uri=str(path), size_bytes=0, tag="")
