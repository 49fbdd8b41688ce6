"""Is a pipeline file that `raypipe init --from` writes as good as scikit-learn's gradient boosting on the same rows?

    .venv/bin/python tests/bench/bench_init.py [NAME ...]

For iris, digits, diabetes, wine and breast cancer, written as CSV files, and for the pictures and recordings of the
examples: init, run until a model is registered, one JSON line each.  `ratio` is the metric on the test split (accuracy,
r2) over that of HistGradientBoosting with its defaults, fitted on the same train rows; bar 0.97.  Pictures and
recordings have no such side: their line says the accuracy, and the bar is a registered model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import sklearn.datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from raypipe.data.shards import load_rows
from raypipe.records import DatasetVersion
from raypipe.storage import open_store

ROOT = Path(__file__).parents[2]

TABLES = ("iris", "digits", "diabetes", "wine", "breast_cancer")
FOLDERS = {"shapes": "05_images", "sounds": "06_audio"}
"""Folder of files -> the example whose make_data.py makes it."""

BAR = 0.97


def main(names: list[str]) -> int:
    """Measure all, or those that are named; 1 where a bar is missed."""
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for data in names or [*TABLES, *FOLDERS]:
            line = measured(data, Path(name))
            print(json.dumps(line), flush=True)
            if not line["holds"]:
                missed.append(data)
    print(json.dumps({"headline": "init", "bar": BAR, "misses": missed, "holds": not missed}), flush=True)
    return 1 if missed else 0


def measured(data: str, folder: Path) -> dict[str, Any]:
    """Init and run for one data set."""
    path = write_table(data, folder) if data in TABLES else write_folder(data, folder)
    project, store = folder / f"{data}-project", folder / f"{data}-kept"
    _raypipe("init", project, "--from", path)
    started = time.monotonic()
    told = json.loads(_raypipe("run", project, "--until", "register", "--store", store, "--json"))
    line = {"data": data, "seconds": round(time.monotonic() - started, 1), "model": told["model"]}
    if data in FOLDERS:
        accuracy = told["metrics"]["accuracy"]
        return {**line, "metric": "accuracy", "value": accuracy, "holds": told["model"] is not None}
    metric = "r2" if data == "diabetes" else "accuracy"
    dataset = DatasetVersion.model_validate(told["stages"]["data"]["record"])
    other = boosted(str(store), dataset)
    ratio = told["metrics"][metric] / other
    figures = {"metric": metric, "value": told["metrics"][metric], "boosting": other, "ratio": round(ratio, 4)}
    return {**line, **figures, "test_rows": dataset.splits["test"].num_rows, "holds": ratio >= BAR}


def write_table(data: str, folder: Path) -> Path:
    """A data set of scikit-learn as a CSV file with its target last."""
    frame: Any = getattr(sklearn.datasets, f"load_{data}")()
    path = folder / f"{data}.csv"
    header = ",".join([*map(str, frame.feature_names), "target"])
    rows = np.column_stack([frame.data, frame.target])
    path.write_text("\n".join([header, *(",".join(f"{value:.10g}" for value in row) for row in rows)]) + "\n")
    return path


def write_folder(data: str, folder: Path) -> Path:
    """The files of an example; its make_data.py takes the folder to make, or the one around it."""
    made = folder if data == "shapes" else folder / data
    subprocess.run(
        [sys.executable, ROOT / "examples" / FOLDERS[data] / "make_data.py", made],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return folder / data


def boosted(store_uri: str, dataset: DatasetVersion) -> float:
    """The same metric of scikit-learn's gradient boosting, on the same test rows."""
    store = open_store(store_uri)
    train, test = (load_rows(store, dataset, split) for split in ("train", "test"))
    names = [column.name for column in dataset.signature.inputs]
    kind = HistGradientBoostingRegressor if dataset.signature.task == "regression" else HistGradientBoostingClassifier
    fitted = kind(random_state=0).fit(np.column_stack([train.columns[name] for name in names]), train.target)
    return float(fitted.score(np.column_stack([test.columns[name] for name in names]), test.target))


def _raypipe(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raypipe", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise SystemExit(f"raypipe {' '.join(map(str, words))}\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
