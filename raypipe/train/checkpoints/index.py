"""What a checkpoint says about itself: which tensors it holds, where their bytes lie, and where the training stood.

    step-00000340/part-0-of-2-4f1c09aa.safetensors    what rank 0 of 2 wrote
    step-00000340/part-1-of-2-4f1c09aa.safetensors
    step-00000340/part-1-of-2-4f1c09aa.json           rank 1's receipt: its part is whole; rank 0 puts it into the index
    step-00000340/index-4f1c09aa.json                 the train state and every part
    step-00000340/manifest.json                       names the index and its digest; written last

The token (4f1c09aa) is of one attempt at a training: another attempt at the same step never writes over these objects,
so that parts of two attempts are never read as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from raypipe.records import Record
from raypipe.train.checkpoints.spans import num_elements

BLOCK_BYTES = 4 * 2**20
"""Of a part, so many bytes have a digest of their own: whoever needs a slice reads and checks the blocks it lies in."""

INDEX = "index.json"

FORMAT = 1
"""Of all that is written here; one that is not known is refused."""


@dataclass
class TrainState:
    """Where a training stands, beside its tensors.

    Attributes:
        fingerprint: of everything that shapes the training; a checkpoint of another is refused.
        epoch: the epoch under way, from 1.
        epoch_step: optimizer steps done in it.
        step: optimizer steps done in all.
        loss_sum, rows: of this epoch so far, for train_loss; in a checkpoint, of all workers.
        history: EpochMetrics as dicts, one a finished epoch.
        best_epoch: best so far by the watched metric; 0 before the first.
        scale: factor of the loss under float16.
        scale_good_steps: steps since it was changed.
        spent_s: seconds in each part of the time, as `goodput` has them.
        spent_until: Unix time, s, until which they are counted.
    """

    fingerprint: str
    epoch: int = 1
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    scale: float = 2.0**16
    scale_good_steps: int = 0
    spent_s: dict[str, float] = field(default_factory=dict)
    spent_until: float = 0.0

    def took_step(self, num_rows: int) -> None:
        """One more optimizer step is done, over so many rows of this worker."""
        self.step += 1
        self.epoch_step += 1
        self.rows += num_rows

    def begin_epoch(self) -> None:
        """The epoch under way is done, and the next begins."""
        self.epoch, self.epoch_step = self.epoch + 1, 0
        self.loss_sum, self.rows = 0.0, 0


class StoredSpan(Record):
    """A run of elements of one tensor, in a part.

    Attributes:
        dtype: as safetensors calls it.
        shape: of the whole tensor.
        start, count: which of its elements, in row-major order.
        offset_bytes: where they begin in the part's file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    count: int
    offset_bytes: int


class Part(Record):
    """The file that one rank wrote.

    Attributes:
        object: its name in the checkpoint's folder.
        blocks: SHA-256 of each BLOCK_BYTES of it.
    """

    object: str
    size_bytes: int
    blocks: tuple[str, ...]
    spans: dict[str, StoredSpan]


class Index(Record):
    """A whole checkpoint.

    Attributes:
        world_size: workers that wrote it.
        num_shares: that the rows of an epoch were cut into where workers are elastic; None: one a worker.
        parallel: how the ranks held the model; None in checkpoints from before it was kept.
        state: a TrainState's fields; those of another version of raypipe are others.
    """

    format: int
    world_size: int
    num_shares: int | None = None
    parallel: str | None = None
    state: dict[str, Any]
    parts: tuple[Part, ...]


def part_name(rank: int, size: int, token: str) -> str:
    """The object of a rank's part, without its ending."""
    return f"part-{rank}-of-{size}-{token}"


def rank_of_receipt(name: str, size: int, token: str) -> int | None:
    """Whose receipt of this attempt an object of this name is; None of any other object."""
    found = re.fullmatch(rf"part-(\d+)-of-{size}-{token}\.json", name)
    return int(found[1]) if found else None


def index_name(token: str) -> str:
    return f"index-{token}.json"


def first_gap(parts: tuple[Part, ...]) -> str:
    """Words on the first tensor of which elements are missing, or that the parts describe differently; empty: none."""
    spans: dict[str, list[StoredSpan]] = {}
    for part in parts:
        for name, span in part.spans.items():
            spans.setdefault(name, []).append(span)
    for name, those in spans.items():
        if len({(span.dtype, span.shape) for span in those}) > 1:
            return f"{name} has several shapes or dtypes"
        end = 0
        for span in sorted(those, key=lambda span: span.start):
            if span.start != end:
                break
            end += span.count
        wanted = num_elements(those[0].shape)
        if end != wanted:
            return f"{name}: {end} of {wanted} elements are there, each once"
    return ""
