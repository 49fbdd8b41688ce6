"""Files of this machine: listed without being opened, and read as they were listed, or not at all.

Not over obstore: that opens a file anew for each range, so it cannot tell that the file was written to between two, and
its ETag holds the inode, which copies on the machines of a cluster do not share.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator

from raypipe.data.sources.place import SourceFile, changed
from raypipe.errors import DataError

DIGEST_BYTES = 2**20

BUFFER_BYTES = 2**16
"""Read from a file at once, at least."""

COARSE_S = 2
"""Some file systems (FAT, s3fs, gcsfuse) keep times in steps of one or two whole seconds."""

JOB_FOLDER = "/working_dir_files/_ray_pkg_"
"""Ray unpacks a job's folder here on each machine by itself, so with other times; its name follows from its content."""


class Disk:
    """The Place of local paths.

    A file is known by size, time of the last change, time of the last change of its inode (which no program can set
    back), and inode.  Two contents of one size within one step of the clock (some 10 ms) differ in none of them; a run
    takes longer than that to read a file and to record it, so no record is ever made of the one and found for the
    other.  Where the steps are whole seconds that does not hold: a file that changed just now is then never taken for
    one that was listed before.
    """

    start = ""

    def file(self, path: str) -> SourceFile | None:
        try:
            return listed(path, os.stat(path)) if os.path.isfile(path) else None
        except FileNotFoundError:
            return None

    def below(self, path: str, is_deep: bool = True) -> list[SourceFile]:
        return [listed(entry.path, stat) for entry, stat in _walk(path, is_deep)]

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def open(self, file: SourceFile) -> io.BufferedReader:
        return io.BufferedReader(open_pinned(file.uri, file.pin, file.digest), BUFFER_BYTES)


def with_digest(file: SourceFile) -> SourceFile:
    """The file, known by its content; one that cannot be opened as it is: whoever reads it tells why."""
    try:
        with PinnedFile(file.uri) as handle:
            digest = handle.digest()
            return SourceFile(file.name, file.uri, os.fstat(handle.fileno()).st_size, digest, handle.pin, digest)
    except OSError:
        return file


class PinnedFile(io.FileIO):
    """A file that must stay as it is while it is open; closing raises SourceChanged when it did not.

    Attributes:
        pin: size and time of the last change, as they were when it was opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path
        self.pin = pin(path, os.fstat(self.fileno()))

    def digest(self) -> str:
        """SHA-256 of the content; afterwards the file stands at its start."""
        self.seek(0)
        digest = hashlib.sha256()
        while piece := self.read(DIGEST_BYTES):
            digest.update(piece)
        self.seek(0)
        return digest.hexdigest()

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
        if pin(self._path, now) != self.pin:
            return "was written to"
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return "was deleted"
        return "" if os.path.samestat(there, now) else "was replaced"


def pin(path: str, stat: os.stat_result) -> str:
    """What tells on every machine of a cluster that a file was not written to.

    Without the inode: machines may each have a copy.
    """
    return f"{stat.st_size}" if JOB_FOLDER in path else f"{stat.st_size} {stat.st_mtime_ns}"


def open_pinned(path: str, expected: str, digest: str) -> PinnedFile:
    """The file, if it is the one that was listed.

    Args:
        expected: its pin; empty takes any file.
        digest: its SHA-256, which counts more than the pin; empty when only the pin is known.
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
    is_same = bool(digest) and expected.partition(" ")[0] == file.pin.partition(" ")[0] and file.digest() == digest
    if not is_same:
        io.FileIO.close(file)  # what it is compared with is known already
        raise changed(path, "was written to")
    return file


def listed(path: str, stat: os.stat_result) -> SourceFile:
    """A file as it is known without opening it."""
    times = stat.st_mtime_ns, stat.st_ctime_ns
    tag = f"{stat.st_size} {times[0]} {times[1]} {stat.st_ino}"
    if times[1] % 10**9 == 0 and time.time() - stat.st_ctime < COARSE_S:
        tag += f" listed {time.time_ns()}"
    return SourceFile(path, path, stat.st_size, tag, pin(path, stat))


def _walk(path: str, is_deep: bool) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """All files below a folder, links followed; nothing where there is no folder, or a link leads nowhere."""
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                if entry.is_dir():
                    folders += [entry.path] if is_deep else []
                elif entry.is_file():
                    _refuse_no_text(entry.name, folder)
                    try:
                        yield entry, entry.stat()
                    except FileNotFoundError:  # deleted since
                        continue


def _refuse_no_text(name: str, folder: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="surrogateescape")
        raise DataError(
            f"data source {folder} holds a file whose name is no UTF-8 text: {shown!r}", "rename it"
        ) from None
