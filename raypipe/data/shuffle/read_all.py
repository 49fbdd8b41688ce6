"""All blocks of the sources, read by Ray Data: the only place of the shuffle that reads files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import pyarrow as pa
import ray.data
from ray.data import ExecutionResources
from ray.exceptions import RayError

from raypipe.data.checks.expectations import columns_of
from raypipe.data.checks.schema import BlockTypes
from raypipe.data.formats import FORMATS
from raypipe.data.formats.datasource import estimated_bytes
from raypipe.data.masking import Masking, read_keys
from raypipe.data.table.names import require
from raypipe.data.table.one_type import AskedJsonl, as_text
from raypipe.data.tasks import explained, num_cpus, store_bytes
from raypipe.spec.data import DataSpec, SourcePart
from raypipe.spec.masking import KEYED
from raypipe.spec.named_columns import named_columns
from raypipe.spec.sources import JsonlSource, SourceSpec
from raypipe.spec.splits import HashSplit

READ_BYTES_PER_CPU = 128 * 2**20
"""What Ray Data may hold that no task has taken yet, for each CPU.  It counts what running reads may return and keeps
half back: with blocks of 64 MiB this is one read a CPU."""

READ_STORE_FRAC = 0.5
"""The same at most, of the object stores: what is read but not yet cut takes room from the pieces, which then spill."""

S = TypeVar("S", bound=SourceSpec)

Unread = tuple["ray.data.Dataset | list[pa.Table]", SourcePart]
"""A source that nothing has read yet, or its rows where they are here, and what they are read as."""


class Block(NamedTuple):
    """Rows that were read together; `num_bytes` in the object store."""

    ref: Any
    num_bytes: int
    part: SourcePart


def unread(part: SourcePart, spec: DataSpec) -> ray.data.Dataset | list[pa.Table]:
    """The rows of one source, which nothing has read yet; or all of them, where they are here."""
    source = as_read(part.source, spec)
    masking = Masking(spec.masking, read_keys(spec.masking))
    form, wanted = FORMATS[source.format], (source, spec.root or ".", spec.read_parallelism, masking)
    tables = form.tables_in_memory(*wanted, is_judged=True)
    if tables is not None:
        return tables
    dataset = form.read(*wanted, is_judged=True)
    cpus = num_cpus()
    dataset.context.execution_options.resource_limits = ExecutionResources.for_limits(
        # A read that waits until its blocks are taken keeps its CPU, so one is left for those who take them.
        cpu=cpus - 1 if cpus > 2 else cpus,
        object_store_memory=min(READ_BYTES_PER_CPU * cpus, int(READ_STORE_FRAC * store_bytes())),
    )
    return dataset


def bytes_of(rows: ray.data.Dataset | list[pa.Table]) -> int:
    """Of a source; estimated where nothing has read it yet, 0 where nothing tells."""
    return sum(table.nbytes for table in rows) if isinstance(rows, list) else estimated_bytes(rows) or 0


def as_read(source: S, spec: DataSpec) -> S:
    """The source with the columns that are needed, and as text those of which a mask keeps what is equal.

    In CSV 007 is 7 or 007, depending on what else is read with it.
    """
    source = source.model_copy(update={"columns": _needed(spec, source)})
    if isinstance(source, JsonlSource):
        asked = tuple(dict.fromkeys(name for names in named_columns(spec).values() for name in names))
        fields = {**dict(source), "asked": asked, "others_matter": spec.features is None}
        return cast("S", AskedJsonl.model_validate(fields))
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
    with Masking(spec.masking).guard(f"data.{source}"):
        require(nowhere, list(there), f"data.{source}")


def blocks_of(sources: Sequence[Unread]) -> Iterator[Block]:
    """All blocks in file order, as they are read."""
    for rows, part in sources:
        if isinstance(rows, list):
            yield from (Block(ray.put(table), table.nbytes, part) for table in rows)
            continue
        try:
            for bundle in rows.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    yield Block(entry.ref, entry.metadata.size_bytes or 0, part)
        except RayError as error:
            raise explained(error, "reading rows") from None


def _needed(spec: DataSpec, source: SourceSpec) -> list[str] | None:
    """Columns to read; None is all: what bad rows hold beside the features helps to find them."""
    if spec.features is None or not isinstance(spec.split, HashSplit) or spec.split.key is None:
        return source.columns
    expected = columns_of(spec.expectations)
    weight = [spec.weight] if spec.weight else []
    return list(dict.fromkeys([*spec.features, *spec.targets, *weight, *spec.split.key, *spec.masked, *expected]))
