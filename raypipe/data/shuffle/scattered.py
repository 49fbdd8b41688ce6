"""What the driver keeps of all blocks: summaries and references, nothing that grows with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray

from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, refuse_too_many
from raypipe.data.checks.classes import refuse_no_classes
from raypipe.data.checks.losses import Losses, Targets
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.rule import BlockTallies
from raypipe.data.checks.schema import Schema
from raypipe.data.checks.suspects import left_out
from raypipe.data.shuffle.read_all import Block
from raypipe.data.shuffle.scatter import BlockSummary, ScatterJob, ScatterSummary, scatter_task
from raypipe.data.splits.base import SPLITS, SplitState
from raypipe.data.splits.content import Content, merged
from raypipe.data.splits.hashed import EACH_COPY
from raypipe.data.table import content
from raypipe.data.table.columns import ColumnKind
from raypipe.data.table.marks import note_lines, summed
from raypipe.data.table.one_type import common_kinds
from raypipe.runtime.progress import Progress
from raypipe.spec.base import fingerprint
from raypipe.spec.data import SourcePart


@dataclass
class Scattered:
    """All blocks, checked and cut by range of row id.

    Attributes:
        parts: of each block, what its rows were read as.
        tallies: of each task, a reference to its ranks.Tally.
        pieces: of each task, a reference a range; piece_bytes: the bytes of each.
        keys: of each task, a reference to the BlockKeys of its blocks.
        labels: classification: label -> good rows.
        different: which different rows there are.
    """

    job: ScatterJob
    blocks: list[BlockSummary] = field(default_factory=list)
    parts: list[SourcePart] = field(default_factory=list)
    tallies: list[ray.ObjectRef] = field(default_factory=list)
    pieces: list[list[ray.ObjectRef]] = field(default_factory=list)
    piece_bytes: list[np.ndarray] = field(default_factory=list)
    keys: list[ray.ObjectRef] = field(default_factory=list)
    labels: Counter[Any] = field(default_factory=Counter)
    different: Content = field(default_factory=Content)
    _aside: Targets = field(default_factory=Targets)
    _room: int = MAX_KEPT

    def submit(self, blocks: Sequence[Block], job_ref: ray.ObjectRef, num_ranges: int, memory: int) -> ray.ObjectRef:
        """Start the task for some blocks; a reference to its ScatterSummary, which `add` takes."""
        part = blocks[0].part
        forced = SPLITS.index(part.split) if part.split else None
        task = scatter_task.options(num_returns=self.job.num_returns(num_ranges), memory=memory)
        made = task.remote(job_ref, num_ranges, part.field, forced, *(block.ref for block in blocks))
        self.parts += [part] * len(blocks)
        self.tallies.append(made[1])
        self.pieces.append(made[2 : 2 + num_ranges])
        self.keys += made[2 + num_ranges :]
        return made[0]

    def add(self, tasks: Iterable[ScatterSummary]) -> None:
        """Take the summaries of the next tasks, without what would grow with their number.

        Raises:
            DataError: the labels of a classification are no classes.
        """
        for task in tasks:
            self.piece_bytes.append(np.array(task.piece_bytes))
            for block in task.blocks:
                self.labels.update(block.labels)
                block.labels.clear()
                self._aside.add(block.bad.targets)
                block.bad.targets.classes.clear()
                refuse_no_classes(self.labels, ", ".join(self.job.spec.targets))
                del block.bad.kept[self._room :]
                self._room -= len(block.bad.kept)
                if block.different is not None:
                    self.different = merged([self.different, block.different])
                self.blocks.append(replace(block, different=None))

    @property
    def num_rows(self) -> int:
        return sum(block.profile.num_rows for block in self.blocks)

    @property
    def num_good(self) -> int:
        return sum(block.num_good for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        """Of all pieces."""
        return sum(int(task.sum()) for task in self.piece_bytes)

    @property
    def raw_bytes(self) -> int:
        return sum(block.raw_bytes for block in self.blocks)

    @property
    def rule_tallies(self) -> list[BlockTallies]:
        """What the expectations found in each block."""
        return [block.tallies for block in self.blocks if block.tallies is not None]

    def tell(self, took_s: float, progress: Progress) -> None:
        """Say how many rows were read, and which columns were left out."""
        num_bad, rate = self.num_rows - self.num_good, self.num_rows / max(took_s, 1e-9)
        text = f"read {self.num_rows} rows  bad {num_bad}  {rate:.3g} rows/s"
        progress.say("data", text, num_rows=self.num_rows, num_bad_rows=num_bad, rows_per_s=round(rate, 1))
        for line in self.notes():
            progress.say("data", line)

    def notes(self) -> list[str]:
        """What is worth telling of how rows were read, and which columns were left out."""
        read = note_lines(summed(block.profile.notes for block in self.blocks))
        return [*read, *left_out(self.job.spec.index_columns(self.kinds()))]

    def set_aside(self, notes: Sequence[str], others: BadRows | None = None) -> tuple[BadRows, Losses]:
        """All rows that are set aside, and what goes with them.

        Args:
            notes: lines for a message on too many of them.
            others: rows that only the others show to be bad; not among those that are bad by themselves.
        Raises:
            DataError: they are more than the spec allows.
        """
        bad, kept, spec = self.bad(), self.kept(), self.job.spec
        if others is not None:
            bad.add(others)
            kept.take_away(others.targets)
        losses = Losses(", ".join(spec.targets), bad.targets, kept)
        refuse_too_many(bad, self.num_rows, spec.bad_rows.max_frac, notes, losses, remedies(bad, spec))
        return bad, losses

    def kept(self) -> Targets:
        """The targets of good rows."""
        return Targets(Counter(self.labels), sum(block.target_sum for block in self.blocks), self.num_good)

    def bad(self) -> BadRows:
        """Bad rows of all blocks, numbered from 1 as in the files; each source counts by itself."""
        total = BadRows()
        total.targets.add(self._aside)
        before: Counter[str] = Counter()
        for block, part in zip(self.blocks, self.parts, strict=True):
            source = {} if part.field == "source" else {"source": part.field}
            for row in block.bad.kept:
                numbered = {"row_number": before[part.field] + row["position"] + 1, **source}
                total.kept.append({**numbered, "reason": row["reason"], "row": row["row"]})
            total.num_rows += block.bad.num_rows
            total.reasons += block.bad.reasons
            before[part.field] += block.profile.num_rows
        return total

    def kinds(self) -> dict[str, ColumnKind]:
        """What each column of the files holds."""
        return common_kinds([b.profile.kinds for b in self.blocks], [b.profile.file for b in self.blocks])

    def content_fingerprint(self, schema: Schema, state: SplitState) -> str:
        """The same for the same rows, divided alike, whatever the files, their order, the blocks, and columns that the
        spec does not read."""
        columns = [schema.columns[name].model_dump(mode="json") for name in schema.stored]
        sums = [
            content.total(
                block.content
                for block, part in zip(self.blocks, self.parts, strict=True)
                if part.split == split and block.content is not None
            ).tolist()
            for split in (None, *SPLITS)
        ]
        return fingerprint(columns, sums, *([EACH_COPY] if EACH_COPY in state else []))
