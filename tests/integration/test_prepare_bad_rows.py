"""Rows that are wrong are set aside, in every format alike, and too many stop the run."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import load_rows
from raypipe.data.stage import prepare
from raypipe.errors import DataError
from raypipe.runtime.progress import Progress
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context
from tests.integration.tables import ADULTS, PLAIN, spec, store_files, write_csv, write_parquet

pytestmark = pytest.mark.ray


def test_poisoned_rows_are_set_aside_with_their_number_and_the_others_are_kept(ray_cluster, tmp_path, ctx):
    rows = [f"{r['key']},{20 + r['key'] % 50},{r['city']},{r['pay']},{r['label']}" for r in ADULTS]
    wrong = {3: "3,abc,c1,1,0", 77: "77,20,c1", 300: "300,20,c1,1,0,9,9", 599: "599,20,c1,high,0"}
    for number, row in wrong.items():
        rows[number] = row
    (tmp_path / "f.csv").write_text("\n".join(["key,age,city,pay,label", *rows]) + "\n")
    source = {"format": "csv", "path": "f.csv", "dtypes": {"age": "float64", "pay": "float64"}}
    record = prepare(spec(tmp_path, source=source, bad_rows={"max_frac": 0.01}), ctx)
    told = [json.loads(line) for line in ctx.store.read(record.bad_rows_key).decode().splitlines()]
    assert [row["row_number"] for row in told] == [number + 1 for number in wrong]
    assert told[0]["reason"] == "f.csv: 'age' is 'abc', which is no float64"
    assert sum(split.num_rows for split in record.splits.values()) == 596
    with pytest.raises(DataError, match="4 of 600 rows") as caught:
        prepare(spec(tmp_path, source=source), ctx)
    assert "row 78: f.csv: the row has 3 values, the header 5" in str(caught.value)


NUM_MANY = 20_000

POISON = {  # what is changed in a row, and the reason that is told; JSON has neither NaN nor infinities
    "not of its type": ({"age": "abc"}, "'age' is"),
    "NaN": ({"pay": float("nan")}, "'pay' is missing|NaN is no number"),
    "infinite": ({"pay": float("-inf")}, "'pay' is infinite|Infinity is no number"),
    "null": ({"city": None}, "'city' is missing"),
    "without a label": ({"y": None}, "'y' is missing"),
    "out of range": ({"age": 2**40}, "'age' is not between 0 and"),
    "too long": ({"city": "x" * 5000}, "'city'"),
    "a wrong label": ({"y": 7}, "'y' is"),
}


def write_poisoned(path, poisoned):
    """Rows of which those of `poisoned` are wrong in all ways in turn; Parquet has no values of another type."""
    kinds = [change for change, _ in POISON.values()]
    if path.suffix == ".parquet":
        kinds[0] = {"age": None}
    rows = [{"age": i, "pay": i / 4, "city": f"c{i % 7}", "y": i % 2} for i in range(NUM_MANY)]
    for number, i in enumerate(poisoned):
        rows[i] |= kinds[number % len(kinds)]
    if path.suffix == ".csv":
        write_csv(path, rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3000)


def test_one_poisoned_row_in_a_hundred_is_set_aside_alike_in_every_format_and_more_stop_the_run(ray_cluster, tmp_path):
    poisoned = sorted(np.random.default_rng(7).choice(NUM_MANY, NUM_MANY // 100, replace=False).tolist())
    good = np.delete(np.arange(NUM_MANY), poisoned)
    dtypes = {"age": "int64", "pay": "float64", "city": "string", "y": "int64"}
    expectations = [
        {"kind": "range", "columns": ["age"], "min": 0, "max": NUM_MANY, "on_fail": "quarantine"},
        {"kind": "length", "columns": ["city"], "max": 100, "on_fail": "quarantine"},
        {"kind": "in_set", "columns": ["y"], "values": [0, 1], "on_fail": "quarantine"},
    ]
    fields = {"target": "y", "expectations": expectations, "transforms": [{"kind": "one_hot", "columns": ["city"]}]}
    contents, splits = set(), []
    for name in ("csv", "jsonl", "parquet"):
        write_poisoned(tmp_path / f"f.{name}", poisoned)
        source = {"format": name, "path": f"f.{name}", **({} if name == "parquet" else {"dtypes": dtypes})}
        made = {"root": str(tmp_path), "source": source, "read_parallelism": 3, "rows_per_shard": 3000, **fields}
        ctx = run_context(open_store(str(tmp_path / f"store-{name}")))
        with pytest.raises(DataError, match=r"200 of 20000 rows .* allows 199"):
            prepare(DataSpec.model_validate({**made, "bad_rows": {"max_frac": 199.5 / NUM_MANY}}), ctx)
        assert not store_files(ctx.store)

        record = prepare(DataSpec.model_validate({**made, "bad_rows": {"max_frac": 0.01}}), ctx)
        aside = [json.loads(line) for line in ctx.store.read(str(record.bad_rows_key)).decode().splitlines()]
        assert [row["row_number"] - 1 for row in aside] == poisoned and record.num_bad_rows == len(poisoned)
        for number, row in enumerate(aside):
            _, reason = list(POISON.values())[number % len(POISON)]
            assert re.search(reason, row["reason"]), row
        rows = [load_rows(ctx.store, record, split) for split in record.splits]
        age = np.concatenate([part.columns["age"] for part in rows])
        order = np.argsort(age)
        assert (age[order] == good).all()
        assert (np.concatenate([part.columns["pay"] for part in rows])[order] == good / 4).all()
        assert (np.concatenate([part.columns["city"] for part in rows])[order] == [f"c{i % 7}" for i in good]).all()
        assert (np.concatenate([part.target for part in rows])[order] == good % 2).all()
        contents.add(record.content_fingerprint)
        splits.append([shard.sha256 for split in record.splits.values() for shard in split.shards])
    assert len(contents) == 1 and splits[0] == splits[1] == splits[2]


def test_prepare_keeps_bad_rows_aside_with_reason_and_number(ray_cluster, ctx, tmp_path):
    rows = [dict(row) for row in ADULTS]
    rows[7]["pay"] = float("nan")
    rows[9]["label"] = rows[9]["city"] = None
    write_csv(tmp_path / "in" / "a.csv", rows)
    with pytest.raises(DataError, match=r"2 of 600 rows break the schema.*allows 0\n  row 8: 'pay' is missing"):
        prepare(spec(tmp_path / "in"), ctx)
    dataset = prepare(spec(tmp_path / "in", bad_rows={"max_frac": 0.01}, read_parallelism=4), ctx)
    assert dataset.num_bad_rows == 2 and sum(s.num_rows for s in dataset.splits.values()) == 598
    kept = [json.loads(line) for line in ctx.store.read(dataset.bad_rows_key).splitlines()]
    assert [row["row_number"] for row in kept] == [8, 10]
    assert kept[1]["reason"] == "'city' is missing; 'label' is missing" and kept[1]["row"]["key"] == 9


def test_latin_1_in_utf8_tells_which_classes_lose_what_share_and_goes_on_telling_once_it_is_allowed(
    ray_cluster, ctx, tmp_path
):
    text = [b"f\xfcr" if i % 20 == 0 or (i % 2 and i % 3 == 0) else b"for" for i in range(600)]
    rows = [b"%d,%s,%s,,left" % (i, text[i], b"yes" if i % 2 else b"no") for i in range(600)]
    (tmp_path / "f.csv").write_bytes(b"\n".join([b"a,t,y,,", *rows, b""]))
    fields = {"features": ["a"], "target": "y", "split": {}, "transforms": []}
    with pytest.raises(DataError, match=r"f\.csv is no UTF-8 text: line 2 holds 'für' in cp1252"):
        prepare(spec(tmp_path, **fields), ctx)
    fields["source"] = {"format": "csv", "path": "*.csv", "encoding": "utf-8"}
    with pytest.raises(DataError) as caught:
        prepare(spec(tmp_path, **fields), ctx)
    lost = "each 'y' that is lost with them: 'yes' 33.3% (100 of 300), 'no' 10.0% (30 of 300)"
    assert lost in caught.value.message and "save the file as UTF-8" in caught.value.hint
    lines = io.StringIO()
    ctx = replace(ctx, progress=Progress("r", stream=lines))
    assert prepare(spec(tmp_path, bad_rows={"max_frac": 0.3}, **fields), ctx).num_bad_rows == 130
    assert f"130 bad rows are set aside; share of the rows of {lost}" in lines.getvalue()
    unnamed = "column '' is the name of several columns that hold values, as the header leaves it empty: left out"
    assert unnamed in lines.getvalue()


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (ADULTS[:1], {"task": "regression"}, "the val split is empty|the train split is empty|the test split is empty"),
        (ADULTS[:1], {}, r"has one class, \[0\]"),
        ([{**row, "label": None} for row in ADULTS[1:]] + ADULTS[:1], {}, "599 of 600 rows break the schema"),
        (ADULTS, {"expectations": [{"kind": "range", "columns": ["pay"], "min": 1e6, "on_fail": "quarantine"}],
                  "bad_rows": {"max_frac": 1.0}}, "the train split is empty: of 0 good rows"),
        (ADULTS, {"expectations": [{"kind": "unique", "columns": ["city"], "on_fail": "quarantine"}],
                  "bad_rows": {"max_frac": 0.5}}, "(?s)596 of 600 rows .*row id [0-9a-f]{16}: another row has"),
    ],
)  # fmt: skip
def test_prepare_of_too_few_good_rows_says_what_is_wrong_with_the_others(
    ray_cluster, ctx, tmp_path, rows, fields, message
):
    write_parquet(tmp_path / "f.parquet", rows)
    with pytest.raises(DataError, match=message):
        prepare(spec(tmp_path, "f.parquet", "parquet", **PLAIN, **fields), ctx)
    assert not store_files(ctx.store)
