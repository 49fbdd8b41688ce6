"""Targets that are sets of labels, or several numbers: what files may hold, and what is stored of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from raypipe.data.checks.classes import classes_of
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import Schema, schema_of, types_of
from raypipe.data.shards import encode_target, load_rows
from raypipe.data.shuffle.target import class_counts, statistics
from raypipe.data.table.label_sets import separator_note
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from tests.unit.data.helpers import check, prepared

X = np.arange(6) / 7


def spec(target: Any = "tags", task: str = "multi_label", **fields: Any) -> DataSpec:
    source = {"format": "csv", "path": "f.csv"}
    split = {"val_frac": 0.0, "test_frac": 0.0}
    return DataSpec.model_validate({"source": source, "target": target, "task": task, "split": split, **fields})


def schema(data: DataSpec, table: pa.Table) -> Schema:
    return schema_of(data, [types_of(table)])


def in_splits(train: dict[str, int], val: dict[str, int] | None = None) -> dict[str, Counter[Any]]:
    return {"train": Counter(train), "val": Counter(val or {}), "test": Counter()}


TEXTS = ["b; a", "a;b;a", " c ", "", ";", "a"]
LISTS = [["b", "a"], ["a", "b", "a"], ["c"], [], [], ["a"]]
FLAGS = {"a": [True, True, False, False, False, True], "b": [1, 1, 0, 0, 0, 0], "c": [False] * 2 + [True] + [False] * 3}
HAS = [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("form", ["texts", "lists", "columns"])
def test_sets_of_labels_are_told_alike_whatever_form_they_come_in(tmp_path: Path, form: str):
    if form == "columns":
        data, held = spec(["a", "b", "c"]), {name: pa.array(values) for name, values in FLAGS.items()}
    else:
        fields: dict[str, Any] = {"label_sets": {"separator": ";"}} if form == "texts" else {}
        held = {"tags": pa.array(TEXTS) if form == "texts" else pa.array(LISTS, pa.list_(pa.string()))}
        data = spec(**fields)
    table = pa.table({"x": X, **held})
    made = prepared(tmp_path, data, [(table.slice(0, 4), None), (table.slice(4), None)])
    store, dataset = open_store(str(tmp_path)), made.dataset
    assert dataset.signature.classes == ("a", "b", "c") and [c.name for c in dataset.signature.inputs] == ["x"]
    rows = load_rows(store, dataset, "train")
    found = encode_target(rows.target, dataset.signature)
    by_x = dict(zip(rows.columns["x"].tolist(), found.astype(int).tolist(), strict=True))
    assert [by_x[x] for x in X.tolist()] == HAS
    assert class_counts(store, dataset) == (3, 2, 1)
    labels = sum((block.labels for block in made.blocks), Counter[Any]())
    assert classes_of(in_splits(labels), schema(data, table)) == ("a", "b", "c")


def test_a_row_without_a_value_is_bad_unless_it_has_no_label():
    table = pa.table({"x": X[:3], "tags": pa.array(["a", None, "b"])})
    strict = spec(label_sets={"separator": ";"})
    _, bad = check(table, schema(strict, table))
    assert [row["reason"] for row in bad.kept] == ["'tags' is missing"]
    assert "data.label_sets: {missing: no_label}" in remedies(bad, strict)[0]
    values, bad = check(table, schema(spec(label_sets={"separator": ";", "missing": "no_label"}), table))
    assert values["tags"].to_pylist() == ["a", "", "b"] and not bad.num_rows  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "held", "fields", "words"),
    [
        ("tags", {"tags": ["a", "b"]}, {}, r"nothing says what stands between the labels.*\ntry: set data.label_sets"),
        ("tags", {"tags": [["a;b"], ["c"]]}, {}, r"the label 'a;b', in which ';' stands"),
        ("tags", {"tags": [1, 2]}, {}, "holds int64; data.task: multi_label needs a text with several labels"),
        (["a", "b"], {"a": [0, 1], "b": [0, 2]}, {}, "the target 'b' holds 2; .* a column of true/false"),
        (["a", "b"], {"a": [0, 1], "b": ["x", "y"]}, {}, "the target 'b' holds string"),
    ],
)
def test_columns_that_hold_no_labels_are_refused_with_what_to_do(
    target: Any, held: dict[str, Any], fields: dict[str, Any], words: str
):
    table = pa.table({"x": X[:2], **held})
    data = spec(target, **fields)
    with pytest.raises(DataError, match=words):
        check(table, schema(data, table))


def test_labels_that_train_does_not_hold_are_refused():
    table = pa.table({"x": X, **FLAGS})
    made = schema(spec(["a", "b", "c"]), table)
    with pytest.raises(DataError, match="target 'c' is false in every row of train"):
        classes_of(in_splits({"a": 3, "b": 2, "c": 0}), made)
    texts = schema(spec(label_sets={"separator": ";"}), pa.table({"x": X, "tags": TEXTS}))
    with pytest.raises(DataError, match=r"label 'z' of target 'tags' is in 1 row.*of val but in none of train"):
        classes_of(in_splits({"a": 3, "b": 1}, {"z": 1}), texts)
    with pytest.raises(DataError, match="no row of train has a label in target 'tags'"):
        classes_of(in_splits({}), texts)


def test_labels_that_look_like_several_are_told_with_the_separator_they_seem_to_have():
    note = separator_note(["red", "red, blue"], "tags", ";")
    assert note.startswith("'tags' holds the label 'red, blue': if ',' stands between labels, set data.label_sets")
    assert separator_note(["red", "blue"], "tags", ";") == separator_note(["a;b"], "tags", ";") == ""


def test_several_numbers_are_stored_each_in_its_column_and_described(tmp_path: Path):
    table = pa.table({"x": X, "price": X * 3, "size": np.arange(6)})
    data = spec(["price", "size"], "regression")
    made = prepared(tmp_path, data, [(table, None)]).dataset
    signature = made.signature
    assert signature.targets == ("price", "size") and [c.name for c in signature.inputs] == ["x"]
    rows = load_rows(open_store(str(tmp_path)), made, "train")
    assert encode_target(rows.target, signature).shape == (6, 2)
    assert sorted(rows.target.tolist()) == np.stack([X * 3, np.arange(6)], axis=1).tolist()
    assert made.target_statistics is not None
    assert [each.mean for each in statistics(open_store(str(tmp_path)), made)] == pytest.approx([X.mean() * 3, 2.5])
    _, bad = check(pa.table({"x": X[:2], "price": [1.0, 2.0], "size": [1.0, None]}), schema(data, table))
    assert [row["reason"] for row in bad.kept] == ["'size' is missing"]


@pytest.mark.parametrize(
    ("target", "task", "fields", "words"),
    [
        (["a", "b"], "classification", {}, "several columns of true/false task: multi_label"),
        (["a", "a"], "regression", {}, "names a column twice"),
        ("a", "classification", {"label_sets": {"separator": ";"}}, "has no sets of labels"),
        (["a", "b"], "multi_label", {"label_sets": {"separator": ";"}}, "need no separator"),
        (["a", "b"], "regression", {"features": ["b"]}, "the target 'b' must not be one of the features"),
        (
            "a",
            "multi_label",
            {"split": {"kind": "stratified"}},
            "task: multi_label has none; name a column in split.by",
        ),
        (
            "a",
            "multi_label",
            {"transforms": [{"kind": "one_hot", "columns": ["a"]}]},
            "its labels are taken as they are",
        ),
    ],
)
def test_targets_that_do_not_fit_the_task_are_refused_with_the_file(
    target: Any, task: str, fields: dict[str, Any], words: str
):
    with pytest.raises(ValidationError, match=words):
        spec(target, task, **fields)
