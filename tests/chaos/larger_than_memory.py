"""A training on more rows than Ray's object store holds, in a process of its own, since the store's size is set once.

    python -m tests.chaos.larger_than_memory FOLDER NUM_FEATURES

FOLDER/in holds Parquet files; FOLDER/code gets the network. The last line of stdout says how it went.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray

from raypipe.data.stage import prepare
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress, read_events
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import open_store
from raypipe.train.stage import train

OBJECT_STORE_BYTES = 80 * 10**6
NUM_WORKERS, BATCH_ROWS = 2, 256
ROWS_PER_SHARD, WINDOW_ROWS = 2_000, 2_000
EARLY_CALLS = 100
"""A fifth of the epoch: every window and shard buffer has been in use by then, and what allocators keep of them."""

WATCHED_NETWORK = '''
import os
import re
from pathlib import Path

from torch import nn


def own_bytes():
    """Memory that is this process's alone: no mapped file, and none of the object store it looks into."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) * 1024


class Watched(nn.Module):
    """A linear layer that notes what memory its process has at an early call, and the most at any call from there."""

    def __init__(self, folder, num_features, early_calls):
        super().__init__()
        self.layer = nn.Linear(num_features, 2)
        self.file = Path(folder) / f"memory-{os.getpid()}"
        self.early_calls = early_calls
        self.calls = self.early = self.most = 0

    def forward(self, x):
        self.calls += 1
        if self.calls >= self.early_calls:
            self.early = self.early or own_bytes()
            self.most = max(self.most, own_bytes())
            self.file.write_text(f"{self.early} {self.most}")
        return self.layer(x)


def build(folder, num_features, early_calls):
    return Watched(folder, num_features, early_calls)
'''


def pipeline(folder: Path, num_features: int) -> PipelineSpec:
    """Two workers that stream everything, one epoch."""
    return PipelineSpec.model_validate(
        {
            "name": "large",
            "data": {
                "root": os.fspath(folder / "in"),
                "source": {"format": "parquet", "path": "*.parquet"},
                "target": "y",
                "split": {"val_frac": 0.1, "test_frac": 0.1},
                "rows_per_shard": ROWS_PER_SHARD,
            },
            "model": {
                "kind": "import",
                "path": "watched.py:build",
                "args": {
                    "folder": os.fspath(folder / "code"),
                    "num_features": num_features,
                    "early_calls": EARLY_CALLS,
                },
            },
            "train": {
                "num_workers": NUM_WORKERS,
                "resources": {"num_cpus": 0.5},
                "epochs": 1,
                "global_batch_size": BATCH_ROWS,
                "rows": {"resident_bytes": 0, "window_rows": WINDOW_ROWS},
            },
        }
    )


def main(folder: Path, num_features: int) -> dict[str, Any]:
    code_dir = folder / "code"
    code_dir.mkdir()
    (code_dir / "watched.py").write_text(WATCHED_NETWORK)
    store = open_store(os.fspath(folder / "store"))
    ray.init(num_cpus=3, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=True, log_to_driver=False)
    ctx = RunContext(run_id="r1", store=store, progress=Progress("r1"), name="large", code_dir=code_dir)
    spec = pipeline(folder, num_features)
    dataset = prepare(spec.data, ctx)
    result = train(spec, dataset, ctx)
    ctx.progress.save(store)
    events = read_events(store, "r1")
    return {
        "num_rows": {name: split.num_rows for name, split in dataset.splits.items()},
        "num_steps": result.num_steps,
        "metrics": result.metrics,
        "rows": next(event["text"] for event in events if event.get("event") == "rows"),
        "memory": [[int(n) for n in file.read_text().split()] for file in sorted(code_dir.glob("memory-*"))],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))), flush=True)
    ray.shutdown()
