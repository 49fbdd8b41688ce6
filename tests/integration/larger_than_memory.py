"""A training on more rows than Ray's object store holds, in a process of its own, since the store's size is set once.

    python -m tests.integration.larger_than_memory FOLDER NUM_FEATURES

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
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout, open_store
from raypipe.train.stage import train

OBJECT_STORE_BYTES = 80 * 10**6
ROWS_PER_SHARD, WINDOW_ROWS = 8_000, 4_000

WATCHED_NETWORK = '''
import os
import resource
from pathlib import Path

from torch import nn

EARLY_CALLS = 20


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Watched(nn.Module):
    """A linear layer that notes the most memory its process has had: at an early call, and at the last."""

    def __init__(self, folder, num_features):
        super().__init__()
        self.layer = nn.Linear(num_features, 2)
        self.file = Path(folder) / f"peak-{os.getpid()}"
        self.calls = 0
        self.early = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == EARLY_CALLS:
            self.early = peak_bytes()
        self.file.write_text(f"{self.early} {peak_bytes()}")
        return self.layer(x)


def build(folder, num_features):
    return Watched(folder, num_features)
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
                "args": {"folder": os.fspath(folder / "code"), "num_features": num_features},
            },
            "train": {
                "num_workers": 2,
                "resources": {"num_cpus": 0.5},
                "epochs": 1,
                "global_batch_size": 256,
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
    events = [json.loads(line) for line in store.read(layout.events("r1")).splitlines()]
    return {
        "num_rows": {name: split.num_rows for name, split in dataset.splits.items()},
        "num_steps": result.num_steps,
        "metrics": result.metrics,
        "rows": next(event["text"] for event in events if event.get("event") == "rows"),
        "peaks": [[int(n) for n in file.read_text().split()] for file in sorted(code_dir.glob("peak-*"))],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))), flush=True)
    ray.shutdown()
