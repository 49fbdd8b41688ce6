"""Memory of the driver while it prepares many files; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_driver_memory.py [FILES [FILE_MIB]]

FILES Parquet files (default 400) of FILE_MIB MiB (default 16): floating-point numbers that do not compress, an id that
must be unique, a time the splits are cut by, the label.  raypipe.data.stage.prepare in a process of its own, on a Ray
with an object store of 1 GiB whose workers are up, a quarter of the files first and then all of them.

`driver_growth_mib`: by how much the driver's anonymous memory (no mapped file, nothing of the object store) is at most
larger than before that call; what it keeps in a first call for ever is not counted.  `moved`: bytes of the pieces that
rows travelled in, in times their packed bytes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

OBJECT_STORE_BYTES = 2**30
NUM_NUMBERS = 18
ROW_BYTES = 8 * (NUM_NUMBERS + 2)
SAMPLE_S = 0.1


def main(num_files: int, file_mib: int) -> None:
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        write_source(Path(folder, "in"), num_files, file_mib * 2**20 // ROW_BYTES)
        child = [sys.executable, __file__, "--child", folder]
        printed = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    for result in results:
        print(json.dumps(result), flush=True)
    headline = {
        "bench": "driver_memory",
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "object_store_mib": OBJECT_STORE_BYTES // 2**20,
        "file_mib": file_mib,
        **results[-1],
    }
    print(json.dumps(headline), flush=True)


def write_source(folder: Path, num_files: int, rows: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    drawn = [random.normal(size=rows) for _ in range(NUM_NUMBERS)]
    for number in range(num_files):
        ids = np.arange(number * rows, (number + 1) * rows)
        numbers = {f"x{i}": values + number for i, values in enumerate(drawn)}
        named = {"id": ids, **numbers, "at": ids * 1.5, "y": ids % 2}
        pq.write_table(pa.table(named), folder / f"{number:05d}.parquet", use_dictionary=False, compression="none")


def own_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None, "Linux tells it"
    return int(found[1]) * 1024


def prepare_in(folder: Path) -> None:
    os.environ.update(HOME=str(folder), RAY_TMPDIR=tempfile.mkdtemp(prefix="rp"), RAY_DATA_DISABLE_PROGRESS_BARS="1")
    import ray

    from raypipe.data.stage import prepare
    from raypipe.spec.data import DataSpec
    from raypipe.storage import open_store
    from raypipe.testing.fakes import run_context

    files = sorted((folder / "in").iterdir())

    def measured(num_files: int, name: str) -> dict[str, Any]:
        some = folder / name
        some.mkdir()
        for file in files[:num_files]:
            os.link(file, some / file.name)
        spec = DataSpec.model_validate(
            {
                "source": {"format": "parquet", "path": str(some)},
                "target": "y",
                "split": {"kind": "time", "column": "at"},
                "features": [*(f"x{i}" for i in range(NUM_NUMBERS)), "id"],
                "expectations": [{"kind": "unique", "columns": ["id"]}],
            }
        )
        ctx = run_context(open_store(str(folder / f"store-{name}")))
        before = most = own_bytes()
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(SAMPLE_S):
                most = max(most, own_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        made = prepare(spec, ctx)
        took_s = time.perf_counter() - start
        done.set()
        watcher.join()
        ctx.progress.save(ctx.store)
        from raypipe.runtime.progress import read_events

        told = next(event for event in read_events(ctx.store, ctx.run_id) if "moved_bytes" in event)
        return {
            "files": num_files,
            "rows": sum(split.num_rows for split in made.splits.values()),
            "source_mib": sum(file.stat().st_size for file in files[:num_files]) // 2**20,
            "prepare_s": round(took_s, 1),
            "driver_mib": round(before / 2**20),
            "driver_growth_mib": round((most - before) / 2**20, 1),
            "shards": sum(len(split.shards) for split in made.splits.values()),
            "moved": round(told["moved_bytes"] / told["packed_bytes"], 2),
        }

    ray.init(
        num_cpus=os.cpu_count(),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
    )
    measured(max(1, len(files) // 20), "few")
    for num_files, name in ((max(1, len(files) // 4), "quarter"), (len(files), "all")):
        print(json.dumps(measured(num_files, name)), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        prepare_in(Path(sys.argv[2]))
    else:
        numbers = [int(arg) for arg in sys.argv[1:]]
        main(*numbers, *[400, 16][len(numbers) :])
