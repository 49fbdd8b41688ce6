"""All rows of the sources, checked, hashed and cut into pieces: the first half of prepare().

Ray Data reads the files and streams their blocks; Ray tasks check and cut several neighbouring blocks each, so many
that no piece is small enough to be kept in the driver's memory.  The driver keeps summaries and references.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import ray

from raypipe.data.checks import stray
from raypipe.data.checks.schema import Schema, fitting_schema, refuse_lost_zeros, schema_of, with_unread
from raypipe.data.shuffle.read_all import Unread, blocks_of, bytes_of, refuse_absent, unread
from raypipe.data.shuffle.scatter import ScatterJob, profile_task
from raypipe.data.shuffle.scattered import Scattered
from raypipe.data.shuffle.task_size import TaskSize, neighbours
from raypipe.data.table.one_type import MixedTypes, read_as_mixed
from raypipe.data.tasks import collect, declared_memory, num_cpus, store_bytes
from raypipe.errors import DataError
from raypipe.runtime.context import RunContext
from raypipe.spec.data import DataSpec, SourcePart

CUT_STORE_FRAC = 0.25
"""Of the object stores, for the blocks of tasks that wait to be cut."""

MEMORY_PER_BYTE = 4
"""Memory of a task for each byte of its blocks: 2.4 to 3.2 were measured."""

SAY_EVERY_S = 5.0


def scatter_all(spec: DataSpec, ctx: RunContext) -> tuple[Scattered, Schema]:
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
            return _scatter_sources(parts, spec, ctx)
        except MixedTypes as error:
            as_text = [read_as_mixed(part.source, error.column) for part in parts]
            if any(source is None for source in as_text):
                raise
            ctx.progress.say("data", f"column '{error.column}' holds numbers and text: reading it once more, as text")
            parts = [part._replace(source=source) for part, source in zip(parts, as_text, strict=True) if source]


def _scatter_sources(parts: Sequence[SourcePart], spec: DataSpec, ctx: RunContext) -> tuple[Scattered, Schema]:
    sources = [(unread(part, spec), part) for part in parts]
    job = ScatterJob(spec, None, ())
    scattered, guessed = _scatter_once(job, sources, ctx)
    profiles = [block.profile for block in scattered.blocks]
    for source in dict.fromkeys(part.field for part in scattered.parts):
        of_source = [p for p, part in zip(profiles, scattered.parts, strict=True) if part.field == source]
        refuse_absent(of_source, source, spec)
    if not scattered.num_rows:
        raise DataError("data.source holds no rows", "name files that hold data")
    for name, what in {name: what for p in profiles for name, what in p.left_out.items()}.items():
        if spec.features is not None:
            ctx.progress.say("data", f"column '{name}' {what}: left out, as data.features does not name it")
    try:
        schema = fitting_schema(spec, profiles)
    except DataError as error:
        explained = stray.explained(error, _looked_at(stray.wanted(error), sources), spec)
        raise with_unread(explained, profiles) from None
    refuse_lost_zeros(schema, profiles)
    if schema != guessed or not all(block.is_checked for block in scattered.blocks):
        ctx.progress.say("data", "a later part of the source changed the type of a column: reading it once more")
        del scattered  # and the pieces that were cut in vain
        scattered, _ = _scatter_once(replace(job, schema=schema, others=None), sources, ctx)
    return scattered, schema


def _looked_at(names: Sequence[str], sources: Sequence[Unread]) -> dict[str, stray.TextTally]:
    """What text the columns hold; of one that turns out to hold hardly any number, as much as shows that."""
    tallies = {name: stray.TextTally() for name in names}
    before: Counter[str] = Counter()
    for block in blocks_of(sources) if names else ():
        (some, num_rows) = collect([stray.look_task.remote(block.ref, names)], "looking for text among numbers")[0]
        for name, tally in some.items():
            tallies[name].add(tally, before[block.part.field])
        before[block.part.field] += num_rows
        names = [name for name in names if tallies[name].is_of_numbers or not tallies[name].num_values]
        if not names:
            break
    return tallies


def _scatter_once(job: ScatterJob, sources: Sequence[Unread], ctx: RunContext) -> tuple[Scattered, Schema | None]:
    """All blocks, and the schema that the first of them were checked against."""
    is_final = job.schema is not None
    scattered, schema, job_ref = Scattered(job), job.schema, ray.put(job)
    size = TaskSize(sum(bytes_of(rows) for rows, _ in sources))  # it never changes a byte
    waiting: deque[tuple[ray.ObjectRef, int]] = deque()
    said = time.monotonic()

    def finish(most: int) -> None:
        """Wait until no more than so many tasks are left."""
        while len(waiting) > most:
            summary, num_bytes = waiting.popleft()
            scattered.add(collect([summary], "checking rows"))
            size.add(num_bytes, int(scattered.piece_bytes[-1].sum()))

    for blocks in neighbours(blocks_of(sources), size):
        if not is_final and not scattered.parts:
            job = _guessed(blocks[0].ref, job)
            schema, job_ref = job.schema, ray.put(job)
        task_bytes = sum(block.num_bytes for block in blocks)
        memory = declared_memory(MEMORY_PER_BYTE * task_bytes)
        waiting.append((scattered.submit(blocks, job_ref, size.decide(task_bytes), memory), task_bytes))
        blocks.clear()  # so that they are forgotten once they are cut
        finish(max(2, min(num_cpus(), int(CUT_STORE_FRAC * store_bytes()) // size.block_bytes)))
        if job.schema is not None and not is_final and scattered.blocks and not scattered.blocks[-1].is_checked:
            job = replace(job, schema=None)
            job_ref = ray.put(job)  # the rest is only looked at
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            ctx.progress.count(
                "data", scattered.num_rows, f"checked {scattered.num_rows} rows", num_rows=scattered.num_rows
            )
    finish(0)
    return scattered, schema


def _guessed(block: ray.ObjectRef, job: ScatterJob) -> ScatterJob:
    """The job, with the schema the first block shows; without one where it shows none."""
    (first,) = collect([profile_task.remote(block)], "looking at the first block")
    try:
        return replace(job, schema=schema_of(job.spec, [first]), others=(first,))
    except DataError:  # a column without a value so far; the whole source decides
        return job
