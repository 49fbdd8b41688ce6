"""Local files that are read as they were listed, or not at all."""

from __future__ import annotations

import hashlib
import io
import os

from raypipe.errors import SourceChanged

DIGEST_BYTES = 2**20

CHANGED_HINT = "run again when nothing writes to the source any more; files that never change have names of their own"


class PinnedFile(io.FileIO):
    """A file that must stay as it is while it is open; closing raises SourceChanged when it did not.

    Attributes:
        pin: size and time of the last change, as they were when it was opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path
        self._stat = os.fstat(self.fileno())
        self.pin = pin(self._stat.st_size, self._stat.st_mtime_ns)

    def digest(self) -> str:
        """SHA-256 of the content; afterwards the file stands at its start."""
        self.seek(0)
        found = hashlib.sha256()
        while piece := self.read(DIGEST_BYTES):
            found.update(piece)
        self.seek(0)
        return found.hexdigest()

    def close(self) -> None:
        if self.closed:
            return
        try:
            how = self._change()
        finally:
            super().close()
        if how:
            raise changed(self._path, how)

    def _change(self) -> str:
        now = os.fstat(self.fileno())
        if pin(now.st_size, now.st_mtime_ns) != self.pin:
            return "was written to"
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return "was deleted"
        return "" if os.path.samestat(there, now) else "was replaced"


def pin(size_bytes: int, mtime_ns: int) -> str:
    """What tells that a file was not written to.

    Without the inode: machines of a cluster may each have a copy.
    """
    return f"{size_bytes} {mtime_ns}"


def open_pinned(path: str, expected: str, content: str) -> PinnedFile:
    """The file, if it is the one that was listed.

    Args:
        expected: its pin; empty takes any file.
        content: its digest, which counts more than the pin; empty when only the pin is known.
    Raises:
        SourceChanged: it is another one.
        OSError: it cannot be opened.
    """
    try:
        file = PinnedFile(path)
    except FileNotFoundError:
        raise changed(path, "was deleted") from None
    if expected in ("", file.pin):
        return file
    is_same = bool(content) and expected.partition(" ")[0] == file.pin.partition(" ")[0] and file.digest() == content
    if not is_same:
        io.FileIO.close(file)  # what it is compared with is known already
        raise changed(path, "was written to")
    return file


def changed(where: str, how: str) -> SourceChanged:
    """The error of a source that is not what was listed any more, wherever it lies."""
    return SourceChanged(f"data source {where} {how} while this run read it", CHANGED_HINT)
