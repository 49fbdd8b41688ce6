"""Each row once, the same answers at any number of workers; scored in this process, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import DataError, DigestMismatch, TrainingError
from raypipe.evaluate.score import CHUNK_ROWS, MAX_PIECE_ROWS, Piece, Scored, assemble, cut, score_piece
from raypipe.model.predictor import Predictor
from raypipe.model.tasks import task_of
from raypipe.records import ArtifactRef, DatasetVersion
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing import tiny


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


def piece(store: Store, artifact: ArtifactRef, dataset: DatasetVersion, start: int, stop: int) -> Piece:
    return Piece(store.uri, artifact, dataset, start, stop, device="cpu", num_threads=1, code_dir=None)


def scored(store: Store, artifact: ArtifactRef, dataset: DatasetVersion, num_workers: int) -> Scored:
    num_rows = dataset.splits["test"].num_rows
    pieces = [piece(store, artifact, dataset, *bounds) for bounds in cut(num_rows, num_workers)]
    return assemble(num_rows, [score_piece(each) for each in reversed(pieces)])


def part(start: int, count: int) -> Scored:
    return Scored(start, np.arange(count, dtype=np.uint64), np.zeros(count, np.int64), np.zeros(count, np.int64))


@given(st.integers(1, 5 * MAX_PIECE_ROWS), st.integers(1, 100))
def test_cut_gives_every_row_once_in_whole_chunks(num_rows: int, num_workers: int):
    pieces = cut(num_rows, num_workers)
    assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
    assert pieces[-1][1] == num_rows
    assert all(start % CHUNK_ROWS == 0 and 0 < stop - start <= MAX_PIECE_ROWS for start, stop in pieces)
    assert len(pieces) >= min(num_workers, -(-num_rows // CHUNK_ROWS))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("rows_per_shard", [700, 1024, 5000])
def test_score_at_any_number_of_workers_gives_the_same_bits(store: LocalFolder, task, rows_per_shard: int):
    dataset = tiny.dataset(store, num_test_rows=4200, rows_per_shard=rows_per_shard, task=task)
    artifact = tiny.trained(store, dataset).artifact
    alone = scored(store, artifact, dataset, 1)
    for num_workers in (2, 3, 5, 50):
        together = scored(store, artifact, dataset, num_workers)
        for name in ("row_id", "target", "answer"):
            assert getattr(alone, name).tobytes() == getattr(together, name).tobytes()
        kind = task_of(dataset.signature)
        assert kind.metrics(alone.measures) == kind.metrics(together.measures)


def test_score_answers_as_the_predictor_does(store: LocalFolder):
    dataset = tiny.dataset(store, num_test_rows=1500)
    artifact = tiny.trained(store, dataset).artifact
    from raypipe.data.shards import load_rows

    rows = load_rows(store, dataset, "test")
    answers = Predictor.load(store, artifact).predict(rows.columns).labels()
    assert np.array_equal(scored(store, artifact, dataset, 2).answer, answers)


@pytest.mark.parametrize(
    ("starts_and_counts", "told"),
    [
        ([(0, 4)], "6 of 10 test rows .* the first is row 4 .scored 0 times"),
        ([(0, 6), (4, 6)], "2 of 10 test rows .* the first is row 4 .scored 2 times"),
        ([(0, 10), (0, 10)], "10 of 10"),
        ([], "10 of 10"),
    ],
)
def test_assemble_rows_missing_or_doubled_is_an_error_that_counts_them(starts_and_counts, told: str):
    with pytest.raises(TrainingError, match=told):
        assemble(10, [part(start, count) for start, count in starts_and_counts])


def test_assemble_answers_beyond_the_split_are_an_error():
    with pytest.raises(TrainingError, match="answered 8 rows from 4 of 10"):
        assemble(10, [part(0, 4), part(4, 8)])


def test_assemble_fewer_answers_than_rows_is_an_error():
    whole = part(0, 10)
    with pytest.raises(TrainingError, match="answered 9 rows from 0 of 10"):
        assemble(10, [Scored(0, whole.row_id, whole.target, whole.answer[:-1])])


def test_score_of_a_model_that_answers_infinity_is_an_error_that_names_the_row(store: LocalFolder):
    dataset = tiny.dataset(store, num_test_rows=1500, task="regression")
    artifact = tiny.trained(store, dataset, strength=3e38).artifact
    with pytest.raises(TrainingError, match=r"answers NaN or infinity for .* the first is row id"):
        scored(store, artifact, dataset, 1)


def test_score_of_a_label_the_model_does_not_know_is_an_error_that_names_it(store: LocalFolder):
    dataset = tiny.dataset(store, num_test_rows=50)
    two = dataset.model_copy(
        update={"signature": dataset.signature.model_copy(update={"classes": ("no", "perhaps", "never")})}
    )
    artifact = tiny.trained(store, two).artifact
    with pytest.raises(DataError, match="holds 'yes'"):
        scored(store, artifact, two, 1)


def test_score_of_a_damaged_shard_is_an_error_that_names_it(store: LocalFolder):
    dataset = tiny.dataset(store, num_test_rows=1500)
    artifact = tiny.trained(store, dataset).artifact
    key = dataset.splits["test"].shards[1].key
    store.write(key, store.read(key)[:-1] + b"?")
    with pytest.raises(DigestMismatch, match="is damaged"):
        scored(store, artifact, dataset, 2)
