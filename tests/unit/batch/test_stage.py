"""How many rows go into one output shard, and what is added to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypipe.batch.stage import Answerer, rows_per_shard
from raypipe.errors import DataError
from raypipe.model.predictor import Predictor
from raypipe.records import Column, Signature
from raypipe.spec.batch import BatchSpec
from raypipe.storage.local import LocalFolder
from tests.unit.model.test_sequence_to_sequence import WORDS, version_of


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "shape", "rows"),
    [
        (3000, 1, (), 3072),  # one shard, a whole number of model calls
        (3000, 3, (), 1024),  # some shards for each worker
        (80_000, 2, (), 10_240),
        (None, 2, (), 16_384),  # nobody knows how many
        (None, 1, (), 16_384),
        (10, 8, (), 1024),  # never less than one model call
        (0, 1, (), 1024),
        (10_000_000, 2, (), 100_352),  # bounded in rows
        (10**9, 2, (), 1_000_448),  # but not beyond a thousand shards
        (10**11, 2, (), 2**24),  # until the bytes are too many
        (10_000_000, 2, (64, 64), 4096),  # and in bytes: 32 KB a row
        (10_000_000, 2, (1024, 1024), 1024),
    ],
)
def test_rows_per_shard_are_whole_model_calls_spread_over_workers_and_bounded(
    num_rows: int | None, num_workers: int, shape: tuple[int, ...], rows: int
):
    spec = BatchSpec.model_validate(
        {"source": {"format": "sklearn", "dataset": "iris"}, "output": "out", "num_workers": num_workers}
    )
    signature = Signature(inputs=(Column(name="x", dtype="float32", shape=shape),), task="regression", target="y")
    assert rows_per_shard(num_rows, spec, signature) == rows


def test_texts_are_written_with_their_probability_also_where_there_is_no_row(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    version = version_of(store)
    answerer = Answerer(store.uri, version.artifact, None, "cpu", 1)
    rows = pa.table({"number": list(range(len(WORDS))), "source": WORDS})
    found, none = answerer(rows), answerer(rows.slice(0, 0))
    predictor = Predictor.load(store, version.artifact)
    told = predictor.task.json_rows(predictor.predict({"source": np.array(WORDS, object)}).values)
    assert found["prediction"].to_pylist() == [row["text"] for row in told]
    assert found["probability"].to_pylist() == [float(row["probability"]) for row in told]
    assert found.column_names == ["number", "source", "prediction", "probability"]
    assert none.schema == found.schema
    with pytest.raises(DataError, match="column 'source' holds an empty text"):
        answerer(pa.table({"source": ["ab", ""]}))
