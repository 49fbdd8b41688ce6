"""What a version's rows show that is worth acting on; and that clean data shows nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.datasets

from raypipe.data.checks.warnings import warnings_of
from raypipe.data.profile import parts
from raypipe.data.profile.meaning import meaning
from raypipe.data.profile.profile import finish
from raypipe.data.table.row_hash import row_hash
from raypipe.records import DataProfile
from raypipe.spec.data import DataSpec

RANDOM = np.random.default_rng(3)
NUM = 1200
CLASSES = RANDOM.integers(0, 3, NUM)
NOISE = RANDOM.normal(size=NUM)
SPLITS = {"train": slice(0, 800), "val": slice(800, 1000), "test": slice(1000, NUM)}
READY_MADE = {"kind": "column", "column": "part"}


def warned(columns: dict[str, Any], **fields: Any) -> list[tuple[str, tuple[str, ...], str]]:
    """Kind, columns and text of each warning of rows whose first 800 are train, as shards of the splits tell them."""
    spec = DataSpec.model_validate({"source": {"format": "csv", "path": "f.csv"}, "target": "y", **fields})
    values: dict[str, Any] = {n: pa.array(v) if isinstance(v[0], str) else np.asarray(v) for n, v in columns.items()}
    ids = row_hash(values)
    by_split = {name: parts.part({n: v[cut] for n, v in values.items()}, ids[cut]) for name, cut in SPLITS.items()}
    whole = parts.merge([part for part in by_split.values() if part.num_rows])
    described = DataProfile(name="d", version="v", num_rows=whole.num_rows, columns=finish(whole))
    target = values["y"].to_pylist() if isinstance(values["y"], pa.Array) else values["y"].tolist()
    labels = {name: Counter(target[cut]) for name, cut in SPLITS.items()} if spec.task == "classification" else {}
    splits = {name: finish(part) for name, part in by_split.items()} if spec.split.kind == "column" else {}
    features = tuple(name for name in columns if name != "y")
    return [(w.kind, w.columns, w.text) for w in warnings_of(described, whole, splits, labels, spec, features)]


def test_number_that_names_rows_is_told_and_one_that_may_mean_something_is_not():
    ids = RANDOM.choice(10**9, NUM, replace=False)
    ((kind, columns, text),) = warned({"customerId": ids, "population": ids[::-1], "a": NOISE, "y": CLASSES})
    assert (kind, columns) == ("identifier", ("customerId",))
    assert f"100% of {NUM} values are different" in text and "leave it out of data.features" in text


def test_code_that_names_rows_is_told_where_it_is_read_as_text_and_a_text_is_not():
    tokens = {"kind": "tokens", "tokenizer": "byte", "max_length": 8, "columns": ["code", "says", "day"]}
    columns = {
        "code": [f"A{i:06d}" for i in RANDOM.permutation(NUM)],
        "says": [f"word {i} and more" for i in RANDOM.permutation(NUM)],
        "day": [str(np.datetime64("2000-01-01") + i) for i in range(NUM)],
        "y": CLASSES,
    }
    assert [(kind, names) for kind, names, _ in warned(columns, transforms=[tokens])] == [("identifier", ("code",))]


def test_constant_columns_are_told_together_and_gaps_beside_one_value_are_not_constant():
    gaps = np.where(NOISE > 0, 1.0, np.nan)
    columns = {"one": np.full(NUM, 7), "dark": np.zeros((NUM, 2, 2)), "gaps": gaps, "a": NOISE, "y": CLASSES}
    ((kind, names, text),) = warned(columns)
    assert (kind, names) == ("constant", ("one", "dark"))
    assert "columns 'one', 'dark' hold one value each in all rows" in text and "data.features" in text
    ((_, _, text),) = warned({"one": np.full(NUM, 7), "y": CLASSES})
    assert f"holds 7 in all {NUM} rows" in text


@pytest.mark.parametrize(
    ("made", "is_told"),
    [
        (lambda: np.exp(NOISE), "train.target_transform: log"),
        (lambda: -np.exp(NOISE), "train.loss: huber"),
        (lambda: np.exp(NOISE) - 1.5, "train.loss: huber"),
        (lambda: NOISE, None),
        (lambda: RANDOM.uniform(1, 9, NUM), None),
        (lambda: NOISE + 0.3 * NOISE**2, None),
        (lambda: (NOISE > 1.5) * 1.0, None),
    ],
)
def test_long_tail_of_a_target_is_told_with_what_helps(made: Any, is_told: str | None):
    told = warned({"a": RANDOM.normal(size=NUM), "y": made()}, task="regression")
    assert [kind for kind, _, _ in told] == (["long_tail"] if is_told else [])
    if is_told:
        assert is_told in told[0][2] and "one in a hundred is" in told[0][2]
        assert ("target_transform" in told[0][2]) == ("target_transform" in is_told)


def test_values_that_differ_in_case_or_blanks_alone_are_told_of_target_and_categories():
    labels = np.array(["yes", "no"], object)[CLASSES % 2]
    labels[0:1200:40], labels[5:1200:80] = "Yes", " yes"
    city = np.where(NOISE > 1.5, "New  York", np.where(NOISE > 0, "new york", "Rome"))
    columns = {"city": city.tolist(), "word": city.tolist(), "y": labels.tolist()}
    told = warned(columns, transforms=[{"kind": "one_hot", "columns": ["city"]}])
    assert [(kind, names) for kind, names, _ in told] == [("spelling", ("y",)), ("spelling", ("city",))]
    assert "'Yes' (30 rows), ' yes' (15 rows)" in told[0][2] and "in_set" in told[0][2]


def test_class_with_few_rows_is_told_with_its_rows_in_each_split():
    rare = CLASSES.copy()
    rare[[3, 5, 1100]] = 9
    ((kind, names, text),) = warned({"a": NOISE, "y": rare})
    assert (kind, names) == ("few_rows", ("y",))
    assert "has 1 of 4 classes with too few rows (9: 2 in train, 0 in val, 1 in test)" in text
    assert "stratified" in text and "class_weights" in text
    many = np.arange(NUM) % 1000 * 3  # a quantity is told as one, and once
    assert [kind for kind, _, _ in warned({"a": NOISE, "y": many})] == ["no_class"]


@pytest.mark.parametrize(
    ("moved", "figures"),
    [
        (NOISE + np.r_[np.zeros(1000), np.full(200, 3.0)], "the median is "),
        (["cat" if i < 1000 or i % 2 else "dog" for i in range(NUM)], "'dog' 50% after 0%"),
        (
            np.where(np.arange(NUM) % 2 + (np.arange(NUM) < 1000), NOISE, np.nan),
            "is missing in 0% of the rows of",
        ),
        (RANDOM.random((NUM, 3, 3)) * np.r_[np.full(1000, 255), np.full(200, 1)][:, None, None], "has the mean 0."),
    ],
    ids=["numbers", "words", "gaps", "pictures"],
)
def test_ready_made_test_split_that_differs_is_told_by_column_and_figures(moved: Any, figures: str):
    columns = {"x": moved, "a": NOISE, "b": CLASSES * 2, "y": RANDOM.permutation(CLASSES)}
    ((kind, names, text),) = warned(columns, split=READY_MADE)
    assert (kind, names) == ("split_drift", ("x",)) and figures in text, text
    assert "in test" in text or "of test" in text
    assert "data.source" in text and "data.features" in text
    assert not warned(columns), "where chance divides the rows nobody looks"


def test_targets_that_differ_between_ready_made_splits_are_told():
    target = np.r_[CLASSES[:1000], np.where(RANDOM.random(200) < 0.9, 0, CLASSES[1000:])]
    ((kind, names, text),) = warned({"a": NOISE, "y": target}, split=READY_MADE)
    assert (kind, names) == ("split_drift", ("y",)) and "shares in test and train: 0 9" in text, text


def test_splits_that_chance_divides_show_no_difference_in_many_columns():
    columns = {f"n{i}": RANDOM.normal(size=NUM) for i in range(40)}
    columns |= {f"c{i}": RANDOM.integers(0, 2 + i, NUM) for i in range(40)}
    assert warned({**columns, "y": CLASSES}, split=READY_MADE) == []


@pytest.mark.parametrize("name", ["iris", "digits", "wine", "breast_cancer", "diabetes"])
def test_clean_data_shows_nothing(name: str):
    data: Any = getattr(sklearn.datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(data.target))
    rows = data.images if name == "digits" else data.data
    names = ["image"] if name == "digits" else [str(column) for column in data.feature_names]
    values = [rows] if name == "digits" else list(rows.T)
    columns = {column: each[order] for column, each in zip(names, values, strict=True)}
    task = "regression" if name == "diabetes" else "classification"
    cuts = [0, int(0.7 * len(order)), int(0.8 * len(order)), len(order)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SPLITS, "train", slice(*cuts[:2]))
        patched.setitem(SPLITS, "val", slice(*cuts[1:3]))
        patched.setitem(SPLITS, "test", slice(*cuts[2:]))
        assert warned({**columns, "y": data.target[order]}, task=task, split=READY_MADE) == []


@pytest.mark.parametrize(
    ("name", "values", "recognised"),
    [
        ("n", np.arange(NUM) * 1.0, "row number"),
        ("n", NOISE, "number"),
        ("n", CLASSES, "whole number"),
        ("n", NOISE > 0, "true/false"),
        ("user_id", RANDOM.choice(10**9, NUM, replace=False), "identifier"),
        ("n", RANDOM.random((NUM, 4, 4)), "array 4 x 4"),
        ("n", ["a", "b", "c"] * 400, "category of 3"),
        ("n", [f"c{i}" for i in RANDOM.integers(0, 1100, 6000)], "category of more than 1000"),
        ("n", [f"{i} apples and pears" for i in range(NUM)], "text"),
        ("n", ["2024-01-31", "2024-02-29"] * 600, "date"),
        ("n", np.full(NUM, np.nan), "no value"),
        ("n", ["x"] * NUM, "one value"),
    ],
)
def test_column_is_recognised_by_what_it_holds(name: str, values: Any, recognised: str):
    column = pa.array(values) if isinstance(values[0], str) else np.asarray(values)
    ids = row_hash({"n": column, "i": np.arange(len(column))})
    (profile,) = finish(parts.part({name: column}, ids))
    assert meaning(profile).text == recognised


def test_class_that_differs_from_another_in_case_alone_is_told_once_and_not_as_misspelt_too():
    labels = np.array(["versicolor", "virginica"], object)[CLASSES % 2]
    labels[:2], labels[2] = "Versicolor", "virginca"
    told = [text for kind, _, text in warned({"a": NOISE, "y": labels.tolist()}) if kind == "spelling"]
    assert ["'Versicolor'" in text for text in told] == [True, False] and "'virginca' (1 rows) like" in told[1]
