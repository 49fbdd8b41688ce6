"""CSV of few and of many columns with equal cells: CPU seconds of planning, reading and checking; JSON lines.

    .venv/bin/python tests/bench/bench_wide.py [CELLS]

CELLS (default 4,000,000) numbers in 200, 2,000 and 20,000 columns, a tenth of them with gaps; each in a process of its
own, three times in turn, medians.  `cpu_s`: user and system time of what a task of the data stage does to all rows,
without Ray: recognising, reading into tables, one schema, checking and hashing.  `superlinear`: CPU of the widest in
that of the narrowest.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

WIDTHS = (200, 2_000, 20_000)
REPEATS = 3


def main(num_cells: int) -> None:
    runs: dict[int, list[dict[str, Any]]] = {width: [] for width in WIDTHS}
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        for width in WIDTHS:
            write(Path(folder) / f"{width}.csv", width, num_cells // width)
        for _ in range(REPEATS):
            for width in WIDTHS:
                child = [sys.executable, __file__, "--child", str(Path(folder) / f"{width}.csv")]
                printed = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
                runs[width].append(json.loads(printed.splitlines()[-1]))
    cpu_s: dict[int, float] = {}
    for width, results in runs.items():
        steps = {name: round(statistics.median(one[name] for one in results), 3) for name in results[0]}
        cpu_s[width] = steps["cpu_s"]
        print(json.dumps({"columns": width, **steps}), flush=True)
    headline = {
        "bench": "wide",
        "cells": num_cells,
        "cpu_s": cpu_s,
        "superlinear": round(cpu_s[WIDTHS[-1]] / cpu_s[WIDTHS[0]], 2),
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
    }
    print(json.dumps(headline), flush=True)


def write(path: Path, num_columns: int, num_rows: int) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    names = [f"column_{i}" for i in range(num_columns - 1)]
    with open(path, "w") as file:
        file.write(",".join([*names, "y"]) + "\n")
        for row in range(num_rows):
            cells = [f"{value:.3f}" for value in random.normal(size=num_columns - 1)]
            cells[row % 10 :: 10] = [""] * len(cells[row % 10 :: 10])
            file.write(",".join([*cells, str(row % 2)]) + "\n")


def measure(path: Path) -> None:
    import time

    import pyarrow as pa

    from raypipe.data.checks.schema import fitting_schema, types_of
    from raypipe.data.formats import FORMATS
    from raypipe.data.formats.datasource import read_group
    from raypipe.data.shuffle.recognise import recognise
    from raypipe.data.shuffle.scatter import ScatterJob, scatter_blocks
    from raypipe.spec.data import DataSpec

    source = {"format": "csv", "path": path.name}
    names = path.open().readline().strip().split(",")[:-1]
    impute = [{"kind": "impute", "columns": names}]
    spec = DataSpec.model_validate({"root": str(path.parent), "source": source, "target": "y", "transforms": impute})
    pa.set_cpu_count(1)
    marks = [time.process_time()]
    spec, _ = recognise(spec)
    marks.append(time.process_time())
    parts, read_part = FORMATS["csv"].plan(spec.source, str(path.parent), is_judged=True)
    tables = list(read_group(parts, read_part, None, is_judged=True))
    marks.append(time.process_time())
    profiles = tuple(types_of(table) for table in tables)
    schema = fitting_schema(spec, profiles)
    marks.append(time.process_time())
    scatter_blocks(ScatterJob(spec, schema, profiles), 1, "source", None, *tables)
    marks.append(time.process_time())
    steps = ("recognise_s", "read_s", "schema_s", "check_s")
    spent = {name: after - before for name, before, after in zip(steps, marks, marks[1:], strict=False)}
    print(json.dumps({"cpu_s": marks[-1] - marks[0], **spent}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000)
