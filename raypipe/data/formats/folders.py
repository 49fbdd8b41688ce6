"""Formats where each file is a row, read some files at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.base import Format
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.labels import FileRow, rows_of
from raypipe.data.formats.parts import Part
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import UnreadableFile, read_bytes
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.marks import BAD
from raypipe.errors import RaypipeError
from raypipe.spec.sources import FolderSource

BATCH_BYTES = 16 * 2**20
"""Size in memory of the rows that are read together."""

BATCH_FILES = 256

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is a bad row."""

Decode = Callable[[bytes], np.ndarray]
"""Bytes of a file -> its values; raises whatever it likes over bytes that are not what they should be."""


@dataclass(frozen=True)
class FileRows:
    """Some files that are read together."""

    rows: tuple[FileRow, ...]

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
    """

    column: str
    shape: tuple[int, ...]
    dtype: str
    decode: Decode

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __call__(self, part: FileRows) -> Iterator[pa.Table]:
        values = np.zeros((len(part.rows), *self.shape), self.dtype)
        reasons: list[str | None] = []
        for i, row in enumerate(part.rows):
            problem = row.problem
            if problem is None:
                try:
                    values[i] = _decoded(row.file, self.decode)
                except UnreadableFile as error:
                    problem = error.message
                except RaypipeError:
                    raise  # the storage failed, not the file
                except Exception as error:  # decoders fail in every way there is: no list of types is complete
                    problem = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
            reasons.append(None if problem is None else f"{row.name}: {problem}")
        table = pa.table(
            {
                self.column: ArrowTensorArray.from_numpy(values),
                "label": pa.array([row.label for row in part.rows], pa.string()),
                "file": pa.array([row.name for row in part.rows], pa.string()),
            }
        )
        yield table.append_column(BAD, pa.array(reasons, pa.string())) if any(reasons) else table


class FolderFormat(Format):
    """A format where each file is a row."""

    def plan(
        self, source: FolderSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        rows = rows_of(source, root, masking)
        reader = self.row_reader(source, rows)
        step = max(1, min(BATCH_FILES, BATCH_BYTES // reader.row_bytes))
        return [FileRows(tuple(rows[i : i + step])) for i in range(0, len(rows), step)], reader

    @abstractmethod
    def row_reader(self, source: Any, rows: list[FileRow]) -> RowReader:
        """How these files become values of one shape. Raises DataError where they cannot."""


def first_readable(rows: list[FileRow], decode: Decode) -> tuple[FileRow, np.ndarray] | None:
    """The first file that can be decoded, and its values; None where none can."""
    for row in rows:
        if row.problem is None:
            try:
                return row, _decoded(row.file, decode)
            except UnreadableFile:
                continue
            except RaypipeError:
                raise
            except Exception:
                continue  # it will be a bad row, with the reason
    return None


def _decoded(file: SourceFile, decode: Decode) -> np.ndarray:
    if (file.size_bytes or 0) > MAX_FILE_BYTES:
        raise ValueError(f"has {file.size_bytes} bytes; {MAX_FILE_BYTES} are allowed")
    return decode(read_bytes(file))
