"""What one rank holds of a tensor: a run of its elements. So written, sharded and equal tensors are one case.

FSDP cuts tensors along their first dimension; rows that follow each other are one run of elements in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""As safetensors calls them."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Span(NamedTuple):
    """A run of elements of one tensor.

    Attributes:
        values: the elements, of any shape and on any device.
        shape: of the whole tensor.
        start: which element of the whole, in row-major order, the first of `values` is.
    """

    values: Tensor
    shape: tuple[int, ...]
    start: int = 0

    @property
    def stop(self) -> int:
        """Behind the last element."""
        return self.start + self.values.numel()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Span]:
    """Tensors as spans that are all of them."""
    return {name: Span(tensor.detach(), tuple(tensor.shape)) for name, tensor in tensors.items()}


def cut(tensors: Mapping[str, Tensor], rank: int, size: int) -> dict[str, Span]:
    """What rank `rank` of `size` writes of tensors that all ranks hold alike, an equal share of their bytes.

    Args:
        tensors: the same names, shapes and dtypes on every rank.
    """
    total = sum(tensor.nbytes for tensor in tensors.values())
    first, last = total * rank // size, total * (rank + 1) // size
    spans: dict[str, Span] = {}
    before = 0
    for name, tensor in sorted(tensors.items()):
        # An element belongs to the rank in whose share its first byte lies.
        start, stop = (
            min(max(-(-(border - before) // tensor.itemsize), 0), tensor.numel()) for border in (first, last)
        )
        before += tensor.nbytes
        if stop - start == tensor.numel() and (tensor.numel() or rank == 0):
            spans[name] = Span(tensor.detach(), tuple(tensor.shape))
        elif stop > start:
            spans[name] = Span(tensor.detach().reshape(-1)[start:stop], tuple(tensor.shape), start)
    return spans


def num_elements(shape: tuple[int, ...]) -> int:
    """Of a tensor of this shape; 1 of a scalar."""
    return math.prod(shape)
