"""Formats where each file is a row, read some files at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.base import Format
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.labels import LABEL, FileRow, rows_of
from raypipe.data.formats.parts import Part
from raypipe.data.formats.sidecars import Sidecars, read_sidecars
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import UnreadableFile, read_bytes
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import BAD, Notes, noted, summed, with_notes
from raypipe.errors import RaypipeError
from raypipe.spec.labels import LabelSpec, SidecarLabel
from raypipe.spec.sources import FolderSource

BATCH_BYTES = 16 * 2**20
"""Size in memory of the rows that are read together."""

BATCH_FILES = 256

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is a bad row."""


class Decoded(NamedTuple):
    """What one file holds.

    Attributes:
        notes: what is worth telling of how it was read, behind the words `3 pictures`, say.
    """

    values: np.ndarray
    notes: Sequence[str] = ()


Decode = Callable[[bytes], Decoded]
"""Bytes of a file -> what it holds; raises whatever it likes over bytes that are not what they should be."""


@dataclass(frozen=True)
class FileRows:
    """Some files that are read together."""

    rows: tuple[FileRow, ...]
    label: LabelSpec = field(default_factory=LabelSpec)
    notes: Notes = field(default_factory=dict)
    """What is worth telling of how files were chosen."""

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def num_files(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        return self.rows[0].file.name

    @property
    def size_bytes(self) -> int | None:
        sizes = [row.file.size_bytes for row in self.rows]
        return None if None in sizes else sum(size or 0 for size in sizes)


@dataclass(frozen=True)
class RowReader:
    """Reads some files as one table: decoded values, label, file; a file that cannot be decoded is a bad row.

    Attributes:
        column: name of the column of decoded values, each `dtype` of `shape`.
        decode: a module-level function or a partial of one.
        files: what several of the files are called.
    """

    column: str
    shape: tuple[int, ...]
    dtype: str
    decode: Decode
    files: str = "files"

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __call__(self, part: FileRows) -> Iterator[pa.Table]:
        values = np.zeros((len(part.rows), *self.shape), self.dtype)
        reasons: list[str | None] = []
        beside = columns_of(part.rows, part.label)
        notes: Notes = {}
        for i, row in enumerate(part.rows):
            problem = beside.problems[i]
            if problem is None:
                decoded = _tried(row.file, self.decode)
                if isinstance(decoded, str):
                    problem = decoded
                else:
                    values[i] = decoded.values
                    noted(notes, [f"{self.files} {note}" for note in decoded.notes], row.name)
            reasons.append(None if problem is None else f"{row.name}: {problem}")
        table = pa.table(
            {
                self.column: ArrowTensorArray.from_numpy(values),
                **{name: beside.columns[name] for name in beside.columns.column_names},
                "file": pa.array([row.name for row in part.rows], pa.string()),
            }
        )
        table = with_notes(table, summed([part.notes, notes]))
        yield table.append_column(BAD, pa.array(reasons, pa.string())) if any(reasons) else table


class FolderFormat(Format):
    """A format where each file is a row."""

    def plan(
        self, source: FolderSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        notes: Notes = {}
        rows = rows_of(source, root, masking, notes)
        reader = self.row_reader(source, rows)
        step = max(1, min(BATCH_FILES, BATCH_BYTES // reader.row_bytes))
        parts = [FileRows(tuple(rows[i : i + step]), source.label) for i in range(0, len(rows), step)]
        return [replace(parts[0], notes=notes), *parts[1:]], reader

    @abstractmethod
    def row_reader(self, source: Any, rows: list[FileRow]) -> RowReader:
        """How these files become values of one shape. Raises DataError where they cannot."""


def columns_of(rows: Sequence[FileRow], label: LabelSpec) -> Sidecars:
    """Label and further columns of some files."""
    if isinstance(label, SidecarLabel):
        return read_sidecars(rows, label)
    columns = {LABEL: pa.array([row.label for row in rows], pa.string())}
    for name in dict.fromkeys(name for row in rows for name in row.columns):
        values = [row.values[row.columns.index(name)] if name in row.columns else None for row in rows]
        columns[name] = pa.array(values)
    return Sidecars(pa.table(columns), [row.problem for row in rows])


def first_readable(rows: list[FileRow], decode: Decode) -> tuple[FileRow, np.ndarray] | None:
    """The first file that can be decoded, and its values; None where none can."""
    for row in rows:
        decoded = _tried(row.file, decode) if row.problem is None else ""
        if not isinstance(decoded, str):  # else it will be a bad row, with the reason
            return row, decoded.values
    return None


def _tried(file: SourceFile, decode: Decode) -> Decoded | str:
    """What a file holds, or why it cannot be read.

    Raises:
        RaypipeError: the storage failed, or the source changed: it is not the file that is wrong.
        MemoryError: nor here.
    """
    try:
        return _decoded(file, decode)
    except UnreadableFile as error:
        return error.message
    except (RaypipeError, MemoryError):
        raise
    except Exception as error:  # decoders fail over damaged bytes in every way there is: no list of types is complete
        return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__


def _decoded(file: SourceFile, decode: Decode) -> Decoded:
    if (file.size_bytes or 0) > MAX_FILE_BYTES:
        raise ValueError(f"has {file.size_bytes} bytes; {MAX_FILE_BYTES} are allowed")
    return decode(read_bytes(file))
