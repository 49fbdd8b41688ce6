"""IDX, MNIST's own format: big-endian header, then unsigned bytes; one file of images, one of labels.

Source: http://yann.lecun.com/exdb/mnist/ ("THE IDX FILE FORMAT").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import partial

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.reading import NO_MASKING, Masking, read_files
from raypipe.data.sources.files import SourceFile, find, read_bytes
from raypipe.errors import DataError
from raypipe.spec.sources import IdxSource

UNSIGNED_BYTE = 0x08


def files(source: IdxSource, root: str) -> list[SourceFile]:
    """The file of images, then the file of labels."""
    return [_one(source.images, "images", root), _one(source.labels, "labels", root)]


def read(source: IdxSource, root: str, parallelism: int | None, masking: Masking = NO_MASKING) -> ray.data.Dataset:
    """One row an image: `image` uint8 [H, W] and `label` uint8."""
    images, labels = files(source, root)
    return read_files([images], partial(read_pair, labels=labels), source, parallelism, masking)


def read_pair(images: SourceFile, *, labels: SourceFile) -> list[pa.Table]:
    """Both files as one table.

    Raises:
        DataError: damaged, not IDX, or the counts differ.
    """
    image_NHW = decode(read_bytes(images), images.name, num_dims=3)
    label_N = decode(read_bytes(labels), labels.name, num_dims=1)
    if len(image_NHW) != len(label_N):
        raise DataError(
            f"{images.name} has {len(image_NHW)} images but {labels.name} has {len(label_N)} labels",
            "name files that belong together in data.source",
        )
    return [pa.table({"image": ArrowTensorArray.from_numpy(image_NHW), "label": label_N})]


def decode(data: bytes, name: str, *, num_dims: int) -> np.ndarray:
    """The array of one IDX file, uint8 with `num_dims` dimensions; gzip is undone.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{name} is damaged: {error}", "download the file again") from None
    header_bytes = 4 + 4 * num_dims
    magic = bytes([0, 0, UNSIGNED_BYTE, num_dims])
    if data[:4] != magic:
        raise DataError(
            f"{name} starts with {data[:4].hex() or 'nothing'}; an IDX file of unsigned bytes in {num_dims} "
            f"dimension(s) starts with {magic.hex()}",
            "check that data.source.images and data.source.labels are not swapped",
        )
    if len(data) < header_bytes:
        raise DataError(f"{name} is damaged: it ends inside its header", "download the file again")
    shape = struct.unpack(f">{num_dims}I", data[4:header_bytes])
    expected = header_bytes + int(np.prod(shape, dtype=np.uint64))
    if len(data) != expected:
        raise DataError(
            f"{name} is damaged: its header says {shape}, that is {expected} bytes, but it has {len(data)}",
            "download the file again",
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape)


def _one(path: str, what: str, root: str) -> SourceFile:
    found = find(path, root, ("-ubyte", "-ubyte.gz", ".idx", ".gz"))
    if len(found) != 1:
        raise DataError(f"data.source.{what}: '{path}' matches {len(found)} files; it names one", "name one file")
    return found[0]
