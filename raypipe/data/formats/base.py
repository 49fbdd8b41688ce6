"""What a dataset format is: how the files that a source names become tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import ray.data

from raypipe.data.formats.datasource import BLOCK_BYTES, FilesDatasource, ReadPart
from raypipe.data.formats.parts import FileRange, Part, as_range
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import SourceFile

OPENED_AT_ONCE = 16
"""Large files whose footers the driver looks at; each takes a bucket a request or two."""


class Wanted(NamedTuple):
    """What a spec wants of the columns of its files, as far as it is known before they are read.

    Attributes:
        targets: columns that must be there.
        names: columns that matter; None: all.
        as_text: columns whose text is taken as it is written, where they hold text.
        as_numbers: columns of whole numbers that are known to be dates.
    """

    targets: Sequence[str] = ()
    names: frozenset[str] | None = None
    as_text: frozenset[str] = frozenset()
    as_numbers: frozenset[str] = frozenset()

    def matters(self, name: str) -> bool:
        return self.names is None or name in self.names


ANYTHING = Wanted()
"""Nothing is known of what the columns are for."""


class Format(ABC):
    """One variant of `data.source`; each method takes that spec as `source`.

    Attributes:
        slow_imports: modules that it needs and that take long to import; who has time to wait may do it before.
    """

    slow_imports: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def plan(
        self, source: Any, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        """What is read at once, in order of the rows, and the function that does it.

        A part is a file, a range of a large one, or small ones together.  The function travels to the tasks.
        """

    def recognised(
        self, sources: Sequence[Any], root: str, masking: Masking, wanted: Wanted, like: Any
    ) -> tuple[Any, list[str]]:
        """The first source with what the files of all of them tell of how they are read, and lines that say so.

        Args:
            sources: that differ in their files alone.
            wanted: what the spec wants of their columns.
            like: a source of the same format and data set, which tells what these files leave open; or None.
        Raises:
            DataError: the files need a setting that is not given.
        """
        del root, masking, wanted, like
        return sources[0], []

    def read(
        self, source: Any, root: str, parallelism: int | None, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> ray.data.Dataset:
        """A lazy dataset of all rows, in order of the files.

        Args:
            parallelism: blocks to read into; None lets the sizes of the files decide.
            masking: applied before rows leave the task that reads them.
            is_judged: whether the caller looks at what all blocks say of their columns (marks.py); else a column that
                cannot be read, or is not there, stops the reading.
        Raises:
            DataError: the source is not there, or what is looked at first is not as `source` says.
        """
        tables = self.tables_in_memory(source, root, parallelism, masking, is_judged)
        if tables is not None:
            return ray.data.from_blocks(tables)
        parts, read_part = self.plan(source, root, masking, is_judged)
        return FilesDatasource(parts, read_part, source, masking, is_judged).dataset(parallelism)

    def tables_in_memory(
        self, source: Any, root: str, parallelism: int | None, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> list[pa.Table] | None:
        """All rows, as `read` gives them, where they are in this process with next to no reading: None mostly.

        Ray Data starts two processes of its own to bring rows.
        """
        del source, root, parallelism, masking, is_judged
        return None

    def rows_per_byte(self, part: Any, source: Any) -> float | None:
        """Of a part whose rows nobody counted, from 1 MiB of it at most; None where that tells nothing."""
        del part, source
        return None

    def estimated_rows(self, files: FilesDatasource, source: Any) -> int | None:
        """About how many rows there are that nothing read yet; None where only reading tells."""
        counts = [part.num_rows for part in files.parts]
        if None not in counts:
            return sum(count or 0 for count in counts)
        rows_per_byte = self.rows_per_byte(files.parts[0], source)
        return None if rows_per_byte is None or files.num_bytes is None else int(files.num_bytes * rows_per_byte)


class FileFormat(Format):
    """A format whose files are tables, each by itself."""

    def plan(
        self, source: Any, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[FileRange], ReadPart[Any]]:
        files = list_files(source, root)
        divide = partial(self.divided, source=source)
        if all(file.size_bytes is None or file.size_bytes <= BLOCK_BYTES for file in files):
            divided = [divide(file) for file in files]  # none of them is opened
        else:
            with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
                divided = list(pool.map(divide, files))
        return [part for parts in divided for part in parts], partial(self.read_file, source=source)

    def divided(self, file: SourceFile, source: Any) -> list[FileRange]:
        """A file in ranges that several tasks can read; whole where it is not large, or cannot be divided."""
        del source
        return [as_range(file)]

    @abstractmethod
    def read_file(self, part: FileRange | SourceFile, *, source: Any) -> Iterable[pa.Table]:
        """One file or a range of it, in tables of bounded size; raises DataError where it is not of the format."""
