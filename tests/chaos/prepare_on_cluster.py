"""prepare() as the driver of a cluster that is there, in a process of its own, since a process joins one cluster only.

    python -m tests.chaos.prepare_on_cluster ADDRESS FOLDER STORE FANOUT

FOLDER holds Parquet files; rows are cut FANOUT ways at once at most.  A line of JSON on stdout is one event, the last
one the record; so whoever reads them knows how far the work is.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray
from ray.util.state import list_tasks

from raypipe.data import stage
from raypipe.data.shuffle import row_ranges, scatter_all, task_size
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store

SPEC: dict[str, Any] = {
    "source": {"format": "parquet", "path": "*.parquet"},
    "target": "y",
    "split": {"kind": "time", "column": "at", "group": ["who"]},
    "transforms": [
        {"kind": "impute", "columns": ["x0"]},
        {"kind": "standardize", "columns": ["x0", "x1"]},
        {"kind": "one_hot", "columns": ["city"]},
    ],
    "expectations": [{"kind": "unique", "columns": ["id"]}],
    "rows_per_shard": 20_000,
}

RANGE_BYTES = 8 * 2**20
"""So that the rows are cut into several ranges, though they are few."""

PIECE_BYTES = 128 * 2**10
"""So that a task takes a file, and there are many moments at which a node can be lost."""


def main() -> None:
    """See the module."""
    address, folder, store, fanout = sys.argv[1:]
    scatter_all.SAY_EVERY_S = 0.0
    row_ranges.RANGE_BYTES, row_ranges.FANOUT = RANGE_BYTES, int(fanout)
    task_size.PIECE_BYTES = PIECE_BYTES
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    told = Progress("r1", stream=None)
    told.listeners.append(lambda event: print(json.dumps(event), flush=True))
    spec = DataSpec.model_validate({**SPEC, "root": folder, "read_parallelism": len(list(Path(folder).iterdir()))})
    record = stage.prepare(spec, RunContext(run_id="r1", store=open_store(store), progress=told))
    tasks: list[Any] = list_tasks(address, detail=True, limit=10_000)
    told.say("data", "tasks that ran again", num_again=sum(task.attempt_number > 0 for task in tasks))
    print(record.model_dump_json())


if __name__ == "__main__":
    main()
