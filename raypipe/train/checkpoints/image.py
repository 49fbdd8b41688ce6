"""The bytes of a part in memory, laid out as its safetensors file: copied once, and sent as they lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from raypipe.errors import ModelError
from raypipe.train.checkpoints.index import StoredSpan
from raypipe.train.checkpoints.spans import DTYPE_NAMES, DTYPES, Span, num_elements

ALIGN_BYTES = 64
"""Where data begins; larger values come first, so each lies at a multiple of its own size."""


class PartImage:
    """A host buffer that is used again for every checkpoint, until other spans are asked of it.

    Attributes:
        spans: what lies where, once `take` was called.
    """

    def __init__(self) -> None:
        self.spans: dict[str, StoredSpan] = {}
        self._laid_out_for: tuple[Any, ...] = ()
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._copied: Any = None

    @property
    def data(self) -> memoryview:
        """The file; wait for the copy before it is read."""
        return memoryview(cast(Any, self._buffer.numpy()))

    def take(self, spans: Mapping[str, Span], device: torch.device) -> None:
        """Copy spans in; from a GPU without waiting, in order with the steps that follow on this thread's stream.

        Raises:
            ModelError: a tensor has a dtype that no safetensors file can hold.
        """
        wanted = tuple((name, v.dtype, v.numel(), shape, start) for name, (v, shape, start) in spans.items())
        if wanted != self._laid_out_for:
            self._lay_out(spans, device)
            self._laid_out_for = wanted
        for name, span in spans.items():
            self._place(self.spans[name]).view(span.values.shape).copy_(span.values, non_blocking=True)
        if device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> None:
        """Until everything was copied."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None

    def _lay_out(self, spans: Mapping[str, Span], device: torch.device) -> None:
        self.spans = _laid_out(spans)
        header = _header(self.spans)
        size = max((_end(span) for span in self.spans.values()), default=len(header))
        self._buffer = torch.empty(0, dtype=torch.uint8)  # never two of them at a time
        self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._buffer[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)

    def _place(self, span: StoredSpan) -> Tensor:
        return self._buffer[span.offset_bytes : _end(span)].view(DTYPES[span.dtype])


def _end(span: StoredSpan) -> int:
    return span.offset_bytes + span.count * DTYPES[span.dtype].itemsize


def _laid_out(spans: Mapping[str, Span]) -> dict[str, StoredSpan]:
    for name, span in spans.items():
        if span.values.dtype not in DTYPE_NAMES:
            raise ModelError(
                f"{name} is of {span.values.dtype}, which a checkpoint cannot hold",
                f"use one of {', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPE_NAMES)}",
            )
    ordered = sorted(spans.items(), key=lambda each: (-each[1].values.itemsize, each[0]))
    layout = _placed(ordered, 0)
    return _placed(ordered, len(_header(layout)))


def _placed(ordered: list[tuple[str, Span]], offset: int) -> dict[str, StoredSpan]:
    layout: dict[str, StoredSpan] = {}
    for name, (values, shape, start) in ordered:
        layout[name] = StoredSpan(
            dtype=DTYPE_NAMES[values.dtype], shape=shape, start=start, count=values.numel(), offset_bytes=offset
        )
        offset += values.nbytes
    return layout


def _header(layout: Mapping[str, StoredSpan]) -> bytes:
    """As safetensors has it: the length of a JSON text, and the text, with offsets that count from behind it."""
    first = min((span.offset_bytes for span in layout.values()), default=0)
    described = {
        name: {
            "dtype": span.dtype,
            "shape": span.shape if span.count == num_elements(span.shape) else [span.count],
            "data_offsets": [span.offset_bytes - first, _end(span) - first],
        }
        for name, span in layout.items()
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGN_BYTES)
    return len(text).to_bytes(8, "little") + text
