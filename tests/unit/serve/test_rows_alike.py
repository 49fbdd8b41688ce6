"""The same rows from shards, from files of batch inference and from JSON requests: the same bits, for every kind of
transform and every reader that recognises or decodes something."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter

from raypipe.batch.reading import as_learned, source_fields
from raypipe.batch.rows import raw_columns
from raypipe.data import shards
from raypipe.data.checks.examine import examine
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats import FORMATS
from raypipe.data.formats.base import ANYTHING
from raypipe.data.formats.datasource import read_group
from raypipe.data.masking import UNMASKED
from raypipe.data.table import packing
from raypipe.data.transforms import KINDS
from raypipe.data.transforms.base import start
from raypipe.records import Column, Reading, Signature
from raypipe.serve.checker import Checker
from raypipe.serve.sent_files import SentFiles
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import Source
from raypipe.spec.transforms import Transform
from raypipe.testing.contracts import TransformContract
from raypipe.testing.contracts.transforms import TRANSFORM_COLUMNS
from raypipe.testing.fakes import fit_columns
from tests.unit.data.test_sound import wav_of

NUM_ROWS = 60
ALONE = 12
"""Rows that are also sent one at a time."""

CASES = [
    pytest.param(name, number, id=f"{name}-{number}")
    for name in KINDS
    for number in range(len(TransformContract.examples[name]))
]


def stored(columns: Mapping[str, Any]) -> pa.Table:
    """As a shard keeps them, read back."""
    arrays = {name: shards.tensor_array(v) if np.ndim(v) > 1 else pa.array(v) for name, v in columns.items()}
    return packing.unpacked(packing.from_buffer(shards.to_bytes(pa.table(arrays))))


def json_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As a request's body brings them."""
    return json.loads(json.dumps(rows))


def plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return None if isinstance(value, float) and value != value else value


@pytest.mark.parametrize(("name", "number"), CASES)
def test_every_transform_gives_rows_of_shards_batches_and_requests_the_same_bits(name: str, number: int):
    if name not in TransformContract.usable_examples():
        pytest.skip(f"needs {TransformContract.packages[name]}, an extra of raypipe")
    fields = {"kind": name, **TransformContract.examples[name][number]}
    filled = [c for c in fields["columns"] if KINDS[name].fills or not TRANSFORM_COLUMNS[c][0].get("nullable")]
    inputs = tuple(Column(name=c, **TRANSFORM_COLUMNS[c][0]) for c in filled)
    columns = {c: TRANSFORM_COLUMNS[c][1] for c in filled}
    spec = TypeAdapter(Transform).validate_python({**fields, "columns": filled})
    fitted = fit_columns([spec], inputs, [columns])
    signature = Signature(inputs=inputs, task="regression", target="y")

    expected = fitted.apply(shards.features(stored(columns), signature), inputs)
    assert expected.dtype == np.float32 and len(expected) == NUM_ROWS

    written = {column.name: [plain(value) for value in columns[column.name]] for column in inputs}
    for column in inputs:
        if column.is_list:
            written[column.name] = [json.loads(text) for text in written[column.name]]
    batch = fitted.apply(raw_columns(pa.table(written), signature), inputs)
    assert batch.tobytes() == expected.tobytes()

    rows = json_rows([{c: values[i] for c, values in written.items()} for i in range(NUM_ROWS)])
    checker = Checker(signature, NUM_ROWS)
    assert fitted.apply(checker.rows(rows), inputs).tobytes() == expected.tobytes()
    alone = [fitted.apply(checker.rows([row]), inputs) for row in rows[:ALONE]]
    assert np.concatenate(alone).tobytes() == expected[:ALONE].tobytes()


def write_sheet(folder: Path) -> list[dict[str, Any]]:
    """As a spreadsheet of a country with decimal commas writes it; and the rows that a client sends."""
    lines = ["Tag;Preis;Anteil;offen;um;Stadt;y"]
    rows: list[dict[str, Any]] = []
    for i in range(40):
        lines.append(
            f"{1 + i % 28:02}.{1 + i % 12:02}.2024;1.{234 + i},5;{i},25 %;{'ja' if i % 3 else 'nein'};"
            f"{i % 24}:{i:02};{'Köln' if i % 2 else 'Bonn'};{i % 2}"
        )
        rows.append(
            {
                "Tag": f"2024-{1 + i % 12:02}-{1 + i % 28:02}",
                "Preis": 1234.5 + i,
                "Anteil": i + 0.25,
                "offen": i % 3 > 0,
                "um": (i % 24) * 3600.0 + i * 60,
                "Stadt": "Köln" if i % 2 else "Bonn",
            }
        )
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return rows


def write_logs(folder: Path) -> list[dict[str, Any]]:
    """Nested objects, a vector and a list of texts a line."""
    rows = [
        {
            "user": {"age": 20.5 + i, "city": "Köln" if i % 2 else "Bonn"},
            "vector": [0.1 * i, -1e-7, 3.0],
            "tags": ["red", "new"][: i % 3],
            "is_new": i % 2 == 0,
            "big": 2**53 + i,
        }
        for i in range(40)
    ]
    (folder / "t.jsonl").write_text("\n".join(json.dumps({**row, "y": i % 2}) for i, row in enumerate(rows)))
    return rows


def write_parquet(folder: Path) -> list[dict[str, Any]]:
    """Decimals, moments with a zone, durations, dictionaries, structs and lists."""
    moment = datetime.datetime(2024, 1, 31, 12, 30, tzinfo=datetime.timezone.utc)
    table = pa.table(
        {
            "price": pa.array([decimal.Decimal(f"{i}.{i % 10}0") for i in range(40)], pa.decimal128(12, 2)),
            "at": pa.array([moment + datetime.timedelta(hours=i) for i in range(40)], pa.timestamp("us", "UTC")),
            "city": pa.array([("Bonn", "Köln")[i % 2] for i in range(40)]).dictionary_encode(),
            "user": pa.array([{"age": 20 + i} for i in range(40)]),
            "vector": pa.array([[i / 7, -2.5] for i in range(40)], pa.list_(pa.float32())),
            "y": pa.array([i % 2 for i in range(40)]),
        }
    )
    pq.write_table(table, folder / "t.parquet")
    return [
        {
            "price": float(f"{i}.{i % 10}0"),
            "at": (moment + datetime.timedelta(hours=i)).strftime("%Y-%m-%d %H:%M:%S.%fZ"),
            "city": ("Bonn", "Köln")[i % 2],
            "user": {"age": 20 + i},
            "vector": [float(np.float32(i / 7)), -2.5],
        }
        for i in range(40)
    ]


def sent(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def write_files(folder: Path, suffix: str, data_of: Callable[[int], bytes]) -> list[Path]:
    paths = [folder / "ab"[i % 2] / f"{i:02}{suffix}" for i in range(12)]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data_of(i))
    return sorted(paths)


def write_pictures(folder: Path) -> list[dict[str, Any]]:
    random = np.random.default_rng(2)

    def data_of(number: int) -> bytes:
        held, pixels = io.BytesIO(), random.integers(0, 256, (7 + number % 3, 9, 4), np.uint8)
        Image.fromarray(pixels).convert(("RGB", "RGBA", "L", "P")[number % 4]).save(held, "PNG")
        return held.getvalue()

    return [{"image": sent(path)} for path in write_files(folder, ".png", data_of)]


def write_sounds(folder: Path) -> list[dict[str, Any]]:
    random = np.random.default_rng(2)

    def data_of(number: int) -> bytes:
        samples = random.uniform(-1, 1, (300 + 50 * number, 1 + number % 2))
        return wav_of(samples, 1, (16, 24)[number % 2], rate=(8000, 11025)[number % 2])

    return [{"audio": sent(path)} for path in write_files(folder, ".wav", data_of)]


READERS: dict[str, tuple[str, dict[str, Any], Callable[[Path], list[dict[str, Any]]]]] = {
    "csv": ("t.csv", {"dtypes": {"offen": "bool", "um": "time"}, "decimal_point": ",", "thousands": "."}, write_sheet),
    "jsonl": ("t.jsonl", {}, write_logs),
    "parquet": ("t.parquet", {}, write_parquet),
    "images": ("", {"size": [6, 5], "transparency": "white"}, write_pictures),
    "sound": ("", {"sample_rate": 8000, "duration_s": 0.05, "align": "center"}, write_sounds),
}


def read(source: Any, folder: Path) -> pa.Table:
    parts, read_part = FORMATS[source.format].plan(source, str(folder), UNMASKED, is_judged=True)
    return pa.concat_tables(list(read_group(parts, read_part, source.columns, source.where, UNMASKED, is_judged=True)))


def held(columns: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """What transforms begin with: bits of numbers, texts."""
    begun = {column.name: start(columns[column.name], column) for column in signature.inputs}
    return {name: v.tobytes() if isinstance(v, np.ndarray) else v.to_pylist() for name, v in begun.items()}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_shards_batches_and_requests_the_same_bits(name: str, tmp_path: Path):
    path, fields, write = READERS[name]
    rows = write(tmp_path)
    given = TypeAdapter(Source).validate_python({"format": name, "path": path or ".", **fields})
    recognised, _ = FORMATS[name].recognised([given], str(tmp_path), UNMASKED, ANYTHING, None)
    target = "label" if name in ("images", "sound") else "y"
    spec = DataSpec.model_validate({"source": recognised, "target": target, "task": "classification"})
    table = read(recognised, tmp_path)
    schema = schema_of(spec, [types_of(table)])
    values, reasons = examine(table, schema)
    assert not any(mask.any() for mask, _ in reasons)

    reading = Reading(format=name, settings=recognised.settings())
    signature = Signature(inputs=schema.inputs, task="classification", target=target, classes=(0, 1), reading=reading)
    expected = held(shards.features(stored({c: values[c] for c in schema.features}), signature), signature)

    asked = TypeAdapter(Source).validate_python(source_fields({"format": name, "path": path or "."}, reading))
    batch = raw_columns(read(as_learned(asked, signature), tmp_path), signature)
    assert held(batch, signature) == expected

    checker = Checker(signature, len(rows), SentFiles(signature).read)
    assert held(checker.rows(json_rows(rows)), signature) == expected
