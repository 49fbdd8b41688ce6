"""A dataset version in the store: found again, recorded last of all, and taken away where it was not finished."""

from __future__ import annotations

from contextlib import suppress

from raypipe.data.checks.bad_rows import BadRows, to_lines
from raypipe.errors import DocumentError, ObjectMissing, StoreError
from raypipe.records import DataProfile, DatasetVersion
from raypipe.runtime.context import RunContext
from raypipe.storage import layout
from raypipe.storage.documents import read_document, write_document


def prepared_before(version: str, ctx: RunContext) -> DatasetVersion | None:
    """The record of this very dataset; None where there is none, or a damaged one, which is then written again."""
    try:
        return read_document(ctx.store, layout.dataset_record(ctx.name, version), DatasetVersion)
    except ObjectMissing:
        return None
    except DocumentError as error:
        ctx.progress.say("data", f"the dataset is stored again: {error.message}")
        return None


def mark_latest(version: str, ctx: RunContext) -> None:
    """Measure the drift of the next one against this version."""
    write_document(ctx.store, layout.latest_dataset(ctx.name), {"version": version})


def publish(record: DatasetVersion, described: DataProfile, bad: BadRows, ctx: RunContext) -> None:
    """Write what completes a version, its record last."""
    if record.bad_rows_key is not None:
        ctx.store.write(record.bad_rows_key, to_lines(bad))
    write_document(ctx.store, layout.profile(ctx.name, record.version), described)
    write_document(ctx.store, layout.dataset_record(ctx.name, record.version), record)


def warn(record: DatasetVersion, ctx: RunContext) -> None:
    """Say what its rows show that is worth acting on."""
    for warning in record.warnings:
        ctx.progress.say("data", f"warning: {warning.text}", warning=warning.kind)


def remove(version: str, ctx: RunContext) -> None:
    """What was written of a version, unless another run has made it meanwhile."""
    with suppress(StoreError):  # where the store was what failed, that is what to tell
        if not ctx.store.exists(layout.dataset_record(ctx.name, version)):
            ctx.store.delete_prefix(layout.dataset(ctx.name, version))


def tell(record: DatasetVersion, took_s: float, ctx: RunContext) -> None:
    """Say what was stored."""
    fitted = ", ".join(state["kind"] for state in record.transforms) or "none"
    shards = [shard for split in record.splits.values() for shard in split.shards]
    num_bytes = sum(shard.size_bytes for shard in shards)
    text = f"dataset {record.name} {record.version}: {len(shards)} shards, {num_bytes / 2**20:.1f} MiB"
    sizes = {name: split.num_rows for name, split in record.splits.items()}
    rows = "  ".join(f"{name} {size}" for name, size in sizes.items())
    ctx.progress.say("data", f"{rows}  transforms fitted: {fitted}", splits=sizes, transforms=len(record.transforms))
    ctx.progress.say("data", f"{text}, {took_s:.1f} s", version=record.version, num_bytes=num_bytes)
