"""Each output shard written exactly once, and a marker that says the output is whole.

`_STARTED.json` says whose the folder is, `part-00000.parquet` and so on hold the rows, `_SHARDS.jsonl` lists them, and
`_SUCCESS.json` comes last.  A shard is one object written whole, named after its write task: a task that is repeated
after a crash writes the same object again.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from ray.data import Datasink
from ray.data.datasource import WriteResult

from raypipe.data.table.columns import tensor_values
from raypipe.errors import DataError
from raypipe.records import Record, Shard
from raypipe.runtime.progress import Reporter
from raypipe.storage import Store, open_store
from raypipe.storage.publish import sha256

STARTED = "_STARTED.json"
SHARDS = "_SHARDS.jsonl"
SUCCESS = "_SUCCESS.json"


class Claim(Record):
    """Whose an output folder is: the same model over the same source."""

    model: str
    version: int
    artifact: str
    """Digest."""
    source: dict[str, Any]


class Success(Record):
    """_SUCCESS.json: the shards that _SHARDS.jsonl lists in row order, and no other files, are the output."""

    claim: Claim
    num_rows: int
    num_shards: int
    shards_sha256: str
    """Of _SHARDS.jsonl: a line a shard."""
    finished_at: str
    """UTC, ISO 8601."""


def claim(uri: str, ours: Claim) -> Store:
    """The output folder, empty but for our own mark.

    What an earlier run with the same claim left there is removed; anything else is left alone.

    Raises:
        DataError: it holds something that no run with this claim wrote.
        StoreError: it cannot be reached or written.
    """
    store = open_store(uri if "://" in uri else str(Path(uri).expanduser().absolute()))
    keys = [info.key for info in store.list("")]
    if keys:
        _check_owner(store, keys, ours)
        for key in sorted(keys, key=lambda key: (key != SUCCESS, key == STARTED)):  # the claim to be whole goes first
            store.delete(key)
    store.write(STARTED, ours.to_json())
    return store


def complete(store: Store, ours: Claim, shards: Iterable[Shard], finished_at: float) -> Success:
    """Say that the output is whole."""
    ordered = tuple(sorted(shards, key=lambda shard: (len(shard.key), shard.key)))  # the number may outgrow five digits
    lines = b"".join(shard.model_dump_json().encode() + b"\n" for shard in ordered)
    store.write(SHARDS, lines)
    success = Success(
        claim=ours,
        num_rows=sum(shard.num_rows for shard in ordered),
        num_shards=len(ordered),
        shards_sha256=sha256(lines),
        finished_at=datetime.fromtimestamp(finished_at, timezone.utc).isoformat(timespec="seconds"),
    )
    store.write(SUCCESS, success.to_json())
    return success


def _check_owner(store: Store, keys: list[str], ours: Claim) -> None:
    remedy = "name an empty folder, or remove what is there"
    if keys == [STARTED]:
        return  # of an attempt that wrote nothing, maybe with a mistake in its words
    if STARTED not in keys:
        raise DataError(f"output {store.uri} is not empty: it holds {keys[0]}, which raypipe did not write", remedy)
    try:
        owner = Claim.model_validate_json(store.read(STARTED))
    except ValidationError:
        raise DataError(f"output {store.uri}: {STARTED} is not readable, so nobody knows whose it is", remedy) from None
    if owner != ours:
        raise DataError(
            f"output {store.uri} holds the predictions of {owner.model}@{owner.version} for {owner.source}; "
            f"this is {ours.model}@{ours.version} for {ours.source}",
            remedy,
        )
    stray = [key for key in keys if key not in (STARTED, SHARDS, SUCCESS) and not key.startswith("part-")]
    if stray:
        raise DataError(f"output {store.uri} holds {stray[0]}, which raypipe did not write", remedy)


class ParquetShards(Datasink[Shard | None]):
    """Ray Data's end of the pipe: one Parquet object a write task.

    Args:
        uri: the output folder.
        channel: where finished rows are told; see runtime.progress.
    """

    def __init__(self, uri: str, channel: str) -> None:
        self._uri = uri
        self._channel = channel
        self.shards: list[Shard] = []
        """Filled on the driver, when all is written."""

    def write(self, blocks: Iterable[Any], ctx: Any) -> Shard | None:
        tables = [pa.table(block) for block in blocks]
        tables = [_portable(table) for table in tables if table.num_rows]
        if not tables:
            return None
        table = pa.concat_tables(tables, promote_options="permissive")
        data = parquet_bytes(table)
        key = f"part-{ctx.task_idx:05d}.parquet"
        open_store(self._uri).write(key, data)
        Reporter(self._channel).send({"rows": table.num_rows}, force=True)
        return Shard(key=key, num_rows=table.num_rows, size_bytes=len(data), sha256=sha256(data))

    def on_write_complete(self, write_result: WriteResult[Shard | None]) -> None:
        self.shards = [shard for shard in write_result.write_returns if shard is not None]


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _portable(table: pa.Table) -> pa.Table:
    """Ray's tensor columns as nested lists, which every Parquet reader knows."""
    for i, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            table = table.set_column(i, field.name, _nested(table[field.name]))
    return table.replace_schema_metadata(None)


def _nested(column: pa.ChunkedArray) -> pa.Array:
    values = tensor_values(column)
    nested: pa.Array = pa.array(values.reshape(-1))
    for size in itertools.islice(reversed(values.shape), values.ndim - 1):
        nested = pa.FixedSizeListArray.from_arrays(nested, int(size))
    return nested
