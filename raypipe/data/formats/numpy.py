"""NumPy arrays: an array is a column and its first axis are the rows; nothing is ever unpickled.

N rows.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.base import Format
from raypipe.data.formats.datasource import BLOCK_BYTES, ReadPart
from raypipe.data.formats.parts import FileRange, Part, as_range, readable
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import open_file
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import SourceFile
from raypipe.data.table.names import needed, unusable_names, usable
from raypipe.errors import DataError
from raypipe.spec.endings import has_ending
from raypipe.spec.sources import NumpySource

HINT = "write it again with numpy.save or numpy.savez, or fetch a good copy"


@dataclass(frozen=True)
class Header:
    """What stands before the values of an array.

    Attributes:
        shape: [N, ...].
        offset: where the values begin, in bytes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    offset: int

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class ArrayRows:
    """Rows [start, stop) of arrays that are files of their own."""

    arrays: Mapping[str, tuple[SourceFile, Header]]
    start: int
    stop: int

    @property
    def name(self) -> str:
        return next(iter(self.arrays.values()))[0].name

    @property
    def num_rows(self) -> int:
        return self.stop - self.start

    @property
    def num_files(self) -> int:
        return len(self.arrays)

    @property
    def size_bytes(self) -> int:
        return self.num_rows * sum(header.row_bytes for _, header in self.arrays.values())


class Numpy(Format):
    """`.npy` files are divided by rows, an `.npz` file is not."""

    def plan(
        self, source: NumpySource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        files = list_files(source, root)
        if source.path is not None:
            for file in files:
                if has_ending(file.uri, ".npy"):
                    raise DataError(
                        f"data.source.path: {file.name} holds one array without a name",
                        f"write data.source.arrays: {{x: {file.name}}}",
                    )
            return [as_range(file) for file in files], partial(read_archive, source=source)
        return parts(dict(zip(source.arrays, files, strict=True))), partial(read_arrays, source=source)


def parts(files: Mapping[str, SourceFile]) -> list[ArrayRows]:
    """Ranges of rows of about BLOCK_BYTES.

    Args:
        files: column -> its `.npy` file.
    """
    arrays = {name: (file, _file_header(file)) for name, file in files.items()}
    num_rows = _num_rows({file.name: header for file, header in arrays.values()})
    row_bytes = sum(header.row_bytes for _, header in arrays.values())
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [ArrayRows(arrays, a, min(a + step, num_rows)) for a in range(0, max(1, num_rows), step)]


def read_arrays(part: ArrayRows, *, source: NumpySource) -> Iterator[pa.Table]:
    """Some rows of `.npy` files."""
    columns: dict[str, Any] = {}
    for name, (file, header) in _wanted(part.arrays, source, part.name).items():
        with readable(file.name, "a NumPy array", HINT), open_file(file) as handle:
            if header.is_fortran and len(header.shape) > 1:  # its rows do not lie together
                handle.seek(header.offset)
                whole = _values(handle, header, header.shape[0], file.name)
                columns[name] = _column(np.ascontiguousarray(whole[part.start : part.stop]))
            else:
                handle.seek(header.offset + part.start * header.row_bytes)
                columns[name] = _column(_values(handle, header, part.stop - part.start, file.name))
    yield pa.table(columns)


def read_archive(part: FileRange | SourceFile, *, source: NumpySource) -> Iterator[pa.Table]:
    """All rows of an `.npz` file, some megabytes at a time.

    Raises:
        DataError: damaged, arrays of different length, or something else than arrays in it.
    """
    file = as_range(part).file
    with readable(file.name, "NumPy arrays", HINT), open_file(file) as handle, ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(handle))
        others = [name for name in archive.namelist() if not name.endswith(".npy")]
        if others:
            raise DataError(f"{file.name} holds '{others[0]}', which is no array", HINT)
        streams: dict[str, BinaryIO] = {}
        headers: dict[str, Header] = {}
        for member in archive.namelist():
            stream: Any = stack.enter_context(archive.open(member))
            name = member.removesuffix(".npy")
            streams[name], headers[name] = stream, _header(stream, f"{file.name}: array '{name}'")
        num_rows = _num_rows({f"{file.name}: array '{name}'": header for name, header in headers.items()})
        headers = _wanted(headers, source, file.name)
        whole = {
            name: _values(streams[name], header, num_rows, file.name)
            for name, header in headers.items()
            if header.is_fortran and len(header.shape) > 1
        }
        step = max(1, BLOCK_BYTES // max(1, sum(header.row_bytes for header in headers.values())))
        for start in range(0, max(1, num_rows), step):
            stop = min(start + step, num_rows)
            columns = {
                name: whole[name][start:stop] if name in whole else _values(streams[name], header, stop - start, name)
                for name, header in headers.items()
            }
            yield pa.table({name: _column(np.ascontiguousarray(values)) for name, values in columns.items()})


def _wanted(arrays: Mapping[str, Any], source: NumpySource, file: str) -> dict[str, Any]:
    names = usable(needed(source), list(arrays), unusable_names(list(arrays)), source, file)
    return {name: arrays[name] for name in names}


def _file_header(file: SourceFile) -> Header:
    with readable(file.name, "a NumPy array", HINT), open_file(file) as handle:
        header = _header(handle, file.name)
        expected = header.offset + header.row_bytes * header.shape[0]
        if handle.size() != expected:
            raise DataError(
                f"{file.name} is damaged: its header says {header.shape} of {header.dtype}, that is {expected} bytes, "
                f"but it has {handle.size()}",
                HINT,
            )
        return header


def _header(stream: Any, name: str) -> Header:
    """The header of an array; the stream then stands at its values.

    Raises:
        ValueError: there is none.
        DataError: the array cannot be a column.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{name} has version {version} of NumPy's format, which is for structured arrays", HINT)
    read_header: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(
            f"{name} holds Python objects, which can carry code and are never opened; an array holds numbers, text "
            "or true/false",
            "write it again with a dtype, e.g. numpy.asarray(rows, dtype='float32')",
        )
    if dtype.kind not in "biufUM" or dtype.itemsize == 0:
        raise DataError(f"{name} holds {dtype}; an array holds numbers, text or true/false", HINT)
    if not shape:
        raise DataError(f"{name} holds one value; its first axis must be the rows", HINT)
    return Header(dtype, tuple(int(size) for size in shape), bool(is_fortran), int(stream.tell()))


def _num_rows(headers: Mapping[str, Header]) -> int:
    sizes = {name: header.shape[0] for name, header in headers.items()}
    if not sizes:
        raise DataError("data.source holds no array", HINT)
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise DataError(
            f"arrays of one source have equally many rows, but {lengths}", "name arrays that belong together"
        )
    return next(iter(sizes.values()))


def _values(stream: Any, header: Header, num_rows: int, name: str) -> np.ndarray:
    """The next rows of an array."""
    num_bytes = num_rows * header.row_bytes
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise DataError(f"{name} is damaged: it ends {num_bytes - len(data)} bytes too early", HINT)
    order = "F" if header.is_fortran else "C"
    values = np.frombuffer(data, header.dtype).reshape((num_rows, *header.shape[1:]), order=order)
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def _column(values: np.ndarray) -> Any:
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return ArrowTensorArray.from_numpy(values) if values.ndim > 1 else pa.array(values)
