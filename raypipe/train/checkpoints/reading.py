"""A checkpoint read back: by any number of ranks, each just the blocks its slices lie in, every byte checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from raypipe.errors import CheckpointError, DigestMismatch
from raypipe.storage import Store, layout
from raypipe.storage.documents import RESTORE
from raypipe.storage.publish import read_published, sha256
from raypipe.train.checkpoints.index import (
    BLOCK_BYTES,
    FORMAT,
    INDEX,
    Index,
    Part,
    StoredSpan,
    TrainState,
    first_gap,
)
from raypipe.train.checkpoints.spans import DTYPES, Span, num_elements

READ_BLOCKS = 8
"""Blocks that one request fetches at most: what a rank holds beside its tensors."""


class StoredTensor(NamedTuple):
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class StoredCheckpoint:
    """A complete checkpoint: its state is read, its tensors are fetched when asked for.

    Attributes:
        where: full URI, for messages.
        tensors: by name.
        world_size: workers that wrote it.
        num_shares: that the rows of an epoch were cut into where workers are elastic; None: one a worker.
    """

    def __init__(self, store: Store, prefix: str, index: Index, state: TrainState) -> None:
        self.where = f"{store.uri}/{prefix}"
        self.state, self.world_size = state, index.world_size
        self.num_shares = index.num_shares
        self.tensors = {
            name: StoredTensor(DTYPES[span.dtype], span.shape)
            for part in index.parts
            for name, span in part.spans.items()
        }
        self._store, self._prefix, self._parts = store, prefix, index.parts

    @property
    def is_in_mid_epoch(self) -> bool:
        """Whether rows of the epoch under way were seen already: which, follows from the number of shares."""
        return self.state.epoch_step > 0

    def read(self, prefix: str = "") -> dict[str, Tensor]:
        """Whole tensors whose names start with `prefix`, which is left out of the names returned; on the CPU."""
        found = {
            name: torch.empty(each.shape, dtype=each.dtype)
            for name, each in self.tensors.items()
            if name.startswith(prefix)
        }
        self.read_into({name: Span(tensor, tuple(tensor.shape)) for name, tensor in found.items()})
        return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

    def read_into(self, spans: Mapping[str, Span]) -> None:
        """Fill the spans' values, whatever spans were written.

        Raises:
            CheckpointError: it has no such tensor, or one of another shape or dtype: it belongs to another model.
            DigestMismatch, ObjectMissing: what was asked for is damaged, or not there.
        """
        self.check_holds({name: StoredTensor(span.values.dtype, tuple(span.shape)) for name, span in spans.items()})
        direct = {name: _flat(span.values) for name, span in spans.items()}
        for part in self._parts:
            self._fill(part, spans, direct)
        for name, span in spans.items():
            if direct[name].data_ptr() != span.values.data_ptr():
                span.values.copy_(direct[name].view(span.values.shape))

    def check_holds(self, wanted: Mapping[str, StoredTensor]) -> None:
        """Raises CheckpointError where a tensor is not there, or of another shape or dtype."""
        for name, tensor in wanted.items():
            stored = self.tensors.get(name)
            if stored != tensor:
                what = f"no {name}" if stored is None else f"{name} as {_described(stored)}"
                raise CheckpointError(
                    f"{self.where} holds {what}, and {_described(tensor)} is needed: it is of another model",
                    "start a new run (without --resume), or give back the model of that run",
                )

    def _fill(self, part: Part, spans: Mapping[str, Span], direct: Mapping[str, Tensor]) -> None:
        overlaps: list[_Overlap] = []
        for name, stored in part.spans.items():
            if name in spans:
                start = max(stored.start, spans[name].start)
                stop = min(stored.start + stored.count, spans[name].stop)
                if start < stop:
                    size = DTYPES[stored.dtype].itemsize
                    begin = stored.offset_bytes + (start - stored.start) * size
                    into = direct[name][start - spans[name].start : stop - spans[name].start].view(torch.uint8)
                    overlaps.append(_Overlap(begin, begin + (stop - start) * size, into))
        overlaps.sort(key=lambda overlap: overlap.begin)
        for first, last in _runs_of_blocks(overlaps):
            data = self._read_blocks(part, first, last)
            read_from = first * BLOCK_BYTES
            for begin, end, into in overlaps:
                low, high = max(begin, read_from), min(end, read_from + len(data))
                if low < high:
                    some = torch.frombuffer(data, dtype=torch.uint8, count=high - low, offset=low - read_from)
                    into[low - begin : high - begin] = some

    def _read_blocks(self, part: Part, first: int, last: int) -> bytearray:
        """Blocks [first, last) of a part, checked."""
        start, stop = first * BLOCK_BYTES, min(last * BLOCK_BYTES, part.size_bytes)
        key = f"{self._prefix}/{part.object}"
        data = bytearray(self._store.read_range(key, start, stop))
        view = memoryview(data)
        for block in range(first, last):
            some = view[(block - first) * BLOCK_BYTES : (block - first + 1) * BLOCK_BYTES]
            if len(data) != stop - start or sha256(some) != part.blocks[block]:
                raise DigestMismatch(
                    f"{self._store.uri}/{key} is damaged: bytes {start} to {stop} are not those that were written",
                    RESTORE,
                )
        return data


class _Overlap(NamedTuple):
    """Bytes [begin, end) of a part, and where they go."""

    begin: int
    end: int
    into: Tensor


def _flat(values: Tensor) -> Tensor:
    """The values' own memory as one row where that can be, else memory to be copied from."""
    if values.device.type == "cpu" and values.is_contiguous():
        return values.detach().view(-1)
    return torch.empty(values.numel(), dtype=values.dtype)


def _described(tensor: StoredTensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _runs_of_blocks(overlaps: list[_Overlap]) -> Iterator[tuple[int, int]]:
    """The blocks that are needed, in runs [first, last) that one request fetches."""
    run: tuple[int, int] | None = None
    for begin, end, _ in overlaps:
        for block in range(begin // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1):
            if run is None:
                run = block, block + 1
            elif block == run[1] and block - run[0] < READ_BLOCKS:
                run = run[0], block + 1
            elif block >= run[1]:
                yield run
                run = block, block + 1
    if run is not None:
        yield run


def open_checkpoint(store: Store, run_id: str, step: int, fingerprint: str) -> StoredCheckpoint:
    """One checkpoint, its index checked.

    Raises:
        DigestMismatch, ObjectMissing: it is damaged, or not there.
        CheckpointError: it belongs to a training with other settings, or another version of raypipe wrote it.
    """
    prefix = layout.checkpoint(run_id, step)
    where, index = f"{store.uri}/{prefix}", read_index(store, prefix)
    state = _state(index, where)
    if state.fingerprint != fingerprint:
        raise CheckpointError(
            f"{where} belongs to a training with other settings",
            "start a new run (without --resume), or give back the settings of that run",
        )
    if wrong := first_gap(index.parts):
        raise DigestMismatch(f"{where}/{INDEX} is damaged: {wrong}", RESTORE)
    return StoredCheckpoint(store, prefix, index, state)


def read_index(store: Store, prefix: str) -> Index:
    """What a checkpoint says about itself. Raises as `open_checkpoint`."""
    where = f"{store.uri}/{prefix}"
    files = read_published(store, prefix)
    if INDEX not in files:
        raise _of_another_version(where, f"{INDEX} is missing or not known here")
    return _index(files[INDEX], where)


def _index(data: bytes, where: str) -> Index:
    found = json.loads(data)
    version = found.get("format") if isinstance(found, dict) else None
    if version != FORMAT:
        raise _of_another_version(where, f"its format is {str(version)[:20]}, and {FORMAT} is known here")
    try:
        index = Index.model_validate(found)
    except ValidationError as error:
        raise _of_another_version(where, f"{INDEX} has another form ({error.error_count()} fields)") from None
    for part in index.parts:
        for name, span in part.spans.items():
            if not _is_possible(span, part):
                raise DigestMismatch(f"{where}/{INDEX} is damaged: {name} lies outside of its part", RESTORE)
    return index


def _is_possible(span: StoredSpan, part: Part) -> bool:
    if span.dtype not in DTYPES or len(part.blocks) != -(-part.size_bytes // BLOCK_BYTES):
        return False
    end_bytes = span.offset_bytes + span.count * DTYPES[span.dtype].itemsize
    is_within = span.start >= 0 and span.count >= 0 and span.start + span.count <= num_elements(span.shape)
    return is_within and span.offset_bytes >= 0 and end_bytes <= part.size_bytes and "/" not in part.object


def _state(index: Index, where: str) -> TrainState:
    known = {each.name for each in fields(TrainState)}
    differing = [*sorted(known - index.state.keys()), *sorted(index.state.keys() - known)]
    if differing:
        what = ", ".join(f"state.{name}" for name in differing)
        raise _of_another_version(where, f"{what} is missing or not known here")
    return TrainState(**index.state)


def _of_another_version(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where} was written by another version of raypipe: {what}",
        "start a new run (without --resume), or resume with the raypipe that began this one",
    )
