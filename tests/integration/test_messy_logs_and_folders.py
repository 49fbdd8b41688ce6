"""Log files as JSON lines and annotated folders as strangers publish them: read as a person reads them, or refused.

Each ends as rows whose values equal what a person reads in the file, with at most three settings, each named by the
message that asked for it; one corrupted variant of each is refused, or told with row and cause.
"""

from __future__ import annotations

import datetime
import gzip
import json
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raypipe.data.checks.bad_rows import BadRows, refuse_too_many
from raypipe.data.checks.classes import refuse_one_class
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import fitting_schema, types_of
from raypipe.data.formats import FORMATS
from raypipe.data.formats.datasource import read_group
from raypipe.data.shuffle.read_all import as_read, refuse_absent
from raypipe.data.table.marks import notes_of
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.unit.data.helpers import check


@dataclass
class Messy:
    """What somebody publishes.

    Attributes:
        write: puts it into a folder; with True a corrupted variant of it.
        data: what a user writes at first.
        settings: what has to be added, one after another: a part of the message that asks for it -> fields of `data`.
        values: what a person reads, by column.
        corrupted: a part of what is said of the corrupted variant.
    """

    write: Callable[[Path, bool], None]
    data: dict[str, Any]
    values: dict[str, list[Any]]
    corrupted: str
    settings: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def prepared(folder: Path, data: dict[str, Any]) -> tuple[dict[str, list[Any]], list[str]]:
    """The rows as they would be stored, in order of the files, and what is told; without Ray.

    Raises:
        DataError: as preparing does.
    """
    spec = DataSpec.model_validate({**data, "root": str(folder)})
    tables: list[pa.Table] = []
    for part in spec.parts():
        source = as_read(part.source, spec)
        parts, read_part = FORMATS[source.format].plan(source, str(folder), is_judged=True)
        of_part = list(read_group(parts, read_part, source.columns, source.where, is_judged=True))
        refuse_absent([types_of(table) for table in of_part], part.field, spec)
        tables += of_part
    schema = fitting_schema(spec, [types_of(table) for table in tables])
    columns: dict[str, list[Any]] = {}
    bad = BadRows()
    for table in tables:
        values, aside = check(table, schema)
        bad.add(aside)
        for name, column in values.items():
            columns.setdefault(name, []).extend(
                column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
            )
    for aside in bad.kept:
        aside["row_number"] = aside.pop("position", 0) + 1
    refuse_too_many(bad, sum(table.num_rows for table in tables), 0.0, remedies=remedies(bad, spec))
    (target,) = spec.targets
    refuse_one_class(sorted(set(columns[target])), schema, source=spec.source)
    return columns, [note for table in tables for note in notes_of(table.schema)]


def merged(data: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**data, **more, "source": {**data["source"], **more.get("source", {})}}


def jsonl(path: Path, rows: list[Any], *, end: str = "\n") -> None:
    path.write_bytes("".join((json.dumps(row) if not isinstance(row, str) else row) + end for row in rows).encode())


# --- log files -------------------------------------------------------------------------------------------------------


def access_log(folder: Path, is_corrupted: bool) -> None:
    rows: list[Any] = [
        {
            "@timestamp": "2024-01-31T12:00:00.000+01:00",
            "http": {"method": "GET", "status": 200},
            "took": 0.5,
            "ok": True,
        },
        {
            "@timestamp": "2024-01-31T12:00:01.000+01:00",
            "http": {"method": "POST", "status": 500},
            "took": 2,
            "ok": False,
        },
        {
            "@timestamp": "2024-01-31T12:00:02.000+01:00",
            "http": {"method": "GET", "status": 404},
            "took": 1.5,
            "ok": False,
        },
    ]
    if is_corrupted:  # shifted by a column
        rows[1]["http"] = {"method": 500, "status": "POST"}
    jsonl(folder / "access.jsonl", rows)


def application_log(folder: Path, is_corrupted: bool) -> None:
    rows: list[Any] = [
        {"level": "INFO", "context": {"user": "ann", "tries": 1}, "message": "started"},
        {"level": "ERROR", "context": {"user": "bob", "tries": 3}, "message": {"text": "failed", "code": 7}},
        {"level": "INFO", "context": {"user": "cem", "tries": 2}, "message": ["a", 1]},
    ]
    if is_corrupted:
        rows[2]["context"]["tries"] = [2]
    jsonl(folder / "app.ndjson", rows)


def sensor_log(folder: Path, is_corrupted: bool) -> None:
    rows: list[Any] = [
        {"reading": [0.1, 0.2, 0.3], "state": "idle"},
        "",
        {"reading": [1, 2, 3], "state": "run"},
        {"reading": [1.5, 2.5] if is_corrupted else [1.5, 2.5, 3.5], "state": "run"},
    ]
    with gzip.open(folder / "sensor.jsonl.gz", "wb") as file:
        file.write(("\ufeff" + "".join((json.dumps(row) if row else "") + "\r\n" for row in rows)).encode())


def pretty_array(folder: Path, is_corrupted: bool) -> None:
    rows = [{"price": 12.5, "tags": ["new", "red"], "sold": True}, {"price": 7, "tags": [], "sold": False}]
    text = json.dumps(rows, indent=2)
    (folder / "export.json").write_text(text[: len(text) // 2] if is_corrupted else text)


def pandas_records(folder: Path, is_corrupted: bool) -> None:
    text = '[{"name":"Z\\u00fcrich \\"{1}\\"","n":1,"y":"a"},'
    text += '{"name":"Bern","n":null,"y":"b"},{"name":"Chur","n":3,"y":"b"}]'
    (folder / "records.json").write_text(text.replace('"n":1', '"n":1,"n":2') if is_corrupted else text)


def envelope(folder: Path, is_corrupted: bool) -> None:
    rows = [{"id": 1, "score": 0.5, "y": "a"}, {"id": 2, "score": 0.7, "y": "b"}]
    jsonl(folder / "api.jsonl", [{"count": 2, "results": rows}] if is_corrupted else rows)


def spark_events(folder: Path, is_corrupted: bool) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    properties = [[("plan", "pro"), ("plan" if is_corrupted else "seats", "9")], [("plan", "free")], None]
    table = pa.table(
        {
            "event": pa.array(
                [{"kind": "buy", "took": 1500}, {"kind": "look", "took": 20}, {"kind": "buy", "took": None}]
            ),
            "properties": pa.array(properties, pa.map_(pa.string(), pa.string())),
            "amount": pa.array([Decimal("1.25"), Decimal("0.00"), Decimal("3.50")], pa.decimal128(18, 2)),
            "at": pa.array(
                [datetime.datetime(2024, 7, d, 12, tzinfo=zone) for d in (1, 2, 3)], pa.timestamp("us", "UTC")
            ),
            "raw": pa.array([b"\0", b"\1", None]),
            "returned": [False, True, False],
        }
    )
    pq.write_table(table, folder / "part-00000.snappy.parquet")


# --- annotated folders -----------------------------------------------------------------------------------------------


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), level, np.uint8)).save(path)


def recording(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 1000, 0, "NONE", ""))
        file.writeframes(np.full(4, level, "<i2").tobytes())


def digits_by_name(folder: Path, is_corrupted: bool) -> None:
    for name in ("3_0001.png", "7_0002.png", "E_0003.png" if is_corrupted else "7_0003.png"):
        picture(folder / "scans" / name, int(name[2:6]))


def words_by_speaker(folder: Path, is_corrupted: bool) -> None:
    for i, name in enumerate(("ann/yes_1.wav", "ann/no_1.wav", "yes_2.wav" if is_corrupted else "bob/yes_1.wav")):
        recording(folder / "words" / name, 1000 * i)


def one_table_for_all_splits(folder: Path, is_corrupted: bool) -> None:
    for i in range(3):
        picture(folder / "x-rays" / f"{i:03d}.png", i)
    rows = ["000,P1,1,train", "001,P1,0,train", ("000" if is_corrupted else "002") + ",P2,1,test"]
    (folder / "patients.csv").write_text("\n".join(["image_id,patient,finding,set", *rows]) + "\n")


def table_of_some(folder: Path, is_corrupted: bool) -> None:
    for i in range(3):
        picture(folder / "photos" / f"{i}.png", i)
    name = "1.pgn" if is_corrupted else "1.png"
    (folder / "labels.csv").write_text(f"file,label,weight\n0.png,cat,1.5\n{name},dog,1\n2.png,dog,1\n")


def objects_beside(folder: Path, is_corrupted: bool) -> None:
    for i, breed in enumerate(("cat", "dog", "dog")):
        picture(folder / "pets" / f"{i}.png", i)
        text = json.dumps({"label": breed, "owner": {"age": 20 + i}}, indent=1)
        (folder / "pets" / f"{i}.json").write_text(text[:-4] if is_corrupted and i == 1 else text)


def words_beside(folder: Path, is_corrupted: bool) -> None:
    for i, word in enumerate(("yes", "no", "no\nyes" if is_corrupted else "no")):
        recording(folder / "takes" / f"{i}.wav", i)
        (folder / "takes" / f"{i}.lab").write_text(word + "\n")


def pictures(path: str, **fields: Any) -> dict[str, Any]:
    return {"source": {"format": "images", "path": path, "mode": "L", **fields}, "target": "label"}


def recordings(path: str) -> dict[str, Any]:
    return {"source": {"format": "wav", "path": path, "sample_rate": 1000, "duration_s": 0.004}, "target": "label"}


ENCODE = {"kind": "ordinal"}

MESSY: dict[str, Messy] = {
    "access log": Messy(
        access_log,
        {"source": {"format": "jsonl", "path": "access.jsonl"}, "target": "ok", "features": ["http.status", "took"]},
        {"http.status": [200, 500, 404], "took": [0.5, 2.0, 1.5], "ok": [True, False, False]},
        corrupted="row 2: access.jsonl: the row holds a wrong value: 'http.status' is \"POST\", where",
    ),
    "application log": Messy(
        application_log,
        {"source": {"format": "jsonl", "path": "app.ndjson"}, "target": "level"},
        {"context.tries": [1, 3, 2], "level": ["INFO", "ERROR", "INFO"]},
        settings=[("'message'", {"features": ["context.tries"]})],
        corrupted="row 3: app.ndjson: the row holds a wrong value: 'context.tries' is [2], where most",
    ),
    "sensor log": Messy(
        sensor_log,
        {"source": {"format": "jsonl", "path": "sensor.jsonl.gz"}, "target": "state"},
        {"reading": [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [1.5, 2.5, 3.5]], "state": ["idle", "run", "run"]},
        settings=[("data.source.where", {"source": {"where": [{"column": "state", "op": "not_null"}]}})],
        corrupted="'reading' is missing, has gaps, or is not of shape [3]",
    ),
    "pretty-printed array": Messy(
        pretty_array,
        {"source": {"format": "jsonl", "path": "export.json"}, "target": "sold"},
        {"price": [12.5, 7.0], "tags": ['["new","red"]', "[]"], "sold": [True, False]},
        settings=[("bag_of_words", {"transforms": [{"kind": "bag_of_words", "columns": ["tags"]}]})],
        corrupted="damaged at its end",
    ),
    "records of pandas": Messy(
        pandas_records,
        {"source": {"format": "jsonl", "path": "records.json"}, "target": "y", "features": ["n", "name"]},
        {"n": [1.0, None, 3.0], "name": ['Zürich "{1}"', "Bern", "Chur"], "y": ["a", "b", "b"]},
        settings=[
            ("one_hot", {"transforms": [{**ENCODE, "columns": ["name"]}]}),
            (
                "`impute`",
                {
                    "transforms": [
                        {**ENCODE, "columns": ["name"]},
                        {"kind": "impute", "columns": ["n"], "strategy": "mean"},
                    ]
                },
            ),
        ],
        corrupted="row 1: records.json: the row names the field 'n' twice",
    ),
    "answers of an API": Messy(
        envelope,
        {"source": {"format": "jsonl", "path": "api.jsonl"}, "target": "y", "features": ["score"]},
        {"score": [0.5, 0.7], "y": ["a", "b"]},
        corrupted="one JSON object, whose field 'results' holds the 2 rows",
    ),
    "events of Spark": Messy(
        spark_events,
        {"source": {"format": "parquet", "path": "part-00000.snappy.parquet"}, "target": "returned"},
        {"amount": [1.25, 0.0, 3.5], "properties.plan": ["pro", "free", None], "returned": [False, True, False]},
        settings=[
            ("data.features", {"features": ["amount", "properties.plan"]}),
            ("one_hot", {"transforms": [{**ENCODE, "columns": ["properties.plan"]}]}),
            (
                "`impute`",
                {
                    "transforms": [
                        {"kind": "impute", "columns": ["properties.plan"], "strategy": "constant", "value": "none"},
                        {**ENCODE, "columns": ["properties.plan"]},
                    ]
                },
            ),
        ],
        corrupted="a row of 'properties' has the key 'plan' twice",
    ),
    "digits by name": Messy(
        digits_by_name,
        pictures("scans"),
        {"image": [[[1] * 2] * 2, [[2] * 2] * 2, [[3] * 2] * 2], "label": ["3", "7", "7"]},
        settings=[("from: filename", {"source": {"label": {"from": "filename", "regex": "^([0-9])_"}}})],
        corrupted="matches 2 of 3 files; it does not match 'E_0003.png'",
    ),
    "words by speaker": Messy(
        words_by_speaker,
        {
            **recordings("words"),
            "split": {"kind": "grouped", "group": ["speaker"]},
        },
        {"label": ["no", "yes", "yes"], "speaker": ["ann", "ann", "bob"]},
        settings=[
            (
                "'speaker' is not there",
                {"source": {"label": {"from": "path", "regex": r"^(?P<speaker>\w+)/(?P<label>[a-z]+)_"}}},
            )
        ],
        corrupted="matches 2 of 3 files; it does not match 'yes_2.wav'",
    ),
    "one table for all splits": Messy(
        one_table_for_all_splits,
        {
            **pictures("x-rays", label={"path": "patients.csv", "file_column": "image_id", "label_column": "finding"}),
            "split": {"kind": "column", "column": "set"},
        },
        {"label": ["1", "0", "1"], "set": ["train", "train", "test"]},
        corrupted="patients.csv names the file '000' twice",
    ),
    "table with weights": Messy(
        table_of_some,
        pictures("photos"),
        {"label": ["cat", "dog", "dog"]},
        settings=[("{path: labels.csv}", {"source": {"label": {"path": "labels.csv"}}})],
        corrupted="2 of 4 rows",
    ),
    "objects beside": Messy(
        objects_beside,
        {**pictures("pets"), "features": ["image", "owner.age"]},
        {"label": ["cat", "dog", "dog"], "owner.age": [20, 21, 22]},
        settings=[("'owner.age' is not there", {"source": {"label": {"from": "sidecar", "suffix": ".json"}}})],
        corrupted="row 2: 1.png: pets/1.json is no JSON",
    ),
    "words beside": Messy(
        words_beside,
        recordings("takes"),
        {"label": ["yes", "no", "no"]},
        settings=[("from: sidecar", {"source": {"label": {"from": "sidecar", "suffix": ".lab"}}})],
        corrupted="row 3",
    ),
}


@pytest.mark.parametrize("name", MESSY)
def test_messy_files_are_read_as_a_person_reads_them_with_settings_that_messages_name(name: str, tmp_path: Path):
    messy = MESSY[name]
    messy.write(tmp_path, False)
    data = messy.data
    assert len(messy.settings) <= 3
    for asked, fields in messy.settings:
        with pytest.raises(DataError) as caught:
            prepared(tmp_path, data)
        assert asked in str(caught.value)
        data = merged(data, fields)
    values, _ = prepared(tmp_path, data)
    for column, expected in messy.values.items():
        found = values[column]
        assert str(found).replace("nan", "None") == str(expected), column


@pytest.mark.parametrize("name", MESSY)
def test_corrupted_variant_is_refused_or_told(name: str, tmp_path: Path):
    messy = MESSY[name]
    messy.write(tmp_path, True)
    data = messy.data
    for _, fields in messy.settings:
        data = merged(data, fields)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, data)
    assert messy.corrupted in str(caught.value)
