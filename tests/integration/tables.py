"""A table of 600 people as files, and the spec that prepares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.spec.data import DataSpec
from raypipe.storage import Store

ADULTS: list[dict[str, Any]] = [
    {"key": i, "age": None if i >= 540 else 20 + i % 50, "city": f"c{i % 4}", "pay": i % 7 / 2, "label": i % 3}
    for i in range(600)
]
"""All different, without their key too."""

TABULAR: dict[str, Any] = {
    "target": "label",
    "split": {"key": ["key"]},
    "transforms": [
        {"kind": "impute", "columns": ["age"]},
        {"kind": "standardize", "columns": ["age", "pay"]},
        {"kind": "one_hot", "columns": ["city"]},
    ],
    "rows_per_shard": 100,
}

PLAIN: dict[str, Any] = {"split": {}, "transforms": [], "features": ["age", "pay"]}
"""Two numbers as they are, instead of TABULAR."""


def spec(root: str | Path, path: str = "*.csv", file_format: str = "csv", **fields: Any) -> DataSpec:
    """Of the files of a folder or bucket, with TABULAR where `fields` say nothing else."""
    source = {"format": file_format, "path": path}
    return DataSpec.model_validate({"root": str(root), "source": source, **TABULAR, **fields})


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """With a header; None is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *cells]) + "\n")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], **columns: Sequence[Any]) -> None:
    """Rows whose `age` and `pay` differ from row to row, and more columns whose values are repeated to the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{**row, "age": float(row["key"]), "pay": row["key"] / 8} for row in rows])
    for name, values in columns.items():
        table = table.append_column(name, pa.array([values[i % len(values)] for i in range(len(rows))]))
    pq.write_table(table, path, row_group_size=100)


def store_files(store: Store) -> dict[str, bytes]:
    """Every object of every dataset."""
    return {info.key: store.read(info.key) for info in store.list("datasets")}
