"""Tensors of the Open Inference Protocol v2 <-> numpy arrays, for REST and gRPC alike; knows nothing of models.

What is said about a tensor (datatype, shape, length of its data) is checked before anything is allocated for it.
Numbers that come as bytes are looked at where they lie, and only read.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits
from raypipe.errors import RequestError
from raypipe.serve.schema import described, kind_of, shortened, shown

NUMBERS = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""Datatype -> numpy's name for it."""

TEXT, BF16 = "BYTES", "BF16"

DATATYPES = (*NUMBERS, BF16, TEXT)

OF_DTYPE = {dtype: datatype for datatype, dtype in NUMBERS.items()}
OF_TYPE = {np.dtype(object): TEXT, **{np.dtype(dtype): datatype for dtype, datatype in OF_DTYPE.items()}}
"""The same by numpy's own types, whose names take microseconds."""

MAX_DIMS = 32
"""numpy has 64 at most, and no column has as many."""

MAX_DIM = 2**63 - 1

MAX_VALUES = MAX_DIM // 16
"""numpy counts bytes in 64 bits, and where a dimension is 0 those of the others."""

IS_LITTLE_ENDIAN = sys.byteorder == "little"
"""Whether numbers here lie as the protocol sends them."""

LENGTH_BYTES = 4
"""Before each text of a BYTES tensor: how many bytes it has."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a client says about a tensor, as far as it can be true.

    Attributes:
        name: of the tensor.
        datatype: one of DATATYPES.
        shape: 1 to MAX_DIMS sizes, none negative; the first is the number of rows.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Values it must hold; may be larger than any memory."""
        return math.prod(self.shape)

    @property
    def where(self) -> str:
        """For messages."""
        return f"input {shown(self.name)}"


def said(name: Any, datatype: Any, shape: Any) -> Said:
    """Check what is said about a tensor.

    Raises:
        RequestError: 400.
    """
    if not isinstance(name, str) or not name:
        raise RequestError(f"the 'name' of an input must be a text; found {kind_of(name)}", "name it as the model does")
    where = f"input {shown(name)}"
    if datatype not in DATATYPES:
        close = difflib.get_close_matches(shown(datatype).strip("'").upper(), DATATYPES, n=1)
        raise RequestError(
            f"{where}: unknown datatype {shown(datatype)}",
            f"did you mean {close[0]}?" if close else f"the datatypes are {', '.join(DATATYPES)}",
        )
    if not isinstance(shape, list | tuple):
        raise RequestError(f"{where}: 'shape' must be a list of integers; found {kind_of(shape)}", "e.g. [1, 28, 28]")
    if not 1 <= len(shape) <= MAX_DIMS:
        raise RequestError(
            f"{where}: 'shape' has {len(shape)} dimensions; 1 to {MAX_DIMS} are read", "the first is the number of rows"
        )
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_DIM:
            raise RequestError(
                f"{where}: 'shape' holds {shown(size)}; each dimension must be an integer from 0 to {MAX_DIM}",
                "say how many rows there are: -1 stands for that in metadata only",
            )
    if math.prod(size or 1 for size in shape) > MAX_VALUES:
        raise RequestError(
            f"{where}: 'shape' {shape_of(shape)} says more than any memory holds", "say how many values are sent"
        )
    return Said(name, datatype, tuple(shape))


def from_bytes(tensor: Said, data: memoryview) -> NDArray[Any]:
    """Little-endian numbers, or texts with their length before each -> array of the tensor's shape.

    Args:
        data: contiguous bytes; numbers are not copied, so what is returned cannot be written to.
    Raises:
        RequestError: 400, the data are longer or shorter than the shape says, or hold what is none of the datatype.
    """
    if tensor.datatype == TEXT:
        return _texts(tensor, data).reshape(tensor.shape)
    if tensor.datatype == BF16:
        _check_num_bytes(tensor, 2, len(data))
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view(np.float32).reshape(tensor.shape)
    dtype = np.dtype(NUMBERS[tensor.datatype]).newbyteorder("<")
    _check_num_bytes(tensor, dtype.itemsize, len(data))
    if tensor.datatype == "BOOL":
        bits = np.frombuffer(data, np.uint8)
        if bits.size and bits.max() > 1:
            raise RequestError(f"{tensor.where}: found the byte {bits.max()}; a BOOL is the byte 0 or 1")
        return bits.view(bool).reshape(tensor.shape)
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def from_numbers(tensor: Said, values: Sequence[Any]) -> NDArray[Any]:
    """Numbers of one kind, as protobuf holds them -> array of the tensor's shape.

    Raises:
        RequestError: 400, as many as the shape says must be there, and fit the datatype.
    """
    check_num_values(tensor, len(values))
    dtype = NUMBERS[tensor.datatype]
    if dtype == "bool" or dtype.startswith("float"):
        return np.fromiter(values, dtype, len(values)).reshape(tensor.shape)
    found = np.fromiter(values, "uint64" if dtype == "uint64" else "int64", len(values))
    low, high = fits.limits(dtype)
    if found.size and (found.min() < low or found.max() > high):
        raise wrong_value(tensor, found.tolist())
    return found.astype(dtype).reshape(tensor.shape)


def from_texts(tensor: Said, values: Sequence[bytes]) -> NDArray[Any]:
    """UTF-8 texts -> objects of the tensor's shape.

    Raises:
        RequestError: 400, as `from_bytes`.
    """
    check_num_values(tensor, len(values))
    found = np.empty(len(values), object)
    found[:] = [_text(tensor, text, i) for i, text in enumerate(values)]
    return found.reshape(tensor.shape)


def to_bytes(values: NDArray[Any]) -> bytes:
    """Array -> little-endian numbers in row-major order, or texts with their length before each."""
    if values.dtype == object:
        texts = [text.encode() for text in values.ravel()]
        return b"".join(chain.from_iterable((len(text).to_bytes(LENGTH_BYTES, "little"), text) for text in texts))
    if not IS_LITTLE_ENDIAN:
        values = values.astype(values.dtype.newbyteorder("<"))
    return values.tobytes()


def datatype_of(values: NDArray[Any]) -> str:
    """BYTES for texts, else the name of the numbers."""
    return OF_TYPE[values.dtype]


def wrong_value(tensor: Said, flat: Sequence[Any]) -> RequestError:
    """The error for the first value that is none of the datatype."""
    for place, value in enumerate(flat):
        if not _is_one(value, tensor.datatype):
            at = np.unravel_index(place, tensor.shape)
            return RequestError(
                f"{tensor.where}: found {described(value)} at {[int(i) for i in at]}; {tensor.datatype} is expected",
                "send 'datatype' and 'data' that agree",
            )
    return RequestError(
        f"{tensor.where}: 'data' holds what is no {tensor.datatype}", "send 'datatype' and 'data' alike"
    )


def _is_one(value: Any, datatype: str) -> bool:
    if datatype == TEXT:
        return isinstance(value, str | None)
    dtype = NUMBERS[datatype]
    if dtype == "bool" or isinstance(value, bool):
        return dtype == "bool" and isinstance(value, bool)
    if value is None:
        return dtype.startswith("float")
    return isinstance(value, int | float) and fits.misfit(value, dtype) is None


def _texts(tensor: Said, data: memoryview) -> NDArray[Any]:
    if tensor.size > len(data) // LENGTH_BYTES:
        raise RequestError(
            f"{tensor.where}: {len(data)} bytes cannot hold the {_count(tensor)} texts of 'shape' {shape_text(tensor)}",
            f"before each text stand {LENGTH_BYTES} bytes with its length, little-endian",
        )
    texts: list[bytes] = []
    start = 0
    while start < len(data):
        stop = start + LENGTH_BYTES + int.from_bytes(data[start : start + LENGTH_BYTES], "little")
        if start + LENGTH_BYTES > len(data) or stop > len(data) or len(texts) == tensor.size:
            raise RequestError(
                f"{tensor.where}: text {len(texts)} of {_count(tensor)} does not end with the {len(data)} bytes",
                f"before each text stand {LENGTH_BYTES} bytes with its length, little-endian",
            )
        texts.append(bytes(data[start + LENGTH_BYTES : stop]))
        start = stop
    return from_texts(tensor, texts)


def _text(tensor: Said, text: bytes, place: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise RequestError(f"{tensor.where}: text {place} is no UTF-8", "send texts as UTF-8") from None


def check_num_values(tensor: Said, num: int) -> None:
    """Refuse data of more or fewer values than the shape says.

    Raises:
        RequestError: 400.
    """
    if num != tensor.size:
        raise RequestError(
            f"{tensor.where}: 'data' holds {num} values; 'shape' {shape_text(tensor)} says {_count(tensor)}",
            "make 'shape' and 'data' agree",
        )


def _check_num_bytes(tensor: Said, item_bytes: int, num: int) -> None:
    if num != tensor.size * item_bytes:
        raise RequestError(
            f"{tensor.where}: found {num} bytes; {tensor.datatype} of 'shape' {shape_text(tensor)} takes "
            f"{_count(tensor, item_bytes)}",
            "make 'shape', 'datatype' and the binary data agree",
        )


def _count(tensor: Said, factor: int = 1) -> str:
    count = tensor.size * factor
    return str(count) if count <= MAX_DIM else "more than any memory holds"


def shape_text(tensor: Said) -> str:
    """For messages."""
    return shape_of(tensor.shape)


def shape_of(sizes: Sequence[int]) -> str:
    """The same, of no tensor yet."""
    return shortened(f"[{', '.join(map(str, sizes))}]")
