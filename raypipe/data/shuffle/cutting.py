"""All rows of the sources, checked, hashed and cut into pieces: the first half of prepare().

Blocks come from Ray Data one after another and a bounded number is worked on at a time; the driver keeps summaries and
references.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray
import ray.data
from ray.data import ExecutionResources
from ray.exceptions import RayError

from raypipe.data.checks import stray
from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows
from raypipe.data.checks.expectations import check_columns, columns_of, refuse_undescribed
from raypipe.data.checks.losses import Targets
from raypipe.data.checks.schema import BlockTypes, Schema, refuse_no_classes, schema_of
from raypipe.data.formats import FORMATS
from raypipe.data.masking import Masking, read_keys, withheld
from raypipe.data.shuffle.blocks import BlockOrder, BlockSummary, cut_task, profile_task
from raypipe.data.shuffle.ranges import num_parts
from raypipe.data.splits.split import SPLITS
from raypipe.data.table import content
from raypipe.data.table.columns import ColumnKind
from raypipe.data.table.names import require
from raypipe.data.table.one_type import MixedTypes, as_text, common_kinds, read_as_mixed
from raypipe.data.table.problems import Problems
from raypipe.data.tasks import collect, explained
from raypipe.data.transforms.fitting import check_types
from raypipe.errors import DataError
from raypipe.runtime.context import RunContext
from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec, SourcePart
from raypipe.spec.masking import KEYED
from raypipe.spec.sources import SourceSpec
from raypipe.spec.splits import HashSplit

RANGE_BYTES = 96 * 2**20
"""Rows that meet in one task are at most about this many bytes as they travel."""

READ_AHEAD_BYTES = 256 * 2**20
"""What Ray Data may hold that no task has taken yet."""

MAX_RANGES = 256

SAY_EVERY_S = 5.0

S = TypeVar("S", bound=SourceSpec)

Part = tuple[ray.data.Dataset, SourcePart]
"""Rows that are read together, and what they are read as."""


@dataclass
class Cut:
    """All blocks, checked and cut by range of row id.

    Attributes:
        parts: of each block, what its rows were read as.
        tallies: of each block, a reference to its borders.Tally.
        pieces, watched: of each block, a reference a range.
        labels: classification: label -> good rows.
    """

    order: BlockOrder
    blocks: list[BlockSummary] = field(default_factory=list)
    parts: list[SourcePart] = field(default_factory=list)
    tallies: list[ray.ObjectRef] = field(default_factory=list)
    pieces: list[list[ray.ObjectRef]] = field(default_factory=list)
    watched: list[list[ray.ObjectRef]] = field(default_factory=list)
    labels: Counter[Any] = field(default_factory=Counter)
    _aside: Targets = field(default_factory=Targets)
    _room: int = MAX_KEPT

    def add(self, blocks: Iterable[BlockSummary]) -> None:
        """Take the summaries of the next blocks, without what would grow with their number.

        Raises:
            DataError: the labels of a classification are no classes.
        """
        for block in blocks:
            self.labels.update(block.labels)
            block.labels.clear()
            self._aside.add(block.bad.targets)
            block.bad.targets.classes.clear()
            refuse_no_classes(self.labels, self.order.spec.target)
            del block.bad.kept[self._room :]
            self._room -= len(block.bad.kept)
            self.blocks.append(block)

    @property
    def num_rows(self) -> int:
        return sum(block.profile.num_rows for block in self.blocks)

    @property
    def num_good(self) -> int:
        return sum(block.num_good for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        return sum(block.num_bytes for block in self.blocks)

    @property
    def raw_bytes(self) -> int:
        return sum(block.raw_bytes for block in self.blocks)

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

    def content_fingerprint(self, schema: Schema) -> str:
        """The same for the same rows, whatever the files, their order, and the blocks."""
        names = (*schema.features, schema.target)
        columns = [schema.columns[name].model_dump(mode="json") for name in names]
        sums = [
            content.total(
                block.content
                for block, part in zip(self.blocks, self.parts, strict=True)
                if part.split == split and block.content is not None
            ).tolist()
            for split in (None, *SPLITS)
        ]
        return fingerprint(columns, sums)


def cut_rows(spec: DataSpec, ctx: RunContext) -> tuple[Cut, Schema]:
    """Read, check and cut all rows.

    The first block tells the schema, and the others are checked against it as they come.  Only where a later block
    shows that the schema is another one (a column that begins with whole numbers and goes on with fractions) is the
    source read again; so is a CSV column that holds numbers in one place and text in another, as text.

    Raises:
        DataError: there are no rows, or they do not hold what the spec promises.
    """
    parts = spec.parts()
    while True:
        try:
            return _cut_parts(parts, spec, ctx)
        except MixedTypes as error:
            told = [read_as_mixed(part.source, error.column) for part in parts]
            if any(source is None for source in told):
                raise
            ctx.progress.say("data", f"column '{error.column}' holds numbers and text: reading it once more, as text")
            parts = [part._replace(source=source) for part, source in zip(parts, told, strict=True) if source]


def _cut_parts(parts: Sequence[SourcePart], spec: DataSpec, ctx: RunContext) -> tuple[Cut, Schema]:
    sources = [(_dataset(part, spec), part) for part in parts]
    num_bytes = sum(dataset.size_bytes() for dataset, _ in sources)  # told by the files; it never changes a byte
    order = BlockOrder(spec, None, (), min(MAX_RANGES, num_parts(num_bytes, RANGE_BYTES)))
    cut, guessed = _cut_once(order, sources, ctx)
    profiles = [block.profile for block in cut.blocks]
    for source in dict.fromkeys(part.field for part in cut.parts):
        found = [p for p, part in zip(profiles, cut.parts, strict=True) if part.field == source]
        refuse_absent(found, source, spec)
    if not cut.num_rows:
        raise DataError("data.source holds no rows", "name files that hold data")
    for name, what in {name: what for p in profiles for name, what in p.left_out.items()}.items():
        if spec.features is not None:
            ctx.progress.say("data", f"column '{name}' {what}: left out, as data.features does not name it")
    try:
        schema = _schema(spec, profiles)
    except DataError as error:
        raise stray.explained(error, _looked_at(stray.wanted(error), sources), spec) from None
    if schema != guessed or not all(block.is_checked for block in cut.blocks):
        ctx.progress.say("data", "a later part of the source changed the type of a column: reading it once more")
        del cut  # and the pieces that were cut in vain
        cut, _ = _cut_once(replace(order, schema=schema, others=None), sources, ctx)
    return cut, schema


def _schema(spec: DataSpec, profiles: Sequence[BlockTypes]) -> Schema:
    """One schema for all blocks, which transforms and expectations fit. Raises DataError, for all columns at once."""
    schema = schema_of(spec, profiles)
    kinds = common_kinds([p.kinds for p in profiles], [p.file for p in profiles])
    problems = Problems()
    with problems.collected():
        check_types(spec.transforms, schema.inputs)
    with problems.collected():
        check_columns(spec.expectations, kinds, schema.columns)
    with problems.collected():
        refuse_undescribed(spec.expectations, [*schema.features, schema.target])
    problems.refuse()
    return schema


def _looked_at(names: Sequence[str], sources: Sequence[Part]) -> dict[str, stray.TextTally]:
    """What text the columns hold; of one that turns out to hold hardly any number, as much as shows that."""
    tallies = {name: stray.TextTally() for name in names}
    before: Counter[str] = Counter()
    for block, part in _blocks(sources) if names else ():
        (some, num_rows) = collect([stray.look_task.remote(block, names)], "looking for text among numbers")[0]
        for name, tally in some.items():
            tallies[name].add(tally, before[part.field])
        before[part.field] += num_rows
        names = [name for name in names if tallies[name].is_of_numbers or not tallies[name].num_values]
        if not names:
            break
    return tallies


def _cut_once(order: BlockOrder, sources: Sequence[Part], ctx: RunContext) -> tuple[Cut, Schema | None]:
    """All blocks, and the schema that the first of them were checked against."""
    is_final = order.schema is not None
    cut = Cut(order)
    schema = order.schema
    window = max(2, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[ray.ObjectRef] = deque()
    said = time.monotonic()
    for block, part in _blocks(sources):
        if not is_final and not cut.parts:
            order = _guessed(block, order)
            schema = order.schema
        forced = SPLITS.index(part.split) if part.split else None
        made = cut_task.options(num_returns=order.num_returns).remote(block, order, part.field, forced)
        del block  # so that it is forgotten once it is cut
        cut.parts.append(part)
        cut.tallies.append(made[1])
        cut.pieces.append(made[2 : 2 + order.num_ranges])
        cut.watched.append(made[2 + order.num_ranges :])
        waiting.append(made[0])
        while len(waiting) > window:
            cut.add(collect([waiting.popleft()], "checking rows"))
        if not is_final and cut.blocks and not cut.blocks[-1].is_checked:
            order = replace(order, schema=None)  # the rest is only looked at
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            ctx.progress.count("data", cut.num_rows, f"checked {cut.num_rows} rows", num_rows=cut.num_rows)
    cut.add(collect(list(waiting), "checking rows"))
    return cut, schema


def _guessed(block: ray.ObjectRef, order: BlockOrder) -> BlockOrder:
    """The order, with the schema the first block shows; without one where it shows none."""
    (first,) = collect([profile_task.remote(block)], "looking at the first block")
    try:
        return replace(order, schema=schema_of(order.spec, [first]), others=(first,))
    except DataError:  # a column without a value so far; the whole source decides
        return order


def _dataset(part: SourcePart, spec: DataSpec) -> ray.data.Dataset:
    """The rows of one source, which nothing has read yet."""
    source = as_read(part.source, spec)
    masking = Masking(spec.masking, read_keys(spec.masking))
    dataset = FORMATS[source.format].read(source, spec.root or ".", spec.read_parallelism, masking)
    # What is read but not yet cut only takes room from the pieces, which then spill.
    dataset.context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=READ_AHEAD_BYTES
    )
    return dataset


def as_read(source: S, spec: DataSpec) -> S:
    """The source with the columns that are needed, and as text those of which a mask keeps what is equal.

    In CSV 007 is 7 or 007, depending on what else is read with it.
    """
    source = source.model_copy(update={"columns": _needed(spec, source)})
    for name, mask in spec.masked.items():
        if mask.method in KEYED:
            source = as_text(source, name) or source
    return source


def refuse_absent(profiles: Sequence[BlockTypes], source: str, spec: DataSpec) -> None:
    """Raise MissingColumn when no block of a source has a column that is asked for by name.

    A block alone does not tell: that some lines of JSON have none of a field does not mean there is none.
    """
    nowhere = sorted(frozenset.intersection(*(p.absent for p in profiles)))
    there = dict.fromkeys(name for p in profiles for name in p.kinds if name not in nowhere)
    with withheld(spec.masking, f"data.{source}"):
        require(nowhere, list(there), f"data.{source}")


def _blocks(sources: Sequence[Part]) -> Iterator[tuple[Any, SourcePart]]:
    """References to all blocks in file order, as they are read, each with what it was read as."""
    for dataset, part in sources:
        try:
            for bundle in dataset.iter_internal_ref_bundles():
                for ref in bundle.block_refs:
                    yield ref, part
        except RayError as error:
            raise explained(error, "reading rows") from None


def _needed(spec: DataSpec, source: SourceSpec) -> list[str] | None:
    """Columns to read; None is all.  Without a split key the whole row decides where it goes, so all are needed."""
    if spec.features is None or not isinstance(spec.split, HashSplit) or spec.split.key is None:
        return source.columns
    expected = columns_of(spec.expectations)
    return list(dict.fromkeys([*spec.features, spec.target, *spec.split.key, *spec.masked, *expected]))
