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
from raypipe.data.checks.duplicates import all_repeats
from raypipe.data.checks.examine import examine, keep_good
from raypipe.data.checks.schema import Schema, schema_of, types_of
from raypipe.data.formats import FORMATS
from raypipe.data.shuffle import ranges
from raypipe.data.shuffle.blocks import BlockOrder, BlockSummary, cut_block
from raypipe.data.shuffle.ranges import Apart, RangeSummary, ShardOrder
from raypipe.data.sources.files import SourceFile
from raypipe.data.splits.leaks import Leaks, all_shared
from raypipe.data.splits.split import SPLITS
from raypipe.data.table.hashing import Values
from raypipe.records import DatasetVersion, Signature, Split
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import Source


def source_file(path: str | Path) -> SourceFile:
    """A file as `files()` lists it."""
    return SourceFile(name=Path(path).name, uri=str(path), size_bytes=0, tag="")


def source(name: str, **fields: Any) -> Any:
    """The source spec of a format."""
    return TypeAdapter(Source).validate_python({"format": name, "path": "unused", **fields})


def reader(name: str, **fields: Any) -> Any:
    """The function of a format that reads one file."""
    return partial(FORMATS[name].read_file, source=source(name, **fields))


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
    ranges: list[RangeSummary]
    groups: Leaks


def prepared(
    folder: Path, spec: DataSpec, tables: Sequence[tuple[pa.Table, str | None]], num_ranges: int = 1, num_tasks: int = 1
) -> Prepared:
    """What stage.prepare does between reading and fitting, in this process.

    Args:
        tables: blocks, each with the split it is forced into.
    """
    blocks = [block for block, _ in tables]
    schema = schema_of(spec, [types_of(block) for block in blocks])
    order = BlockOrder(spec, schema, tuple(types_of(block) for block in blocks), num_ranges)
    forced = [None if split is None else SPLITS.index(split) for _, split in tables]
    made = [cut_block(block, order, "source", code) for block, code in zip(blocks, forced, strict=True)]
    state = ranges.decide(spec, *(one[1] for one in made))
    watched = [ranges.watch(state, spec, *(one[2 + num_ranges + i] for one in made)) for i in range(order.num_watched)]
    groups = all_shared([shared for shared, _ in watched])
    repeats = all_repeats([repeated for _, found in watched for _, repeated in found.values()])
    apart = Apart(groups, repeats, "repeated")
    signature = Signature(inputs=schema.inputs, task=spec.task, target=spec.target)
    num_shards = -(-sum(one[0].num_good for one in made) // spec.rows_per_shard)
    shards = ShardOrder(spec, str(folder), "n", "v", num_shards, signature, state, (), 0.0)
    summaries: list[RangeSummary] = []
    for first, last in pairwise(num_shards * task // num_tasks for task in range(num_tasks + 1)):
        numbers = ranges.overlapping(first, last, num_shards, num_ranges)
        pieces = [one[2 + number] for number in numbers for one in made]
        summaries.append(ranges.store_shards(shards, first, last, apart, *pieces)[0])
    stored = [item for summary in summaries for item in summary.stored]
    splits = {name: tuple(item.shard for item in stored if item.split == name) for name in SPLITS}
    classes = tuple(sorted({label for item in stored for label in item.labels}))
    dataset = DatasetVersion(
        name="n",
        version="v",
        signature=signature.model_copy(update={"classes": classes or None}),
        splits={name: Split(num_rows=sum(s.num_rows for s in mine), shards=mine) for name, mine in splits.items()},
        transforms=(),
        feature_shape=(1,),
        content_fingerprint="",
    )
    return Prepared(dataset, [one[0] for one in made], summaries, groups.leaks)


def forms(texts: Sequence[str | None]) -> list[pa.Array]:
    """Some of six texts: plain, encoded, encoded with more values in another order, and as a slice of more."""
    plain = pa.array(texts, pa.string())
    every = ["unused", "é", "long " * 9, "", "b", "a", "other"]
    index = pa.array([None if text is None else every.index(text) for text in texts], pa.int32())
    longer = pa.array(["other", *texts, "other"], pa.string()).dictionary_encode()
    return [plain, plain.dictionary_encode(), pa.DictionaryArray.from_arrays(index, pa.array(every)), longer[1:-1]]
