"""Folders of many small files: what listing, planning and preparing take a file; JSON lines, the last is the headline.

    .venv/bin/python tests/bench/bench_listing.py [FILES [FORMAT]]

FILES recordings (default 100,000) of 8 samples in ten folders, with a table that names the speaker of each, and a tenth
of them, both in a process of its own; with FORMAT csv or jsonl as many tables of two rows.  `list_us_a_file`,
`plan_us_a_file`: CPU of the driver; `prepare_us_a_file`: wall clock of raypipe.data.stage.prepare on two CPUs.
`plan_bytes_a_file`: what the driver holds when all is planned; `sent_bytes_a_file`: of that, what goes to the tasks;
`largest_task_bytes`: what the largest of these carries; `driver_growth_mib`: by how much the driver's memory of its own
is at most larger while it prepares.  `record_bytes`, `longest_line`: of the record and of what was told, which hold no
list of files.  `superlinear`: a figure of all files in that of a tenth of them; above 1 it grows faster than they do.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import threading
import time
import wave
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import psutil

NUM_FOLDERS, NUM_SPEAKERS = 10, 100
SAMPLE_S = 0.1


def main(num_files: int, form: str) -> None:
    results: list[dict[str, Any]] = []
    for num in (num_files // 10, num_files):
        with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
            (write_recordings if form == "sound" else write_tables)(Path(folder), num, form)
            child = [sys.executable, __file__, "--child", folder, str(num), form]
            printed = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
        results.append(json.loads([line for line in printed.splitlines() if line.startswith("{")][-1]))
        print(json.dumps(results[-1]), flush=True)
    few, all_files = results
    headline = {
        "bench": "listing",
        "format": form,
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        **all_files,
        "superlinear": {
            name: round(all_files[name] / few[name], 2) for name in all_files if name.endswith("_us_a_file")
        },
    }
    print(json.dumps(headline), flush=True)


def write_recordings(folder: Path, num_files: int, form: str) -> None:
    del form
    for number in range(NUM_FOLDERS):
        (folder / "in" / f"word_{number}").mkdir(parents=True)
    with open(folder / "speakers.csv", "w") as table:
        table.write("file,label,speaker\n")
        for i in range(num_files):
            name = f"word_{i % NUM_FOLDERS}/recording_{i:07d}.wav"
            with wave.open(str(folder / "in" / name), "wb") as file:
                file.setparams((1, 2, 1000, 0, "NONE", ""))
                file.writeframes(i.to_bytes(4, "little") * 4)
            table.write(f"{name},{i % NUM_FOLDERS},speaker_{i % NUM_SPEAKERS}\n")


def write_tables(folder: Path, num_files: int, form: str) -> None:
    for number in range(NUM_FOLDERS):
        (folder / "in" / f"word_{number}").mkdir(parents=True)
    for i in range(num_files):
        rows = [{"a": i, "b": j / 8, "label": f"word_{i % NUM_FOLDERS}"} for j in range(2)]
        lines = {
            "csv": ["a,b,label", *(",".join(map(str, row.values())) for row in rows)],
            "jsonl": [json.dumps(row) for row in rows],
        }[form]
        (folder / "in" / f"word_{i % NUM_FOLDERS}" / f"table_{i:07d}.{form}").write_text("\n".join(lines) + "\n")


def described(form: str) -> dict[str, Any]:
    """Of a pipeline file what is below `data`."""
    source: dict[str, Any] = {"format": form, "path": "in"}
    if form == "sound":
        source |= {"sample_rate": 1000, "duration_s": 0.008, "label": {"path": "speakers.csv"}}
        return {"source": source, "target": "label", "split": {"kind": "grouped", "group": ["speaker"]}}
    return {"source": source, "target": "label", "split": {"kind": "hash"}}


def measure(folder: Path, num_files: int, form: str) -> None:
    os.environ.update(HOME=str(folder), RAY_TMPDIR=tempfile.mkdtemp(prefix="rp"), RAY_DATA_DISABLE_PROGRESS_BARS="1")
    import ray
    import ray.cloudpickle

    from raypipe.data.formats import FORMATS
    from raypipe.data.formats.datasource import FilesDatasource
    from raypipe.data.masking import UNMASKED
    from raypipe.data.stage import prepare
    from raypipe.pipeline.plan import source_fingerprint
    from raypipe.spec.data import DataSpec
    from raypipe.storage import open_store
    from raypipe.testing.fakes import run_context

    spec = DataSpec.model_validate({"root": str(folder), **described(form)})
    start = time.process_time()
    source_fingerprint(spec)
    listed_s = time.process_time() - start
    before = own_bytes()
    start = time.process_time()
    parts, read_part = FORMATS[spec.source.format].plan(spec.source, str(folder))
    planned_s = time.process_time() - start
    plan_bytes = own_bytes() - before
    sent_bytes = sum(len(pickle.dumps(part)) for part in parts)
    dumps: Any = vars(ray.cloudpickle)["dumps"]  # which Ray does not declare
    tasks = FilesDatasource(parts, read_part, spec.source, UNMASKED, True).get_read_tasks(1)
    largest_task_bytes = max(len(dumps(task)) for task in tasks)
    del parts, tasks
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ctx = run_context(open_store(str(folder / "store")))
    told: list[str] = []
    say = ctx.progress.say
    ctx.progress.say = lambda stage, text, **fields: (told.append(text), say(stage, text, **fields))[1]  # type: ignore
    most, is_done = [own_bytes()], threading.Event()
    before = most[0]

    def watch() -> None:
        while not is_done.wait(SAMPLE_S):
            most[0] = max(most[0], own_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    record = prepare(spec, ctx)
    prepared_s = time.perf_counter() - start
    is_done.set()
    watcher.join()
    ray.shutdown()
    result = {
        "files": num_files,
        "list_us_a_file": round(listed_s / num_files * 1e6, 1),
        "plan_us_a_file": round(planned_s / num_files * 1e6, 1),
        "prepare_us_a_file": round(prepared_s / num_files * 1e6, 1),
        "plan_bytes_a_file": round(plan_bytes / num_files),
        "sent_bytes_a_file": round(sent_bytes / num_files),
        "largest_task_bytes": largest_task_bytes,
        "driver_growth_mib": round((most[0] - before) / 2**20),
        "record_bytes": len(record.model_dump_json()),
        "longest_line": max(map(len, told)),
    }
    print(json.dumps(result), flush=True)


def own_bytes() -> int:
    """Of this process's memory, what no other shares."""
    return psutil.Process().memory_full_info().uss


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else "sound")
