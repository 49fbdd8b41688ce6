"""predict_batch(): shards in, shards out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe.batch.reading import as_learned
from raypipe.batch.rows import raw_columns
from raypipe.batch.writer import SHARDS, Claim, ParquetShards, claim, complete
from raypipe.data.formats import FORMATS, Format
from raypipe.data.formats.datasource import files_of
from raypipe.data.table.marks import refuse_bad
from raypipe.data.table.packing import decoded
from raypipe.errors import ClusterError, DataError, RaypipeError, TrainingError, causes, find_known
from raypipe.model.tasks import OutputColumn, Task
from raypipe.records import ArtifactRef, BatchOutput, ModelVersion, Signature
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Listener
from raypipe.runtime.resources import ray_options
from raypipe.spec.batch import BatchSpec
from raypipe.storage import open_store

PREDICTION, PROBABILITY = "prediction", "probability"

TELL_EVERY_S = 2.0

SHARDS_PER_WORKER = 4
"""So that workers end at about the same time, though the rows are only estimated when the shards' size is chosen."""

CALLS_PER_SHARD = 16
"""Where nobody knows how many rows there are: enough for files of a fair size, few enough for several workers."""

MAX_SHARD_ROWS = 100_000
"""Until there would be more than MAX_SHARDS of them."""

MAX_SHARDS = 1000

MAX_SHARD_BYTES = 128 * 2**20
"""Size of a shard's inputs in memory at most, unless one model call reads more."""


def predict_batch(spec: BatchSpec, model: ModelVersion, ctx: RunContext) -> BatchOutput:
    """Answer every row of a source and write the rows with their answers as Parquet.

    Each row comes out once, in the order of the source, with all its columns and beside them `prediction` (the label,
    or the number) and, for classification, `probability` (of that label). `_SUCCESS.json` is written last.
    Repeating it replaces what it wrote before.  The source is read once: what is wrong with a row is found while
    predictions are written, and then there is no success mark.

    Args:
        spec: relative paths start from the current folder.
    Raises:
        DataError: the source is not there, a row does not fit the model, or the output holds something else.
        UserCodeError: the user's network raised.
        ArtifactError, DigestMismatch, StoreError: the model cannot be loaded, or storage did not answer.
    """
    import ray.data

    ours = Claim(
        model=model.model,
        version=model.version,
        artifact=model.artifact.digest,
        source=spec.source.model_dump(mode="json", exclude_none=True),
    )
    learned = as_learned(spec.source, model.signature)
    form = FORMATS[spec.source.format]
    source: ray.data.Dataset = form.read(learned, str(Path.cwd()), None)
    rows = rows_per_shard(_estimated_rows(source, form, learned, model.signature), spec, model.signature)
    source.context.execution_options.preserve_order = True  # shard 0 holds the first rows
    source.context.raise_original_map_exception = True  # else our errors lose their type on the way
    teller = _Teller(ctx)
    try:
        with _ray_data_silent(), Listener(f"raypipe/{ctx.run_id}/batch", teller.tell) as listener:
            output = claim(spec.output, ours)
            sink = ParquetShards(output.uri, listener.channel)
            # Ray cannot join blocks of which one has its text encoded and another has not.
            plain = source.map_batches(decoded, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
            blocks = plain.repartition(target_num_rows_per_block=rows, strict=True)
            _answered(blocks, spec, model, ctx).write_datasink(sink)
    except Exception as error:  # Ray Data wraps what its tasks raise in many types
        raise _explained(error) from error
    success = complete(output, ours, sink.shards, ctx.clock())
    teller.end(success.num_rows, output.uri)
    return BatchOutput(
        model=model.model,
        version=model.version,
        output=output.uri,
        num_rows=success.num_rows,
        num_shards=success.num_shards,
        shards_key=SHARDS,
    )


def _estimated_rows(dataset: Any, form: Format, source: Any, signature: Signature) -> int | None:
    """About how many rows there are, rather too many; None where nobody knows."""
    files = files_of(dataset)
    if files is None:
        return dataset.count()  # its blocks are there already
    num_rows = form.estimated_rows(files, source)
    if num_rows is None and files.num_bytes is not None:
        return files.num_bytes // _num_values(signature)
    return num_rows


def _num_values(signature: Signature) -> int:
    """Of one row's inputs."""
    return sum(math.prod(column.shape) for column in signature.inputs)


def rows_per_shard(num_rows: int | None, spec: BatchSpec, signature: Signature) -> int:
    """Every worker gets a shard, no model call is cut short by a shard's end, and no shard grows without bound.

    Args:
        num_rows: of the source, an estimate; None where nobody knows.
    """
    row_bytes = 8 * _num_values(signature)
    num_shards = spec.num_workers * SHARDS_PER_WORKER if spec.num_workers > 1 else 1
    share = CALLS_PER_SHARD * spec.worker_batch_size if num_rows is None else -(-num_rows // num_shards)
    most = max(MAX_SHARD_ROWS, (num_rows or 0) // MAX_SHARDS)
    rows = max(1, min(share, most, MAX_SHARD_BYTES // row_bytes))
    return -(-rows // spec.worker_batch_size) * spec.worker_batch_size


def _answered(source: Any, spec: BatchSpec, model: ModelVersion, ctx: RunContext) -> Any:
    from ray.data import ActorPoolStrategy

    return source.map_batches(
        Answerer,
        fn_constructor_kwargs={
            "store_uri": ctx.store.uri,
            "artifact": model.artifact,
            "code_dir": ctx.code_dir,
            "device": "cuda" if spec.resources.num_gpus > 0 else "cpu",
            "num_threads": max(1, round(spec.resources.num_cpus)),
        },
        batch_size=spec.worker_batch_size,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(size=spec.num_workers),
        **ray_options(spec.resources),
    )


class Answerer:
    """Holds the model in a Ray Data actor; adds the answers to each batch."""

    def __init__(
        self, store_uri: str, artifact: ArtifactRef, code_dir: Path | None, device: str, num_threads: int
    ) -> None:
        self._store_uri, self._artifact, self._code_dir = store_uri, artifact, code_dir
        self._device, self._num_threads = device, num_threads
        self._loaded: Any = None

    @property
    def _predictor(self) -> Any:
        # Loaded with the first batch: an error raised while an actor is made arrives as a dead actor without a type.
        if self._loaded is None:
            import torch

            from raypipe.model.predictor import Predictor

            torch.set_num_threads(self._num_threads)
            store = open_store(self._store_uri)
            self._loaded = Predictor.load(store, self._artifact, code_dir=self._code_dir, device=self._device)
        return self._loaded

    def __call__(self, table: pa.Table) -> pa.Table:
        """B rows in, the same B rows with their answers out."""
        table = refuse_bad(table)
        predictor = self._predictor
        names = answer_names(predictor.task)
        taken = [name for name in (PREDICTION, PROBABILITY, *names.values()) if name in table.column_names]
        if taken:
            raise DataError(
                f"the input has a column '{taken[0]}' already, where the answer goes",
                "rename it, or leave it out with source.columns",
            )
        predictions = predictor.predict(raw_columns(table, predictor.signature))
        if len(predictions.values) != table.num_rows:
            raise TrainingError(f"the model gave {len(predictions.values)} answers for {table.num_rows} rows")
        for column, name in names.items():
            answers = predictor.task.answer(column, predictions.values)
            table = table.append_column(name, pa.array(answers, _arrow_type(column)))
        return table


def _arrow_type(column: OutputColumn) -> pa.DataType | None:
    """Of labels and texts, which must be known where there is no row; None: numpy's arrays tell it."""
    if column.labels:
        known = pa.array(column.labels).type
        return pa.list_(known) if column.is_set else known
    return pa.string() if column.dtype == "string" else None


def answer_names(task: Task) -> dict[OutputColumn, str]:
    """What is written of each row -> the column it goes to; of several answers `prediction_NAME`."""
    answers = task.columns_of("answer")
    names = {column: PREDICTION if len(answers) == 1 else f"{PREDICTION}_{column.name}" for column in answers}
    return names | {column: PROBABILITY for column in task.columns_of("confidence")}


@contextmanager
def _ray_data_silent() -> Generator[None, None, None]:
    """Ray Data logs an error with stack traces and an invitation to report a bug, even where a column is missing."""
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Teller:
    """Finished shards -> a line every two seconds."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._rows = 0
        self._start = self._told = time.monotonic()

    def tell(self, event: dict[str, Any]) -> None:
        self._rows += int(event["rows"])
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            rate = self._rows / (now - self._start)
            self._ctx.progress.count("batch", self._rows, f"{self._rows} rows  {rate:.0f} rows/s", rows=self._rows)

    def end(self, num_rows: int, uri: str) -> None:
        rate = num_rows / max(time.monotonic() - self._start, 1e-9)
        self._ctx.progress.say("batch", f"{num_rows} rows written to {uri}  {rate:.0f} rows/s", rows=num_rows)


def _explained(error: BaseException) -> RaypipeError:
    """Our own error somewhere in the chain of causes, else one that names the last of them."""
    known = find_known(error)
    if known is not None:
        return known
    # SystemException is Ray Data's word for "not user code", and says nothing.
    last = [each for each in causes(error) if type(each).__name__ != "SystemException"][-1]
    text = str(last).strip().splitlines()[-1] if str(last).strip() else ""
    if type(last).__module__.startswith("ray."):
        return ClusterError(f"batch inference was lost: {type(last).__name__}: {text}", "run the same command again")
    return TrainingError(f"batch inference failed: {type(last).__name__}: {text}", "the model's forward raised this")
