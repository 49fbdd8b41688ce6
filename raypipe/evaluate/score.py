"""Every test row scored exactly once, at any number of workers.

The split is cut into chunks of CHUNK_ROWS by row index, and a chunk is one model call.  Which rows share a call
therefore never depends on the number of workers, nor on a worker that died and was replaced: same answers, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.shards import encode_target, load_rows
from raypipe.errors import ClusterError, RaypipeError, TrainingError, causes, find_known
from raypipe.evaluate.details import NUM_WORST, merged, worst_rows
from raypipe.model.measures import Measures, times_of
from raypipe.records import ArtifactRef, DatasetVersion, WorstRow
from raypipe.runtime.context import RunContext
from raypipe.runtime.resources import ray_options
from raypipe.spec.evaluate import EvaluateSpec
from raypipe.storage import open_store

CHUNK_ROWS = 1024
"""Rows of one model call."""

MAX_PIECE_ROWS = 64 * CHUNK_ROWS
"""Rows one task scores: bounds its memory, and the work a lost worker repeats."""

MAX_SILENCE_S = 3600.0
"""Longest wait for the next piece to be finished, placement included."""

TELL_EVERY_S = 5.0


@dataclass(frozen=True)
class Piece:
    """What one task is asked: rows [start, stop) of the test split through one model."""

    store_uri: str
    artifact: ArtifactRef
    dataset: DatasetVersion
    start: int
    stop: int
    device: str
    num_threads: int
    code_dir: Path | None


@dataclass(frozen=True)
class Scored:
    """Rows [start, start + B) of the test split, in stored order.

    Attributes:
        row_id: uint64 [B], as stored with the rows.
        target: as `encode_target` gives it: int64 class index [B], float64 [B] of a regression, ids of a text [B, T].
        answer: what the model took it for, in the same form; see Task.encoded.
        confidence: float64 probability of the answered class [B]; None for regression.
        worst: the rows among them that were answered worst.
        measures: what they contribute to the metrics.
    """

    start: int
    row_id: NDArray[np.uint64]
    target: NDArray[Any]
    answer: NDArray[Any]
    confidence: NDArray[np.float64] | None = None
    worst: tuple[WorstRow, ...] = ()
    measures: Measures = field(default_factory=Measures)


def score(spec: EvaluateSpec, artifact: ArtifactRef, dataset: DatasetVersion, ctx: RunContext) -> Scored:
    """Score the whole test split on `spec.num_workers` Ray tasks at a time.

    Raises:
        DataError: a row the model cannot take, or a label it does not know.
        ModelError, DigestMismatch: the artifact cannot be loaded.
        UserCodeError: the user's network raised.
        TrainingError: the model answered NaN, or a row was not scored exactly once.
        ClusterError: workers were lost again and again, or none was placed in time.
    """
    num_rows = dataset.splits["test"].num_rows
    pieces = [
        Piece(
            store_uri=ctx.store.uri,
            artifact=artifact,
            dataset=dataset,
            start=start,
            stop=stop,
            device="cuda" if spec.resources.num_gpus > 0 else "cpu",
            num_threads=max(1, round(spec.resources.num_cpus)),
            code_dir=ctx.code_dir,
        )
        for start, stop in cut(num_rows, spec.num_workers)
    ]
    return assemble(num_rows, _run(pieces, spec, ctx))


def cut(num_rows: int, num_workers: int) -> list[tuple[int, int]]:
    """Row ranges of the pieces: whole chunks, one a worker or more, at most MAX_PIECE_ROWS each."""
    num_chunks = -(-num_rows // CHUNK_ROWS)
    num_pieces = max(min(num_workers, num_chunks), -(-num_rows // MAX_PIECE_ROWS))
    edges = [num_chunks * i // num_pieces * CHUNK_ROWS for i in range(num_pieces)] if num_pieces else []
    return list(zip(edges, [*edges[1:], num_rows], strict=True)) if edges else []


def assemble(num_rows: int, parts: Iterable[Scored]) -> Scored:
    """Put the parts in row order, after checking that together they hold each row exactly once.

    Raises:
        TrainingError: rows are missing or doubled, or the model answered NaN or infinity.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    times = np.zeros(num_rows, dtype=np.int64)
    for part in ordered:
        if not len(part.row_id) == len(part.target) == len(part.answer) or part.start + len(part.answer) > num_rows:
            raise TrainingError(f"a scoring task answered {len(part.answer)} rows from {part.start} of {num_rows}")
        times[part.start : part.start + len(part.answer)] += 1
    if wrong := int((times != 1).sum()):
        first = int(np.flatnonzero(times != 1)[0])
        raise TrainingError(
            f"{wrong} of {num_rows} test rows were not scored exactly once, the first is row {first} "
            f"(scored {times[first]} times)",
            "run the evaluation again; if it stays so, report it as a bug",
        )
    known = [part.confidence for part in ordered if part.confidence is not None]
    return Scored(
        start=0,
        row_id=np.concatenate([part.row_id for part in ordered]),
        target=np.concatenate([part.target for part in ordered]),
        answer=np.concatenate([part.answer for part in ordered]),
        confidence=np.concatenate(known) if known else None,
        worst=merged([row for part in ordered for row in part.worst]),
        measures=reduce(Measures.__add__, (part.measures for part in ordered), Measures()),
    )


def score_piece(piece: Piece) -> Scored:
    """Score one piece in this process, chunk by chunk."""
    predictor = _predictor(piece.store_uri, piece.artifact.key, piece.artifact.digest, piece.code_dir, piece.device)
    rows = load_rows(open_store(piece.store_uri), piece.dataset, "test", start=piece.start, stop=piece.stop)
    target = encode_target(rows.target, predictor.signature)
    answers: list[NDArray[Any]] = []
    sure: list[NDArray[np.float64]] = []
    worst: list[WorstRow] = []
    measures = Measures()
    for at in range(0, len(rows.row_id), CHUNK_ROWS):
        here = slice(at, at + CHUNK_ROWS)
        columns = {name: column[here] for name, column in rows.columns.items()}
        predictions = predictor.judge(columns, target[here])
        finite = np.isfinite(predictions.values).reshape(len(predictions.values), -1).all(axis=1)
        if not finite.all():
            raise TrainingError(
                f"the model answers NaN or infinity for {int((~finite).sum())} of {len(finite)} test rows "
                f"from row {piece.start + at} on; the first is row id {rows.row_id[at + int(np.argmin(finite))]}",
                "lower train.optimizer.lr, set train.clip_grad_norm, or check the model's forward",
            )
        weight = None if rows.weight is None else rows.weight[here]
        measures += predictor.task.measure(target[here], predictions.values, times_of(weight))
        answers.append(predictor.task.encoded(predictions.values))
        confidence = predictor.task.confidence(predictions.values)
        if confidence is not None:
            sure.append(confidence.astype(np.float64))
        above = worst[-1].loss if len(worst) == NUM_WORST else -1.0
        worst += worst_rows(
            piece.start + at, rows.row_id[here], target[here], predictions.values, columns, predictor.task, above
        )
        worst = list(merged(worst))
    return Scored(
        start=piece.start,
        row_id=rows.row_id,
        target=target,
        answer=np.concatenate(answers),
        confidence=np.concatenate(sure) if sure else None,
        worst=tuple(worst),
        measures=measures,
    )


@lru_cache(maxsize=1)
def _predictor(store_uri: str, key: str, digest: str, code_dir: Path | None, device: str) -> Any:
    """Loaded once a process: Ray gives the next piece to a process that is there already."""
    from raypipe.model.predictor import Predictor  # torch takes seconds to import; only scoring processes need it

    ref = ArtifactRef(key=key, digest=digest)
    return Predictor.load(open_store(store_uri), ref, code_dir=code_dir, device=device)


def begin_process() -> None:
    """Have Ray start a process that a scoring task will find, with the imports that take seconds; waits for nothing."""
    import ray

    ray.remote(_imports).options(num_cpus=0).remote()


def _imports() -> None:
    import_module("raypipe.model.predictor")


def _task(piece: Piece) -> Scored | RaypipeError:
    """Runs in a Ray worker. An error that another try would meet again is an answer, so that it keeps its words."""
    import torch

    torch.set_num_threads(piece.num_threads)
    try:
        return score_piece(piece)
    except RaypipeError as error:
        if error.transient:
            raise
        return error


def _needs_no_place(spec: EvaluateSpec, pieces: list[Piece]) -> bool:
    needs = spec.resources
    return len(pieces) == 1 and not needs.num_gpus and needs.memory_bytes is None


def _run(pieces: list[Piece], spec: EvaluateSpec, ctx: RunContext) -> list[Scored]:
    import ray
    from ray.exceptions import RayError

    # A process that has trained has imported what scoring takes seconds to; what fails there is tried again apart.
    in_trained = ctx.workers.call(_task, pieces[0]) if ctx.workers and _needs_no_place(spec, pieces) else None
    if in_trained is not None:
        with suppress(RayError, RaypipeError):
            return [_answer(ray.get(in_trained))]
    remote = ray.remote(_task)
    options = {**ray_options(spec.resources), "max_retries": 3, "retry_exceptions": [RaypipeError]}
    waiting = [(i, piece) for i, piece in enumerate(pieces)][::-1]
    running: list[Any] = []
    done: list[Scored] = []
    told = heard = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < spec.num_workers:
                i, piece = waiting.pop()
                name = f"{ctx.name}-{ctx.run_id}-evaluate-{i}"
                running.append(remote.options(**options, name=name).remote(piece))
            ready, running = ray.wait(running, timeout=TELL_EVERY_S)
            for ref in ready:
                part = _answer(ray.get(ref))
                if done:  # what has come so far keeps one set of measures, however many parts there are
                    done[0] = replace(done[0], measures=done[0].measures + part.measures)
                    part = replace(part, measures=Measures())
                done.append(part)
            now = time.monotonic()
            heard = now if ready else heard
            if now - heard > MAX_SILENCE_S:
                raise ClusterError(
                    f"evaluate: no scoring task finished in {MAX_SILENCE_S:.0f} s "
                    f"({len(done)} of {len(pieces)} done, {len(running)} placed or waiting for a place)",
                    "look at the cluster's dashboard: is there room for evaluate.resources?",
                )
            if now - told >= TELL_EVERY_S:
                told = now
                scored = sum(len(part.answer) for part in done)
                ctx.progress.count("evaluate", scored, f"{scored} of {pieces[-1].stop} rows scored", rows=scored)
    except RayError as error:
        raise _explained(error) from error
    return done


def _answer(outcome: Scored | RaypipeError) -> Scored:
    if isinstance(outcome, RaypipeError):
        raise outcome
    return outcome


def _explained(error: Exception) -> RaypipeError:
    known = find_known(error)
    if known is not None:
        return known
    cause = list(causes(error))[-1]
    if cause is not error:
        return TrainingError(f"scoring failed: {type(cause).__name__}: {cause}", "the model's forward raised this")
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ClusterError(f"scoring workers were lost more than 3 times: {text}", "give evaluate.resources more memory")
