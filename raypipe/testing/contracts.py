"""What every entry of a table must hold.  A new format, model, search or protocol passes its own.

One file on purpose: whoever adds an entry finds all contracts side by side.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.errors import DataError, ObjectChanged, ObjectExists, ObjectMissing, StoreAccessError
from raypipe.storage import Store, layout, open_store

Columns = dict[str, list[Any]]
"""Expected values of each column, in row order."""

# --- dataset formats -------------------------------------------------------------------------------------------------

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


def _write_wav(folder: Path) -> tuple[dict[str, Any], Columns]:
    import wave

    sounds = (np.arange(7 * 6).reshape(7, 6) * 700 - 15_000).astype("<i2")
    names = [f"{'ab'[i >= 4]}/{i}.wav" for i in range(7)]
    for name, sound in zip(names, sounds, strict=True):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / "in" / name), "wb") as file:
            file.setparams((1, 2, 1000, 0, "NONE", ""))
            file.writeframes(sound.tobytes())
    padded = np.pad(sounds / 2.0**15, ((0, 0), (0, 2)))
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
        "wav": _write_wav,
        "numpy": _write_numpy,
        "text": _write_text,
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
        found = self._format.files(self._source(fields), str(folder))
        assert found and found == self._format.files(self._source(fields), str(folder))
        if found[0].uri:  # a bundled set has no file
            Path(found[-1].uri).write_bytes(b"something else")
            assert found != self._format.files(self._source(fields), str(folder))

    def check_missing(self, folder: Path) -> None:
        """A file that is not there is a DataError that names it."""
        fields, _ = self.examples[self.name](folder)
        if "dataset" in fields:
            return
        gone = {
            name: {"x": "nowhere.dat"} if isinstance(value, dict) else "nowhere.dat" if name in self.PLACES else value
            for name, value in fields.items()
        }
        with pytest.raises(DataError, match=r"nowhere\.dat") as caught:
            self._format.files(self._source(gone), str(folder))
        assert caught.value.hint

    def _source(self, fields: dict[str, Any]) -> Any:
        from pydantic import TypeAdapter

        from raypipe.spec.sources import Source

        return TypeAdapter(Source).validate_python({"format": self.name, **fields})


# --- transforms ------------------------------------------------------------------------------------------------------

_ROWS = np.random.default_rng(3)


def _gaps(values: np.ndarray, missing: Any) -> np.ndarray:
    return np.where(np.arange(len(values)) % 4 == 1, missing, values)


_NUMBER, _AMOUNT = _ROWS.normal(5.0, 3.0, 60), _ROWS.exponential(1e3, 60)
_CITY = np.array(["Bonn", "Köln", "Aachen", "10"], object)[_ROWS.integers(0, 4, 60)]
_TEXT = np.array(["The cat sat.", "", "a naïve\u00a0cat, the cat\n", "日本語 the  x_1\0 💡!"], object)[
    np.arange(60) % 4
]
_DAY = np.array(["2024-02-29", "1969-12-31T23:59:59Z", "2024-01-01 00:30:00.25+01:00"], object)[np.arange(60) % 3]

TRANSFORM_COLUMNS: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "number": ({"dtype": "float64"}, _NUMBER),
    "number_gaps": ({"dtype": "float64", "nullable": True}, _gaps(_NUMBER, np.nan)),
    "amount": ({"dtype": "float64"}, _AMOUNT),
    "count": ({"dtype": "int64"}, _ROWS.integers(-2, 3, 60)),
    "seconds": ({"dtype": "int64"}, _ROWS.integers(-(10**9), 2 * 10**9, 60)),
    "flag": ({"dtype": "bool"}, _ROWS.integers(0, 2, 60).astype(bool)),
    "city": ({"dtype": "string"}, _CITY),
    "city_gaps": ({"dtype": "string", "nullable": True}, _gaps(_CITY, None)),
    "day": ({"dtype": "string"}, _DAY),
    "vector": ({"dtype": "float32", "shape": (3,)}, _ROWS.normal(size=(60, 3)).astype(np.float32)),
    "image": ({"dtype": "uint8", "shape": (4, 5)}, _ROWS.integers(0, 256, (60, 4, 5), np.uint8)),
    "text": ({"dtype": "string"}, _TEXT),
    "photo": ({"dtype": "uint8", "shape": (6, 5, 3)}, _ROWS.integers(0, 256, (60, 6, 5, 3), np.uint8)),
    "planes": ({"dtype": "float32", "shape": (2, 4, 5)}, _ROWS.normal(size=(60, 2, 4, 5)).astype(np.float32)),
    "audio": ({"dtype": "float32", "shape": (200,)}, _ROWS.normal(0.0, 0.3, (60, 200)).astype(np.float32)),
}
"""Name -> fields of its Column, and raw values of 60 rows."""


class TransformContract:
    """A transform is fitted from any cut of the rows, travels as JSON, and treats every row for itself.

    Args:
        name: key in raypipe.data.transforms.KINDS.
    """

    examples: dict[str, list[dict[str, Any]]] = {
        "scale": [{"columns": ["number", "number_gaps", "image"], "factor": 0.5, "offset": -1.0}],
        "standardize": [{"columns": ["number", "number_gaps", "count", "vector", "image"]}],
        "min_max": [{"columns": ["number", "number_gaps", "vector", "image"], "feature_range": [-1, 1]}],
        "robust": [{"columns": ["number", "number_gaps", "count"]}],
        "clip": [
            {"columns": ["number", "number_gaps", "vector"], "min": 0.0, "max": 1.0},
            {"columns": ["number", "number_gaps"], "quantile_range": [0.1, 0.9]},
        ],
        "log": [{"columns": ["amount"]}, {"columns": ["number", "image"], "offset": 100.0}],
        "impute": [
            {"columns": ["number", "number_gaps"], "strategy": "mean"},
            {"columns": ["number", "number_gaps"], "strategy": "median"},
            {"columns": ["number_gaps"], "strategy": "constant", "value": 2.0},
        ],
        "bucketize": [
            {"columns": ["number"], "boundaries": [0.0, 5.0]},
            {"columns": ["number", "count"], "num_buckets": 4, "output": "index"},
        ],
        "one_hot": [{"columns": ["city", "count", "flag"]}],
        "ordinal": [{"columns": ["city", "count"]}, {"columns": ["city"], "categories": sorted(set(_CITY))[::-1]}],
        "hashing": [{"columns": ["city", "count"], "num_buckets": 5}],
        "date_parts": [
            {"columns": ["day", "seconds"], "parts": ["year", "quarter", "day_of_year", "hour", "second"]},
            {"columns": ["day"], "cyclical": True},
        ],
        "tokens": [
            {"columns": ["text", "city"], "tokenizer": "char", "max_length": 9, "max_vocabulary": 12},
            {"columns": ["text", "city"], "tokenizer": "byte", "max_length": 11},
            {"columns": ["text", "city"], "tokenizer": "word", "max_length": 3, "max_vocabulary": 9, "lowercase": True},
            {"columns": ["text", "city"], "tokenizer": "bpe", "max_length": 7, "max_vocabulary": 270},
        ],
        "resize": [
            {"columns": ["image", "photo"], "height": 3, "width": 7},
            {"columns": ["planes"], "height": 9, "width": 2, "channels": "first"},
        ],
        "normalize": [
            {"columns": ["image", "photo"]},
            {"columns": ["planes"], "channels": "first"},
            {"columns": ["photo"], "mean": [100.0, 110.0, 120.0], "std": [40.0, 50.0, 60.0]},
        ],
        "channels_first": [{"columns": ["photo"]}],
        "log_mel": [
            {"columns": ["audio"], "sample_rate": 8000, "window_samples": 64, "hop_samples": 30, "num_mels": 6},
            {
                "columns": ["audio"],
                "sample_rate": 8000,
                "window_samples": 200,
                "num_mels": 9,
                "mel_scale": "htk",
                "output": "db",
            },
        ],
        "cross": [
            {"columns": ["city", "count"], "keep": False},
            {"columns": ["city", "flag", "day"], "num_buckets": 7, "output": "index", "keep": False},
        ],
    }
    """Settings beside `kind`, over TRANSFORM_COLUMNS; one number column and one text column at the least, if it can."""

    rounding: dict[str, float] = {"standardize": 1e-12, "normalize": 1e-12, "impute": 1e-12}
    """Kinds that add up floats: how far, relatively, two cuts of the rows may lie apart. Others: not at all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._examples = [{"kind": name, **fields} for fields in self.examples[name]]

    @classmethod
    def checks(cls) -> list[str]:
        """Names of all checks, for `pytest.mark.parametrize`."""
        return [name for name in vars(cls) if name.startswith("check_")]

    def check_json(self) -> None:
        """What was fitted survives JSON to the last bit, and holds no NaN."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            text = json.dumps(fitted.state(), allow_nan=False)
            again = type(fitted).from_state(json.loads(text))
            assert json.dumps(again.state()) == text
            outcomes = [self._outcomes(each, inputs, columns) for each in (fitted, again)]
            assert all(_equal(a, b) for a, b in zip(*outcomes, strict=True))

    def check_cuts(self) -> None:
        """However the rows are cut into shards, empty ones too, the same is fitted."""
        for fields in self._examples:
            whole = self._fit(fields, [60])[0].state()
            for cuts in ([1, 60], [7, 7, 20, 59, 60], [0, 30, 60, 60]):
                cut = self._fit(fields, cuts)[0].state()
                _assert_same(cut, whole, self.rounding.get(self.name, 0.0))

    def check_rows_alone(self) -> None:
        """A row's numbers do not depend on its neighbours; no rows give no rows of the same shape."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            for column in self._filled(inputs):
                values = columns[column.name]
                whole = fitted.column(values, column)
                parts = [fitted.column(values[i : i + 1], column) for i in range(60)]
                assert np.array_equal(np.concatenate([np.asarray(part) for part in parts]), np.asarray(whole))
                assert np.asarray(fitted.column(values[:0], column)).shape == (0, *np.asarray(whole).shape[1:])

    def check_input_stays(self) -> None:
        """Applying changes neither the rows nor the state."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            before, state = {name: values.copy() for name, values in columns.items()}, json.dumps(fitted.state())
            self._outcomes(fitted, inputs, columns)
            assert all(_equal(columns[name], values) for name, values in before.items())
            assert json.dumps(fitted.state()) == state

    def check_declared(self) -> None:
        """What `check` says of a column before any row is read is what comes out."""
        from raypipe.data.transforms import KINDS

        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            if KINDS[self.name].joint:
                continue
            for column in inputs:
                after = KINDS[self.name].check(self._spec(fields), column)
                values = fitted.column(columns[column.name], column)
                is_number = isinstance(values, np.ndarray)
                shape = values.shape[1:] if is_number else ()
                assert is_number == (after.dtype != "string")
                assert len(shape) == len(after.shape)
                assert all(wanted in (-1, size) for wanted, size in zip(after.shape, shape, strict=True))

    def check_missing(self) -> None:
        """A missing value is filled, or the row is refused by the column's name; it never becomes a number."""
        from raypipe.data.transforms import KINDS

        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            for column in inputs:
                if column.dtype != "string" and columns[column.name].ndim > 1:
                    continue
                gap = np.array([None], object) if column.dtype == "string" else np.array([np.nan])
                one = {name: values[2:3] for name, values in columns.items()} | {column.name: gap}
                if KINDS[self.name].fills:
                    assert np.isfinite(np.asarray(fitted.column(gap, column), np.float64)).all()
                else:
                    with pytest.raises(DataError, match=column.name):
                        self._apply(fitted, inputs, one)

    def check_unknown(self) -> None:
        """A category that train has not is refused, or gives finite numbers, as the transform says."""
        for fields in self._examples:
            if not hasattr(self._spec(fields), "unknown") or fields.get("num_buckets"):
                continue
            for unknown in ("error", "ignore"):
                fitted, inputs, columns = self._fit({**fields, "unknown": unknown}, [60])
                for column in inputs:
                    if column.dtype == "bool":
                        continue
                    new = np.array(["Paris"], object) if column.dtype == "string" else np.array([99])
                    one = {name: values[2:3] for name, values in columns.items()} | {column.name: new}
                    if unknown == "ignore":
                        assert np.isfinite(self._apply(fitted, inputs, one)).all()
                    else:
                        with pytest.raises(DataError, match=rf"{column.name}.*(Paris|99)"):
                            self._apply(fitted, inputs, one)

    def _fit(self, fields: dict[str, Any], ends: list[int]) -> tuple[Any, list[Any], dict[str, np.ndarray]]:
        """Fitted on the rows cut at `ends`, the last being 60."""
        from raypipe.data import fitting
        from raypipe.records import Column
        from raypipe.testing.fakes import fit_columns

        inputs = [Column(name=name, **TRANSFORM_COLUMNS[name][0]) for name in fields["columns"]]
        columns = {name: TRANSFORM_COLUMNS[name][1] for name in fields["columns"]}
        starts = [0, *ends[:-1]]
        shards = [{name: v[a:b] for name, v in columns.items()} for a, b in zip(starts, ends, strict=True)]
        fitting.check_types([self._spec(fields)], inputs)
        return fit_columns([self._spec(fields)], inputs, shards), inputs, columns

    def _outcomes(self, fitted: Any, inputs: list[Any], columns: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Every column by itself, and all together where no value is missing."""
        found = [np.asarray(fitted.column(columns[column.name], column)) for column in inputs]
        return [*found, self._apply(fitted, inputs, columns)] if self._filled(inputs) == inputs else found

    def _filled(self, inputs: list[Any]) -> list[Any]:
        from raypipe.data.transforms import KINDS

        return [column for column in inputs if KINDS[self.name].fills or not column.nullable]

    def _apply(self, fitted: Any, inputs: list[Any], columns: dict[str, np.ndarray]) -> np.ndarray:
        return fitted.apply_exact(columns, inputs)

    def _spec(self, fields: dict[str, Any]) -> Any:
        from pydantic import TypeAdapter

        from raypipe.spec.transforms import Transform

        return TypeAdapter(Transform).validate_python(fields)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _assert_same(found: Any, expected: Any, rtol: float) -> None:
    """Equal JSON documents, floats to `rtol`."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key in expected:
            _assert_same(found[key], expected[key], rtol)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other, rtol)
    elif isinstance(expected, float):
        assert abs(found - expected) <= rtol * abs(expected), (found, expected)
    else:
        assert found == expected


# --- stores ----------------------------------------------------------------------------------------------------------

BIG_BYTES = 20 * 2**20
RACERS = 16


class StoreContract:
    """A store keeps what it acknowledged, tells winners from losers, and lists exactly.

    Args:
        store: an empty one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def checks(cls) -> list[str]:
        """Names of all checks, for `pytest.mark.parametrize`."""
        return [name for name in vars(cls) if name.startswith("check_")]

    def check_write_then_read(self) -> None:
        """A write is seen by the next read, the second one too; an empty object is an object."""
        for data in (b"one", b"two", b"", bytes(range(256))):
            self._store.write("a/b", data)
            assert self._store.read("a/b") == data
            assert self._store.read_with_etag("a/b")[0] == data
            assert self._store.exists("a/b")

    def check_big_object(self) -> None:
        """20 MB come back to the byte."""
        data = np.random.default_rng(0).bytes(BIG_BYTES)
        self._store.write("big", data)
        assert self._store.read("big") == data
        assert [info.size_bytes for info in self._store.list("")] == [BIG_BYTES]

    def check_missing(self) -> None:
        """What is not there is ObjectMissing, named; a folder is no object."""
        self._store.write("a/b", b"1")
        for key in ("nowhere", "a", "a/b/c", "a/bc"):
            error = _raised(ObjectMissing, lambda key=key: self._store.read(key))
            assert key in str(error)
            _raised(ObjectMissing, lambda key=key: self._store.read_with_etag(key))
            assert not self._store.exists(key)

    def check_delete(self) -> None:
        """A deleted object is gone; deleting what is not there is no error."""
        self._store.write("a/b", b"1")
        self._store.write("a/c", b"1")
        for _ in range(2):
            self._store.delete("a/b")
        assert not self._store.exists("a/b")
        assert [info.key for info in self._store.list("a")] == ["a/c"]

    def check_delete_prefix(self) -> None:
        """All under a prefix goes, and nothing beside it."""
        for key in ("a/b/1", "a/b/c/2", "a/bc", "a/b.json"):
            self._store.write(key, b"")
        self._store.delete_prefix("a/b")
        assert [info.key for info in self._store.list("")] == ["a/b.json", "a/bc"]

    def check_list(self) -> None:
        """Exactly what lies under the prefix, in key order, with sizes; also where a folder name begins another."""
        keys = ["a/b.json", "a/b/10", "a/b/2", "a/b/c/d", "a/bc/x", "b", "z z+%20/ü"]
        for key in keys[::-1]:
            self._store.write(key, key.encode())
        assert [info.key for info in self._store.list("")] == sorted(keys)
        assert [info.key for info in self._store.list("a/b")] == ["a/b/10", "a/b/2", "a/b/c/d"]
        assert [info.size_bytes for info in self._store.list("a/b")] == [6, 5, 7]
        for prefix in ("a/b/2", "nowhere", "b", "a/b.j"):
            assert list(self._store.list(prefix)) == []

    def check_list_many(self) -> None:
        """More objects than one page of a listing."""
        with ThreadPoolExecutor(RACERS) as pool:
            list(pool.map(lambda i: self._store.write(f"many/{i:04d}", b""), range(1100)))
        assert [info.key for info in self._store.list("many")] == [f"many/{i:04d}" for i in range(1100)]

    def check_write_if_absent(self) -> None:
        """The first writes, the second is refused and changes nothing; after a delete it may again."""
        self._store.write_if_absent("a/b", b"first")
        _raised(ObjectExists, lambda: self._store.write_if_absent("a/b", b"second"))
        assert self._store.read("a/b") == b"first"
        self._store.delete("a/b")
        self._store.write_if_absent("a/b", b"third")
        assert self._store.read("a/b") == b"third"

    def check_write_if_absent_race(self) -> None:
        """Of many at once one wins, and the object is the winner's."""

        def attempt(i: int) -> bool:
            try:
                self._store.write_if_absent("race", str(i).encode())
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(RACERS) as pool:
            won = [i for i, has in enumerate(pool.map(attempt, range(RACERS))) if has]
        assert len(won) == 1
        assert self._store.read("race") == str(won[0]).encode()

    def check_write_if_unchanged(self) -> None:
        """Only the tag of the present object replaces it; a stale one, and a gone object, are refused."""
        self._store.write("a", b"1")
        _, first = self._store.read_with_etag("a")
        self._store.write_if_unchanged("a", b"2", first)
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("a", b"3", first))
        assert self._store.read("a") == b"2"
        _, second = self._store.read_with_etag("a")
        self._store.delete("a")
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("a", b"4", second))
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("never", b"4", second))
        assert not self._store.exists("a") and not self._store.exists("never")

    def check_write_if_unchanged_counter(self) -> None:
        """Many who count together lose no count."""
        self._store.write("count", b"0")

        def add() -> None:
            for _ in range(500):
                data, etag = self._store.read_with_etag("count")
                try:
                    return self._store.write_if_unchanged("count", str(int(data) + 1).encode(), etag)
                except ObjectChanged:
                    continue
            raise AssertionError("500 tries, and somebody else was always first")

        with ThreadPoolExecutor(RACERS) as pool:
            for future in [pool.submit(add) for _ in range(3 * RACERS)]:
                future.result()
        assert self._store.read("count") == str(3 * RACERS).encode()
        assert [info.key for info in self._store.list("")] == ["count"]

    def check_keys_stay_inside(self) -> None:
        """A key that might leave the store, or is read differently elsewhere, is refused everywhere."""
        store = self._store
        for key in ("../out", "a/../../out", "/out", "a//b", "a/", ".", "a/./b", "a\nb", "a\x00b", "x" * 1025, "a#1"):
            for action in (store.read, store.delete, store.exists, lambda k: list(store.list(k))):
                _raised(StoreAccessError, lambda action=action, key=key: action(key))
            for write in (store.write, store.write_if_absent):
                _raised(StoreAccessError, lambda write=write, key=key: write(key, b"x"))
            _raised(StoreAccessError, lambda key=key: store.write_if_unchanged(key, b"x", "tag"))
        _raised(StoreAccessError, lambda: store.read(""))
        assert list(store.list("")) == []

    def check_probe(self) -> None:
        """`check` passes and leaves nothing."""
        self._store.check()
        assert list(self._store.list("")) == []

    def check_opened_again(self) -> None:
        """`open_store(uri)` opens the same store."""
        if self._store.uri.startswith("memory:"):
            return  # by nature of this process alone
        self._store.write("a", b"1")
        assert open_store(self._store.uri).read("a") == b"1"


def _raised(kind: type[Exception], action: Callable[[], Any]) -> Exception:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


# --- protocols -------------------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


class ProtocolContract:
    """A protocol answers the same numbers as the Predictor and refuses the same rows, whatever its shape on the wire.

    Args:
        name: key in raypipe.serve.protocols.PROTOCOLS.
        app: a replica.
    """

    examples: dict[str, Callable[[Rows], bytes]] = {
        "predict": lambda rows: json.dumps({"instances": rows}).encode(),
        "tfserving": lambda rows: json.dumps({"instances": rows}).encode(),
    }
    """Writes rows as the body of a request."""

    answers: dict[str, Callable[[bytes], list[Any]]] = {
        "predict": lambda body: json.loads(body)["predictions"],
        "tfserving": lambda body: json.loads(body)["predictions"],
    }
    """Reads the rows of an answer: numbers, or objects with label, probability, probabilities."""

    def __init__(self, name: str, app: Any) -> None:
        from raypipe.serve.protocols import PROTOCOLS

        self.name = name
        self._app = app
        self._protocol = PROTOCOLS[name](app.model, app.spec.max_request_rows)

    def check_same_numbers(self, rows: Rows) -> None:
        """Every path answers what the Predictor answers, to 1e-6, and says which version did."""
        from raypipe.serve.schema import columns_of

        expected = self._app.predictor.predict(columns_of(rows, self._app.signature, max_rows=len(rows)))
        assert self._protocol.predict_paths()
        for path in self._protocol.predict_paths():
            answer = self._ask(path, self.examples[self.name](rows))
            assert answer.status_code == 200, answer.body
            assert answer.headers["x-raypipe-model"] == f"{self._app.model.model}@{self._app.model.version}"
            assert answer.headers["content-type"] == self._protocol.content_types[0]
            found = self.answers[self.name](bytes(answer.body))
            if expected.classes is not None:
                labels = [expected.classes[best] for best in expected.labels()]
                assert [row["label"] for row in found] == labels
                found = [row["probabilities"] for row in found]
            np.testing.assert_allclose(found, expected.values, rtol=1e-6, atol=1e-6)

    def check_refusals(self, good: Rows) -> None:
        """Damaged bodies and rows are 4xx with code, message and hint; the next good request is answered."""
        write, path = self.examples[self.name], self._protocol.predict_paths()[0]
        body = write(good)
        first = next(iter(good[0]))
        damaged = {
            "empty": b"",
            "cut": body[: len(body) // 2],
            "no rows": write([]),
            "missing field": write([{name: value for name, value in good[0].items() if name != first}]),
            "wrong type": write([{**good[0], first: {"a": 1}}]),
            "null": write([{**good[0], first: None}]),
            "second row": write([good[0], {}]),
        }
        for what, bad in damaged.items():
            answer = self._ask(path, bad)
            error = json.loads(bytes(answer.body))["error"]
            assert 400 <= answer.status_code < 500, what
            assert error["code"] and error["message"] and set(error) == {"code", "message", "hint"}, what
        assert "row 1" in json.loads(bytes(self._ask(path, damaged["second row"]).body))["error"]["message"]
        extra = self._ask(path, write([{**good[0], "surely not a field": 1}]))
        assert (extra.status_code == 200) == (self._app.signature.extra_columns == "ignore"), extra.body
        self.check_same_numbers(good)

    def _ask(self, path: str, body: bytes) -> Any:
        from raypipe.testing.served import ask

        return ask(self._app, "POST", path, body, headers={"content-type": self._protocol.content_types[0]})


# --- models ----------------------------------------------------------------------------------------------------------

OWN_NETWORK = """
from torch import nn

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], num_outputs))
"""


class ModelContract:
    """A model learns, is saved and loaded to the bit, and answers alike wherever it is asked.

    Args:
        name: key in raypipe.model.zoo.ZOO.
        folder: an empty one.
    """

    examples: dict[str, dict[str, Any]] = {
        "linear": {},
        "mlp": {"hidden": [32], "dropout_frac": 0.1},
        "cnn": {"channels": [8], "dropout_frac": 0.1},
        "import": {"path": "contract_model.py:build"},
    }
    """The model's fields beside `kind`, for images of 8x8 pixels in ten classes."""

    def __init__(self, name: str, folder: Path) -> None:
        from raypipe.spec.transforms import ScaleTransform
        from raypipe.testing.fakes import tiny_dataset

        self._name, self._folder = name, folder
        (folder / "contract_model.py").write_text(OWN_NETWORK)
        self._store = open_store(str(folder / "store"))
        random = np.random.default_rng(0)
        label_B = np.arange(400) % 10
        pixels = random.integers(0, 256, (10, 8, 8))[label_B] // 2 + random.integers(0, 128, (400, 8, 8))
        scale = ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)
        columns = {"image": pixels.astype(np.uint8)}
        self._dataset = tiny_dataset(self._store, columns, label_B, transforms=[scale], num_val=100)

    def check_learns(self) -> None:
        """Ten epochs on classes that are easy to tell apart."""
        result, _ = self._train("learns", epochs=10)
        assert result.metrics["val_accuracy"] >= 0.9

    def check_seeded(self) -> None:
        """The same seed trains to the same bits."""
        first, again = (self._train(run_id, epochs=1)[0] for run_id in ("first", "again"))
        assert first.artifact.digest == again.artifact.digest

    def check_predicts_alike(self) -> None:
        """Saved, loaded and asked for any number of rows, it answers as it did at the end of training."""
        from raypipe.data.shards import load_rows
        from raypipe.model.predictor import Predictor

        result, code_dir = self._train("alike", epochs=1)
        predictor = Predictor.load(self._store, result.artifact, code_dir=code_dir)
        rows = load_rows(self._store, self._dataset, "val")
        whole = predictor.predict(rows.columns)
        assert (whole.labels() == rows.target).mean() == result.metrics["val_accuracy"]
        by_one = [predictor.predict({"image": rows.columns["image"][i : i + 1]}).values for i in range(20)]
        np.testing.assert_allclose(np.concatenate(by_one), whole.values[:20], rtol=0, atol=1e-6)

    def check_no_pickle(self) -> None:
        """No file it leaves in the store is or holds a pickle."""
        from picklescan.scanner import scan_directory_path

        self._train("clean", epochs=1)
        found = scan_directory_path(str(self._folder / "store"))
        assert (found.infected_files, found.issues_count, found.scan_err) == (0, 0, False)
        assert not [path for path in (self._folder / "store").rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]

    def _train(self, run_id: str, *, epochs: int) -> Any:
        from raypipe.spec.pipeline import PipelineSpec
        from raypipe.train.loop import TrainOrder, run
        from raypipe.train.rows import World

        spec = PipelineSpec.model_validate(
            {
                "name": "contract",
                "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y"},
                "model": {"kind": self._name, **self.examples[self._name]},
                "train": {
                    "epochs": epochs,
                    "global_batch_size": 32,
                    "optimizer": {"kind": "adamw", "lr": 0.01},
                    "clip_grad_norm": 1.0,
                },
            }
        )
        order = TrainOrder(spec, self._dataset, self._store.uri, run_id, layout.artifact(run_id, "train"), self._folder)
        return run(order, World(), lambda event: None), self._folder


# --- searches --------------------------------------------------------------------------------------------------------


class SearchContract:
    """A search stays in bounds, repeats under the same seed, and gives the best of its trials. Needs Ray.

    Args:
        name: key in raypipe.tune.search.SEARCHES.
        folder: an empty one.
    """

    def __init__(self, name: str, folder: Path) -> None:
        from raypipe.spec.pipeline import PipelineSpec
        from raypipe.testing.fakes import tiny_dataset

        self._store = open_store(str(folder))
        random = np.random.default_rng(0)
        x = random.normal(size=(80, 3)).astype(np.float32)
        self._dataset = tiny_dataset(self._store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)
        self._spec = PipelineSpec.model_validate(
            {
                "name": "contract",
                "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
                "model": {"kind": "mlp"},
                "train": {"epochs": 2, "global_batch_size": 20, "optimizer": {"kind": "sgd"}},
                "tune": {
                    "space": {
                        "train.optimizer.lr": {"log_uniform": [0.001, 1.0]},
                        "train.optimizer.momentum": {"uniform": [0.1, 0.9]},
                        "train.epochs": {"int_uniform": [1, 2]},
                        "model.hidden": {"choice": [[4], [8, 4]]},
                    },
                    "num_trials": 4,
                    "search": {"kind": name},
                    "max_concurrent_trials": 1,  # so that a search that learns sees the same trials in the same order
                },
            }
        )

    def check_search(self) -> None:
        """Two searches with one seed: the same points, in bounds; the best of them becomes the model."""
        first, again = self._search("first"), self._search("again")
        for trial in first.trials:
            assert trial.status == "completed" and trial.metric is not None
            lr, momentum, epochs, hidden = trial.values.values()
            assert 0.001 <= lr <= 1 and 0.1 <= momentum <= 0.9
            assert epochs in (1, 2) and hidden in ([4], [8, 4])
            assert trial.epochs == epochs
        assert len({trial.values["train.optimizer.lr"] for trial in first.trials}) == len(first.trials) == 4
        best = min(first.trials, key=lambda trial: trial.metric or 0.0)
        assert (first.best_trial, first.best_values) == (best.trial_id, best.values)
        assert first.best.metrics["val_loss"] == best.metric
        points = [sorted((trial.values for trial in result.trials), key=str) for result in (first, again)]
        assert points[0] == points[1]
        assert first.best.artifact.digest == again.best.artifact.digest

    def _search(self, run_id: str) -> Any:
        from raypipe.testing.fakes import run_context
        from raypipe.tune.stage import tune

        return tune(self._spec, self._dataset, run_context(self._store, run_id=run_id))
