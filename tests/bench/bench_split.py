"""Memory and time of the task that decides where splits are cut; one JSON line a kind of split.

    .venv/bin/python tests/bench/bench_split.py [ROWS [CLASSES]]

ROWS different rows (10,000,000) in blocks of a million and CLASSES classes (4).  The tallies of the blocks lie on disk
and are mapped into memory one at a time, as Ray maps them from its object store, so that what is measured is what the
task takes itself: anonymous memory, beyond that of the process before it begins.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np

from raypipe.data.splits.content import Content
from raypipe.data.splits.ranks import Tally, tallied
from raypipe.data.splits.split import decide
from raypipe.spec.data import DataSpec

BLOCK_ROWS = 10**6

SPLITS = {
    "stratified": {"kind": "stratified", "val_frac": 0.1, "test_frac": 0.2},
    "grouped": {"kind": "grouped", "group": ["g"], "val_frac": 0.1, "test_frac": 0.2},
    "time": {"kind": "time", "column": "t", "val_frac": 0.1, "test_frac": 0.2},
}


def main(num_rows: int = 10**7, num_classes: int = 4) -> None:
    """Measure each kind of split."""
    for kind, split in SPLITS.items():
        spec = DataSpec.model_validate({"source": {"format": "csv", "path": "f"}, "target": "y", "split": split})
        with tempfile.TemporaryDirectory() as folder:
            kept = [_kept(Path(folder), i, kind, num_classes) for i in range(-(-num_rows // BLOCK_ROWS))]
            before, started = _anonymous_bytes(), time.monotonic()
            peak = _Peak()
            state = decide(lambda kept=kept: _mapped(kept), Content(), spec)
            took_s = time.monotonic() - started
            more = peak.stop() - before
        fields = {"kind": kind, "rows": num_rows, "peak_mib": round(more / 2**20, 1), "seconds": round(took_s, 2)}
        print(json.dumps(fields | {"borders": len(state.get("strata", [1]))}), flush=True)


def _kept(folder: Path, block: int, kind: str, num_classes: int) -> list[Path]:
    rng = np.random.default_rng(block)
    order = rng.integers(0, 2**64, BLOCK_ROWS, np.uint64)
    if kind == "time":
        order = (order >> np.uint64(14)).astype(np.int64)  # microseconds of some decades
    stratum = rng.integers(0, num_classes, BLOCK_ROWS, np.uint64) if kind == "stratified" else None
    tally = tallied(order, stratum, {i: str(i) for i in range(num_classes)})
    paths = [folder / f"{block}-{name}.npy" for name in ("stratum", "place", "rows")]
    for path, values in zip(paths, (tally.stratum, tally.place, tally.rows), strict=True):
        np.save(path, values)
    return [*paths, Path(tally.kind)]


def _mapped(kept: list[list[Path]]) -> Iterator[Tally]:
    for *paths, kind in kept:
        yield Tally(*(np.load(path, mmap_mode="r") for path in paths), kind=str(kind))


class _Peak:
    """The largest anonymous memory of this process, looked at a hundred times a second."""

    def __init__(self) -> None:
        self._largest, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            self._largest = max(self._largest, _anonymous_bytes())

    def stop(self) -> int:
        self._is_over.set()
        self._thread.join()
        return self._largest


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
