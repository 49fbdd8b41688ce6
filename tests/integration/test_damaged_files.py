"""Files that were cut short or changed on the way: a clear error or bad rows, never a crash, never a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.shards import read_shard, tensor_array, to_bytes
from raypipe.errors import DigestMismatch
from raypipe.records import Shard
from raypipe.storage import open_store
from raypipe.storage.publish import sha256

TRIALS = 200
ROWS = 90


def damaged(data, seed):
    """Cut at a random place, or up to three bits turned."""
    random = np.random.default_rng(seed)
    if seed % 4 == 0:
        return data[: random.integers(len(data))]
    changed = bytearray(data)
    for at in random.integers(len(data), size=random.integers(1, 4)):
        changed[at] ^= 1 << random.integers(8)
    return bytes(changed)


READ = """
import collections, json, pathlib, sys
from raypipe.data.formats.datasource import BAD, read_group
from raypipe.errors import DataError
from tests.unit.data.helpers import reader, sized_file
from tests.integration.test_damaged_files import TRIALS, damaged
for file, name in zip(sys.argv[1::2], sys.argv[2::2]):
    path, seen = pathlib.Path(file), collections.Counter()
    data = path.read_bytes()
    for seed in range(TRIALS):
        path.write_bytes(damaged(data, seed))
        try:
            tables = list(read_group([sized_file(path)], reader(name), None))
            for table in tables:
                table.to_pydict()
            seen["bad" if any(BAD in t.column_names for t in tables) else "read"] += 1
        except DataError as error:
            assert path.name in error.message and error.hint, error
            seen["refused"] += 1
    print(json.dumps(seen), flush=True)
"""


def example(folder, name):
    table = pa.table(
        {
            "a": list(range(ROWS)),
            "b": [i / 7 for i in range(ROWS)],
            "c": [f"täxt {i % 9}" for i in range(ROWS)],
            "v": [[float(i), 1.0] for i in range(ROWS)],
        }
    )
    path = folder / f"f.{name}"
    if name in ("parquet", "snappy"):
        import pyarrow.parquet as pq

        pq.write_table(table, path, row_group_size=ROWS // 3, compression="none" if name == "parquet" else "snappy")
    elif name in ("feather", "lz4"):
        import pyarrow.feather

        compression = "uncompressed" if name == "feather" else "lz4"
        pyarrow.feather.write_feather(table, str(path), compression=compression, chunksize=ROWS // 3)
    elif name == "arrows":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif name == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()))
    else:
        path.write_text("a,b,c\n" + "".join(f'{r["a"]},{r["b"]},"{r["c"]}\n"\n' for r in table.to_pylist()))
    return path


FORMATS = {
    "parquet": "parquet",
    "snappy": "parquet",
    "feather": "arrow",
    "lz4": "arrow",
    "arrows": "arrow",
    "csv": "csv",
    "jsonl": "jsonl",
}
"""How the file is written -> the format it is read as."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Format -> what came of each damage; one process for all, since it takes longer to start than to read."""
    folder = tmp_path_factory.mktemp("damaged")
    words = [word for name in FORMATS for word in (str(example(folder, name)), FORMATS[name])]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", READ, *words], cwd=root, capture_output=True, text=True, timeout=100, check=False
    )
    counts = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{list(FORMATS)[len(counts)]}: {done.stderr[-2000:]}"
    return dict(zip(FORMATS, counts, strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_file_gives_an_error_or_bad_rows_and_never_ends_the_process(name, seen):
    counts = seen[name]
    assert sum(counts.values()) == TRIALS
    if name == "jsonl":
        assert "refused" not in counts and counts["bad"] > TRIALS / 2  # every other row is still there
    elif name != "csv":
        assert counts["refused"] > TRIALS / 4


def test_shard_that_was_damaged_is_refused_wherever_the_damage_is(tmp_path):
    store = open_store(str(tmp_path))
    table = pa.table({"__row_id": np.arange(50, dtype=np.uint64), "x": tensor_array(np.ones((50, 3), np.float32))})
    data = to_bytes(table)
    shard = Shard(key="s.arrow", num_rows=50, size_bytes=len(data), sha256=sha256(data))
    store.write("s.arrow", data)
    assert read_shard(store, shard).num_rows == 50
    refused = 0
    for seed in range(TRIALS):
        changed = damaged(data, seed)
        assert changed != data
        store.write("s.arrow", changed)
        with pytest.raises(DigestMismatch, match=r"s\.arrow"):
            read_shard(store, shard)
        refused += 1
    assert refused == TRIALS
