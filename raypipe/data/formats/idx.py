"""IDX, MNIST's own format: big-endian header, then unsigned bytes; one file of images, one of labels.

Source: http://yann.lecun.com/exdb/mnist/ ("THE IDX FILE FORMAT").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.base import Format
from raypipe.data.formats.datasource import ReadPart
from raypipe.data.formats.parts import Part
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.files import read_bytes
from raypipe.data.sources.listing import list_files
from raypipe.data.sources.place import SourceFile
from raypipe.errors import DataError
from raypipe.spec.sources import IdxSource

UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class Pair:
    """The two files that are one data set."""

    images: SourceFile
    labels: SourceFile

    @property
    def name(self) -> str:
        return self.images.name

    @property
    def size_bytes(self) -> int | None:
        return self.images.size_bytes

    @property
    def num_rows(self) -> int | None:
        return None

    @property
    def num_files(self) -> int:
        return 2


class Idx(Format):
    """One row an image: `image` uint8 [H, W] and `label` uint8."""

    def plan(
        self, source: IdxSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        images, labels = list_files(source, root)
        return [Pair(images, labels)], read_pair


def read_pair(pair: Pair) -> list[pa.Table]:
    """Both files as one table.

    Raises:
        DataError: damaged, not IDX, or the counts differ.
    """
    images, labels = pair.images, pair.labels
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
