"""Small things several tests of the data room need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from raypipe.data.checks.bad_rows import BadRows
from raypipe.data.checks.examine import examine, keep_good
from raypipe.data.checks.schema import Schema, schema_of, types_of
from raypipe.data.formats import FORMATS
from raypipe.data.shuffle import gather, meet
from raypipe.data.shuffle.gather import GatherJob, GatherSummary
from raypipe.data.shuffle.scatter import BlockSummary, ScatterJob, scatter_blocks
from raypipe.data.shuffle.weights import row_weights
from raypipe.data.shuffle.written import WrittenShards, target_statistics
from raypipe.data.sources.place import SourceFile
from raypipe.data.splits import split
from raypipe.data.splits.base import SPLITS, SplitState
from raypipe.data.splits.content import Content, merged
from raypipe.data.splits.leaks import Leaks, Twins
from raypipe.data.table import label_sets
from raypipe.data.table.row_hash import Values
from raypipe.data.transforms.fitting import FirstPass
from raypipe.records import DatasetVersion, Signature, Split
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import Source

SOURCE: TypeAdapter[Any] = TypeAdapter(Source)


def source_file(path: str | Path) -> SourceFile:
    """A file as `files()` lists it."""
    return SourceFile(name=Path(path).name, uri=str(path), size_bytes=None, tag="")


def source(name: str, **fields: Any) -> Any:
    """The source spec of a format."""
    return SOURCE.validate_python({"format": name, "path": "unused", **fields})


def reader(name: str, **fields: Any) -> Any:
    """The function of a format that reads one file."""
    form: Any = FORMATS[name]
    return partial(form.read_file, source=source(name, **fields))


def sized_file(path: str | Path) -> SourceFile:
    """A file as `files()` lists it, with its size."""
    return SourceFile(name=Path(path).name, uri=str(path), size_bytes=Path(path).stat().st_size, tag="")


def check(block: pa.Table, schema: Schema) -> tuple[dict[str, Values], BadRows]:
    """The good rows of a block, and the others with their reasons."""
    values, reasons = examine(block, schema)
    return keep_good(block, values, reasons, schema)


@dataclass(frozen=True)
class Prepared:
    """What stage.prepare knows before it fits transforms."""

    dataset: DatasetVersion
    blocks: list[BlockSummary]
    ranges: list[GatherSummary]
    groups: Leaks
    state: SplitState
    content: Content

    @property
    def twins(self) -> Twins:
        """Of all rows."""
        return sum((summary.twins for summary in self.ranges), Twins())


def prepared(
    folder: Path, spec: DataSpec, tables: Sequence[tuple[pa.Table, str | None]], num_ranges: int = 1, num_tasks: int = 1
) -> Prepared:
    """What stage.prepare does between reading and fitting, in this process.

    Args:
        tables: blocks, each with the split it is forced into.
    """
    blocks = [block for block, _ in tables]
    schema = schema_of(spec, [types_of(block) for block in blocks])
    order = ScatterJob(spec, schema, tuple(types_of(block) for block in blocks))
    forced = [None if split is None else SPLITS.index(split) for _, split in tables]
    made = [scatter_blocks(order, num_ranges, "source", code, one) for one, code in zip(blocks, forced, strict=True)]
    content = merged(block.different for one in made for block in one[0].blocks)
    state = split.decide(lambda: (one[1] for one in made), content, spec)
    by_range = meet.cut_keys(num_ranges, *(one[-1] for one in made)) if order.has_keys else []
    met = [meet.meet(state, spec, found) for found in by_range]
    quarantined = [i for i in order.unique if spec.expectations[i].on_fail == "quarantine"]
    apart = meet.to_set_aside(quarantined, "repeated", *(found for one in met for found in one[1:]))
    target = spec.target if isinstance(spec.target, str) else tuple(spec.target)
    signature = Signature(inputs=schema.inputs, task=spec.task, target=target, label_sets=label_sets.kept(spec))
    good = sum(block.num_good for one in made for block in one[0].blocks)
    num_shards = -(-good // spec.rows_per_shard)
    shards = GatherJob(spec, str(folder), "n", "v", num_shards, spec.rows_per_shard, signature, state, (), 0.0)
    summaries: list[GatherSummary] = []
    for first, last in pairwise(num_shards * task // num_tasks for task in range(num_tasks + 1)):
        numbers = range(first * num_ranges // num_shards, -(-last * num_ranges // num_shards))
        pieces = [one[2 + number] for number in numbers for one in made]
        summaries.append(gather.gather_shards(shards, first, last, apart, *pieces)[0])
    stored = [item for summary in summaries for item in summary.stored]
    splits = {name: tuple(item.shard for item in stored if item.split == name) for name in SPLITS}
    classes = tuple(sorted({label for item in stored for label in item.labels}))
    written = WrittenShards(FirstPass(()), shards=stored)
    dataset = DatasetVersion(
        name="n",
        version="v",
        signature=signature.model_copy(update={"classes": classes or None}),
        splits={name: Split(num_rows=sum(s.num_rows for s in mine), shards=mine) for name, mine in splits.items()},
        transforms=(),
        feature_shape=(1,),
        content_fingerprint="",
        target_statistics=target_statistics(written, schema) if splits["train"] else None,
        weights=row_weights(written, schema, classes or None),
    )
    groups = sum((one[0][0] for one in met), Leaks())
    blocks_made = [block for one in made for block in one[0].blocks]
    return Prepared(dataset, blocks_made, summaries, groups, state, content)


def forms(texts: Sequence[str | None]) -> list[pa.Array]:
    """Some of six texts: plain, encoded, encoded with more values in another order, and as a slice of more."""
    plain = pa.array(texts, pa.string())
    every = ["unused", "é", "long " * 9, "", "b", "a", "other"]
    index = pa.array([None if text is None else every.index(text) for text in texts], pa.int32())
    longer = pa.array(["other", *texts, "other"], pa.string()).dictionary_encode()
    return [plain, plain.dictionary_encode(), pa.DictionaryArray.from_arrays(index, pa.array(every)), longer[1:-1]]
