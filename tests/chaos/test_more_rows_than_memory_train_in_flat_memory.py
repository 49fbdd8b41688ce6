"""Four times as many rows as Ray's object store holds are prepared and trained on, in memory that does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos import larger_than_memory
from tests.chaos.larger_than_memory import BATCH_ROWS, EARLY_CALLS, NUM_WORKERS, OBJECT_STORE_BYTES

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
NUM_FEATURES = 512
ROW_BYTES = 4 * NUM_FEATURES
NUM_ROWS = 4 * OBJECT_STORE_BYTES // ROW_BYTES
ROWS_PER_FILE = 16_000


def _write_parquet(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for start in range(0, NUM_ROWS, ROWS_PER_FILE):
        x = random.normal(size=(min(ROWS_PER_FILE, NUM_ROWS - start), NUM_FEATURES)).astype(np.float32)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES)
        table = pa.table({"x": rows, "y": (x[:, 0] > 0).astype(np.int64)})
        pq.write_table(
            table, folder / f"{start:07d}.parquet", compression="none", use_dictionary=False, row_group_size=4000
        )


def test_parquet_four_times_the_object_store_trains_with_flat_worker_memory(private_dir: Path, tmp_path: Path) -> None:
    _write_parquet(tmp_path / "in")
    scratch = private_dir / "large"
    scratch.mkdir()
    command = [sys.executable, "-m", larger_than_memory.__name__, str(tmp_path), str(NUM_FEATURES)]
    env = {**os.environ, "RAY_TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}

    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=170)

    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    num_train = found["num_rows"]["train"]
    assert sum(found["num_rows"].values()) == NUM_ROWS, "no row is lost"
    assert found["num_steps"] == -(-num_train // BATCH_ROWS)
    assert found["metrics"]["val_accuracy"] > 0.6
    assert "train streamed in windows" in found["rows"]
    # A reader that keeps what it read would grow by all rows that come after the early calls.
    to_come = (num_train - EARLY_CALLS * BATCH_ROWS) // NUM_WORKERS * ROW_BYTES
    assert len(found["memory"]) == NUM_WORKERS
    for early, most in found["memory"]:
        assert 0 < early <= most < early + to_come / 2, f"grew by {most - early} of {to_come} bytes to come"
