"""What every dataset format must hold."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from raypipe.errors import DataError
from raypipe.spec.sources import Source

_SOURCE: TypeAdapter[Any] = TypeAdapter(Source)

Columns = dict[str, list[Any]]
"""Expected values of each column, in row order."""

NUMBERS: Columns = {"a": [1, 2, 3, 4, 5, 6, 7], "b": [0.5, -1.0, 2.25, 0.0, 1e9, 3.5, -0.125]}
TABLE: Columns = {**NUMBERS, "c": ["x", "y", "ä", "x y", "z", "x", "1"]}


def _write_csv(folder: Path) -> tuple[dict[str, Any], Columns]:
    for name, rows in {"part-0.csv": slice(0, 4), "part-1.csv": slice(4, 7)}.items():
        lines = [",".join(str(value) for value in row) for row in zip(*(v[rows] for v in TABLE.values()), strict=True)]
        (folder / name).write_text("\n".join([",".join(TABLE), *lines]) + "\n")
    return {"path": "*.csv"}, TABLE


def _write_jsonl(folder: Path) -> tuple[dict[str, Any], Columns]:
    rows = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows[5:]).encode()))
    return {"path": ["a.jsonl", "b.jsonl.gz"]}, TABLE


def _write_parquet(folder: Path) -> tuple[dict[str, Any], Columns]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "table").mkdir()
    pq.write_table(pa.table(TABLE).slice(0, 5), folder / "table" / "0.parquet", row_group_size=2)
    pq.write_table(pa.table(TABLE).slice(5), folder / "table" / "1.parquet")
    return {"path": "table"}, TABLE


def _write_idx(folder: Path) -> tuple[dict[str, Any], Columns]:
    image_NHW = np.arange(7 * 3 * 2, dtype=np.uint8).reshape(7, 3, 2)
    label_N = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
    images = struct.pack(">4B3I", 0, 0, 8, 3, *image_NHW.shape) + image_NHW.tobytes()
    (folder / "images.gz").write_bytes(gzip.compress(images))
    (folder / "labels").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 7) + label_N.tobytes())
    return {"images": "images.gz", "labels": "labels"}, {"image": list(image_NHW), "label": label_N.tolist()}


def _bundled(folder: Path) -> tuple[dict[str, Any], Columns]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return {"dataset": "digits"}, {"image": list(digits.images), "label": digits.target.tolist()}


def _write_arrow(folder: Path) -> tuple[dict[str, Any], Columns]:
    import pyarrow as pa
    import pyarrow.feather

    table = pa.table(TABLE)
    pyarrow.feather.write_feather(table.slice(0, 4), str(folder / "0.feather"), chunksize=3)
    with pa.ipc.new_stream(folder / "1.arrows", table.schema) as stream:
        stream.write_table(table.slice(4), max_chunksize=2)
    return {"path": ["0.feather", "1.arrows"]}, TABLE


def _write_images(folder: Path) -> tuple[dict[str, Any], Columns]:
    from PIL import Image

    pixels = np.arange(7 * 4 * 3 * 3, dtype=np.uint8).reshape(7, 4, 3, 3)
    names = [f"{'ab'[i >= 4]}/{i}.png" for i in range(7)]
    for name, image in zip(names, pixels, strict=True):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "in" / name)
    return {"path": "in"}, {"image": list(pixels), "label": [name[0] for name in names], "file": names}


def _write_sound(folder: Path) -> tuple[dict[str, Any], Columns]:
    import wave

    sounds = (np.arange(7 * 6).reshape(7, 6) * 700 - 15_000).astype("<i2")
    names = [f"{'ab'[i >= 4]}/{i}.wav" for i in range(7)]
    for name, sound in zip(names, sounds, strict=True):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / "in" / name), "wb") as file:
            file.setparams((1, 2, 1000, 0, "NONE", ""))
            file.writeframes(sound.tobytes())
    padded = np.hstack([sounds / 2.0**15, np.zeros((7, 2))])
    labels = [name[0] for name in names]
    fields = {"path": "in", "sample_rate": 1000, "duration_s": 0.008}
    return fields, {"audio": list(padded), "label": labels, "file": names}


def _write_numpy(folder: Path) -> tuple[dict[str, Any], Columns]:
    x, y = np.arange(7 * 3, dtype=np.float32).reshape(7, 3), np.array(["u", "v", "ä", "w", "x", "y", "z"])
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return {"arrays": {"x": "x.npy", "y": "y.npy"}}, {"x": list(x), "y": y.tolist()}


def _write_text(folder: Path) -> tuple[dict[str, Any], Columns]:
    lines = [f"line {i}: ä" for i in range(7)]
    (folder / "a.txt").write_text("\n".join(lines[:3]) + "\n\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress("\r\n".join(lines[3:]).encode()))
    return {"path": ["a.txt", "b.txt.gz"]}, {"text": lines}


def _write_text_windows(folder: Path) -> tuple[dict[str, Any], Columns]:
    (folder / "a.txt").write_text("abcdefghi_")  # of its last window there is too little
    (folder / "b.txt.gz").write_bytes(gzip.compress("zyxwvutsrqä\nB".encode()))
    fields = {"path": ["a.txt", "b.txt.gz"], "context_length": 4}
    return fields, {
        "text": ["abcde", "efghi", "zyxwv", "vutsr", "rqä\nB"],
        "position": [0.0, 0.4, 0.0, 4 / 13, 8 / 13],
    }


class FormatContract:
    """A dataset format gives back the rows that were written, however the reading is cut.

    Args:
        name: key in raypipe.data.formats.FORMATS.
    """

    examples: dict[str, Callable[[Path], tuple[dict[str, Any], Columns]]] = {
        "csv": _write_csv,
        "jsonl": _write_jsonl,
        "parquet": _write_parquet,
        "arrow": _write_arrow,
        "images": _write_images,
        "sound": _write_sound,
        "numpy": _write_numpy,
        "text": _write_text,
        "text_windows": _write_text_windows,
        "idx": _write_idx,
        "sklearn": _bundled,
    }
    """Writes seven rows or so into a folder; gives the source's fields and the values that must come back."""

    PLACES = ("path", "images", "labels")
    """Fields of a source that name files."""

    def __init__(self, name: str) -> None:
        from raypipe.data.formats import FORMATS

        self.name = name
        self._format = FORMATS[name]

    def check_rows(self, folder: Path, parallelism: int | None) -> None:
        """All values come back in order at any parallelism. Needs Ray."""
        fields, expected = self.examples[self.name](folder)
        rows = self._format.read(self._source(fields), str(folder), parallelism).take_all()
        assert len(rows) == len(next(iter(expected.values())))
        assert list(rows[0]) == list(expected)
        for name, values in expected.items():
            assert all(np.array_equal(row[name], value) for row, value in zip(rows, values, strict=True)), name

    def check_columns(self, folder: Path) -> None:
        """`columns` selects, and keeps the order asked for. Needs Ray."""
        fields, expected = self.examples[self.name](folder)
        wanted = list(expected)[::-1][:2]
        dataset = self._format.read(self._source({**fields, "columns": wanted}), str(folder), 1)
        assert list(dataset.take(1)[0]) == wanted

    def check_where(self, folder: Path) -> None:
        """`where` selects rows, also by a column that is not read. Needs Ray."""
        fields, expected = self.examples[self.name](folder)
        by = next(name for name, values in expected.items() if np.ndim(values[0]) == 0)
        chosen = [expected[by][0]]
        kept = next(iter(expected))
        where = [{"column": by, "op": "in", "value": chosen}]
        source = self._source({**fields, "columns": [kept], "where": where})
        rows = self._format.read(source, str(folder), 2).take_all()
        wanted = [value for value, key in zip(expected[kept], expected[by], strict=True) if key in chosen]
        assert len(rows) == len(wanted) < len(expected[by])
        assert all(np.array_equal(row[kept], value) for row, value in zip(rows, wanted, strict=True))

    def check_files(self, folder: Path) -> None:
        """Files are found without reading rows; a change of content changes what identifies them."""
        fields, _ = self.examples[self.name](folder)
        from raypipe.data.sources.listing import list_files

        found = list_files(self._source(fields), str(folder))
        assert found and found == list_files(self._source(fields), str(folder))
        if found[0].uri:  # a bundled set has no file
            Path(found[-1].uri).write_bytes(b"something else")
            assert found != list_files(self._source(fields), str(folder))

    def check_missing(self, folder: Path) -> None:
        """A file that is not there is a DataError that names it."""
        fields, _ = self.examples[self.name](folder)
        if "dataset" in fields:
            return
        from raypipe.data.sources.listing import list_files

        gone = {
            name: {"x": "nowhere.dat"} if isinstance(value, dict) else "nowhere.dat" if name in self.PLACES else value
            for name, value in fields.items()
        }
        with pytest.raises(DataError, match=r"nowhere\.dat") as caught:
            list_files(self._source(gone), str(folder))
        assert caught.value.hint

    def _source(self, fields: dict[str, Any]) -> Any:
        return _SOURCE.validate_python({"format": self.name, **fields})
