"""Rows per second and peak memory of preparing a table, beside polars; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_prepare.py [ROWS [ROUNDS [TIMES]]]

ROWS rows (default 5,000,000) of 20 columns, numbers and categories, in Parquet files of 250,000-row groups.  Both sides
read all of it, check every value (no nulls, no infinities), split 70/10/20 by a hash of the whole row, order the rows
of each split by that hash, fit standardize and one_hot on train, and write the splits as Arrow files on the same disk:
- ours: raypipe.data.stage.prepare on a Ray whose workers are up, with the object store Ray gives itself: `ray_start_s`,
  and `first_s` for 4,000 rows that make Ray start the workers, are printed by themselves;
- bounded: the same with an object store of 512 MiB, less than the rows take;
- polars: one process, as many threads as cores, its fastest way we found;
- polars_all: the same, and what ours keeps beside: a profile of every column, and a SHA-256 of what was written.
They take turns; medians are compared.  Then TIMES (default 10) as many rows, `bounded` alone, once, and beside
`bounded`: both sizes meet the same limit.
Peak memory is the proportional set size of the whole process tree, object store included, sampled every 0.2 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES, GROUP_ROWS = 4, 250_000
NUMBERS = [f"n{i}" for i in range(10)]
COUNTS = [f"c{i}" for i in range(4)]
CATEGORIES = [f"k{i}" for i in range(5)]
SAMPLE_ROWS = 10_000
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BOUNDED_BYTES = 512 * 2**20


def main(num_rows: int, rounds: int, times: int) -> None:
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        small, out = Path(folder, "small"), Path(folder, "out")
        write_source(small, num_rows)
        took: dict[str, list[dict[str, Any]]] = {"ours": [], "bounded": [], "polars": [], "polars_all": []}
        for _ in range(rounds):
            for side, results in took.items():
                results.append(measured(side, small, out))
        median = {side: statistics.median(r["prepare_s"] for r in results) for side, results in took.items()}
        memory = {side: statistics.median(r["peak_mib"] for r in results) for side, results in took.items()}
        headline = {
            "bench": "prepare",
            "rows": num_rows,
            "columns": 20,
            "cpu_cores": os.cpu_count(),
            "machine": platform.machine(),
            **{f"{side}_rows_per_s": round(num_rows / s) for side, s in median.items()},
            **{f"{side}_peak_mib": round(m) for side, m in memory.items()},
            "ours_to_polars": round(median["polars"] / median["ours"], 2),
            "ours_to_polars_all": round(median["polars_all"] / median["ours"], 2),
            "bounded_to_polars": round(median["polars"] / median["bounded"], 2),
        }
        if times > 1:
            large = Path(folder, "large")
            write_source(large, num_rows * times)
            found = measured("bounded", large, out)
            headline["times"] = times
            headline["time_ratio"] = round(found["prepare_s"] / median["bounded"], 2)
            headline["memory_ratio"] = round(found["peak_mib"] / memory["bounded"], 2)
        print(json.dumps(headline), flush=True)


def write_source(folder: Path, num_rows: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    levels = [np.array([f"{name}-level-{i:02d}" for i in range(4 * (j + 1))]) for j, name in enumerate(CATEGORIES)]
    for number in range(FILES):
        path = folder / f"{number}.parquet"
        writer = None
        left = num_rows // FILES
        while left:
            rows = min(left, GROUP_ROWS)
            left -= rows
            table = pa.table(
                {
                    **{name: rng.normal(i, i + 1, rows) for i, name in enumerate(NUMBERS)},
                    **{name: rng.integers(0, 10 ** (i + 1), rows) for i, name in enumerate(COUNTS)},
                    **{n: lev[rng.integers(0, len(lev), rows)] for n, lev in zip(CATEGORIES, levels, strict=True)},
                    "label": rng.integers(0, 2, rows),
                }
            )
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer:
            writer.close()


def measured(side: str, source: Path, out: Path) -> dict[str, Any]:
    """One run in a process tree of its own: what it printed, and its peak memory."""
    subprocess.run(["rm", "-rf", str(out)], check=True)
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", side, str(source), str(out)], stdout=subprocess.PIPE, text=True
    )
    peak = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], tree_pss_mib(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = child.communicate()
    done.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{side} failed with {child.returncode}")
    found = {**json.loads(printed.splitlines()[-1]), "peak_mib": round(peak[0])}
    print(json.dumps(found), flush=True)
    return found


def tree_pss_mib(pid: int) -> float:
    """Memory of a process and all below it; pages shared by several count once."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
            parents.setdefault(parent, []).append(int(entry))
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        todo += parents.get(one, [])
        try:
            lines = Path("/proc", str(one), "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def ours(source: Path, out: Path, object_store_bytes: int | None = None) -> dict[str, Any]:
    home = Path(out, "home")
    home.mkdir(parents=True)
    os.environ.update(HOME=str(home), RAY_TMPDIR=tempfile.mkdtemp(prefix="rp"), RAY_DATA_DISABLE_PROGRESS_BARS="1")
    import ray

    from raypipe.data.stage import prepare
    from raypipe.spec.data import DataSpec
    from raypipe.storage import open_store
    from raypipe.testing.fakes import run_context

    def spec(path: Path, parallelism: int | None = None) -> DataSpec:
        return DataSpec.model_validate(
            {
                "source": {"format": "parquet", "path": str(path)},
                "target": "label",
                "transforms": [
                    {"kind": "standardize", "columns": [*NUMBERS, *COUNTS]},
                    {"kind": "one_hot", "columns": CATEGORIES},
                ],
                "read_parallelism": parallelism,
            }
        )

    start = time.perf_counter()
    ray.init(
        num_cpus=os.cpu_count(), object_store_memory=object_store_bytes, include_dashboard=False, log_to_driver=False
    )
    up = time.perf_counter()
    write_source(out / "few", 4_000)
    prepare(spec(out / "few", 4), run_context(open_store(str(out / "few-store"))))
    warm = time.perf_counter()
    dataset = prepare(spec(source), run_context(open_store(str(out / "store"))))
    done = time.perf_counter()
    ray.shutdown()
    sizes = {name: split.num_rows for name, split in dataset.splits.items()}
    return {
        "side": "bounded" if object_store_bytes else "ours",
        "ray_start_s": round(up - start, 2),
        "first_s": round(warm - up, 2),
        "prepare_s": round(done - warm, 2),
        **sizes,
    }


def with_polars(source: Path, out: Path, keeps_all: bool = False) -> dict[str, Any]:
    import polars as pl  # pyright: ignore[reportMissingImports]

    out.mkdir(parents=True)
    start = time.perf_counter()
    rows = pl.scan_parquet(source / "*.parquet").collect()
    bad = rows.select(pl.any_horizontal(pl.all().is_null().any(), *[~pl.col(n).is_finite().all() for n in NUMBERS]))
    if bad.item():
        raise SystemExit("bad values")
    rows = rows.with_columns(rows.hash_rows().alias("row_id")).sort("row_id")
    share = pl.col("row_id").cast(pl.Float64) * 2.0**-64
    splits = {
        "test": rows.filter(share < 0.2),
        "val": rows.filter((share >= 0.2) & (share < 0.3)),
        "train": rows.filter(share >= 0.3),
    }
    train = splits["train"]
    numbers = [*NUMBERS, *COUNTS]
    fitted = train.select(
        *[pl.col(n).mean().alias(f"{n}_mean") for n in numbers], *[pl.col(n).std().alias(f"{n}_std") for n in numbers]
    ).to_dicts()
    categories = {name: train[name].unique().sort().to_list() for name in CATEGORIES}
    for name, part in splits.items():
        part.write_ipc(out / f"{name}.arrow")
    (out / "fitted.json").write_text(json.dumps([fitted, categories]))
    if keeps_all:
        (out / "profile.json").write_text(json.dumps(profile(rows), default=str))
        for name in splits:
            (out / f"{name}.sha256").write_text(hashlib.sha256((out / f"{name}.arrow").read_bytes()).hexdigest())
    done = time.perf_counter()
    side = "polars_all" if keeps_all else "polars"
    return {"side": side, "prepare_s": round(done - start, 2), **{n: len(p) for n, p in splits.items()}}


def profile(rows: Any) -> dict[str, Any]:
    """What DataProfile holds, with polars: counts, extremes, moments, top values; quantiles, histograms of a sample."""
    import polars as pl  # pyright: ignore[reportMissingImports]

    col = pl.col
    numbers = [*NUMBERS, *COUNTS, "label"]
    sample = rows.head(SAMPLE_ROWS)  # in order of their hash
    told = rows.select(
        pl.all().null_count().name.suffix("_nulls"),
        *[
            stat.alias(f"{name}_{what}")
            for name in numbers
            for what, stat in {
                "min": col(name).min(),
                "max": col(name).max(),
                "mean": col(name).mean(),
                "std": col(name).std(),
                "zeros": (col(name) == 0).sum(),
            }.items()
        ],
        *[col(name).str.len_chars().mean().alias(f"{name}_length") for name in CATEGORIES],
    ).to_dicts()[0]
    told |= {f"{name}_q{q:g}": sample[name].quantile(q) for name in numbers for q in QUANTILES}
    told |= {f"{name}_histogram": sample[name].hist(bin_count=20).to_dicts() for name in numbers}
    few = [name for name in [*COUNTS, "label", *CATEGORIES] if rows[name].head(4096).n_unique() <= 1000]
    return told | {f"{name}_top": rows[name].value_counts(sort=True).head(100).to_dicts() for name in few}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sides = {
            "ours": ours,
            "bounded": partial(ours, object_store_bytes=BOUNDED_BYTES),
            "polars": with_polars,
            "polars_all": partial(with_polars, keeps_all=True),
        }
        run = sides[sys.argv[2]]
        print(json.dumps(run(Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        numbers = [int(arg) for arg in sys.argv[1:]]
        main(*numbers, *[5_000_000, 3, 10][len(numbers) :])
