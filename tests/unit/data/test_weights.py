"""How much a row counts: read from a column, checked row by row and as a whole, kept beside what the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.shards import load_rows
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.storage import open_store
from tests.unit.data.helpers import check, prepared

NUM_ROWS = 60
SPLIT = {"val_frac": 0.0, "test_frac": 0.0}


def spec(**fields: Any) -> DataSpec:
    source = {"format": "csv", "path": "f.csv"}
    return DataSpec.model_validate({"source": source, "target": "y", "weight": "w", "split": SPLIT, **fields})


def table(weight: Any, num_rows: int = NUM_ROWS) -> pa.Table:
    x = np.arange(num_rows) / 7
    return pa.table({"x": x, "y": np.where(np.arange(num_rows) % 3, "a", "b"), "w": pa.array(weight)})


def test_weights_are_stored_beside_the_features_and_add_up_by_split_and_class(tmp_path: Path):
    weight = np.arange(NUM_ROWS) % 5
    made = prepared(tmp_path, spec(rows_per_shard=20), [(table(weight), None)]).dataset
    assert [column.name for column in made.signature.inputs] == ["x"]
    assert made.weights is not None and made.weights.column == "w"
    assert made.weights.sums == {"train": weight.sum()}
    is_a = np.arange(NUM_ROWS) % 3 > 0
    assert made.weights.of_classes == (weight[is_a].sum(), weight[~is_a].sum())
    rows = load_rows(open_store(str(tmp_path)), made, "train")
    assert rows.weight is not None and rows.weight.mean() == pytest.approx(1.0)
    by_x = dict(zip(rows.columns["x"].tolist(), (rows.weight * weight.mean()).tolist(), strict=True))
    assert [by_x[x] for x in (np.arange(NUM_ROWS) / 7).tolist()] == pytest.approx(weight.tolist())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [(-0.5, "'w' is negative"), (None, "'w' is missing"), (float("nan"), "'w' is missing"),
     (float("inf"), "'w' is infinite")],
)  # fmt: skip
def test_weight_that_is_no_number_from_0_up_makes_a_bad_row_with_what_to_do(wrong: float | None, reason: str):
    block = table([1.0, 0.0, wrong, 2.0], 4)
    data = spec()
    values, bad = check(block, schema_of(data, [types_of(block)]))
    assert len(values["x"]) == 3
    assert [(row["position"], row["reason"]) for row in bad.kept] == [(2, reason)]
    (advice,) = remedies(bad, data)
    assert advice.startswith("give 'w', which data.weight names, a number from 0 up in every row")


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.zeros(NUM_ROWS), "'w' is 0 in all 60 rows of train, so none is learned from"),
        ((np.arange(NUM_ROWS) % 3 > 0) * 1.5, "'w' is 0 in every train row of class 'b' of target 'y'"),
        (np.full(NUM_ROWS, 1e308), "add up to more than float64 holds"),
    ],
)
def test_weights_that_leave_nothing_to_learn_are_refused(tmp_path: Path, weight: Any, words: str):
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, spec(), [(table(weight), None)])


@pytest.mark.parametrize(("weight", "words"), [(["1"] * 4, "holds string"), ([True] * 4, "holds bool")])
def test_weight_of_another_kind_is_refused_by_its_column(weight: Sequence[Any], words: str):
    with pytest.raises(DataError, match=f"data.weight: column 'w' {words}; how much a row counts is one number"):
        schema_of(spec(), [types_of(table(weight, 4))])


def test_copies_that_differ_in_weight_are_copies_and_lie_in_one_order_however_they_came(tmp_path: Path):
    block = pa.table({"x": [1.5] * 6, "y": ["a", "b"] * 3, "w": [3.0, 1.0, 2.0, 5.0, 1.0, 2.0]})
    seen = []
    for number, turned in enumerate((block, block.take(pa.array([5, 4, 3, 2, 1, 0])))):
        made = prepared(tmp_path / str(number), spec(), [(turned, None)])
        rows = load_rows(open_store(str(tmp_path / str(number))), made.dataset, "train")
        assert rows.weight is not None
        seen.append((rows.row_id.tolist(), rows.weight.tolist()))
        assert made.twins.train_once == 0, "every row has an equal"
    assert seen[0] == seen[1] and len(set(seen[0][0])) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight": "y"}, "weight: 'y' is the target"),
        ({"features": ["x", "w"]}, "weight: 'w' says how much a row counts and is no feature"),
        ({"transforms": [{"kind": "standardize", "columns": ["w"]}]}, "is no feature"),
        ({"masking": [{"columns": ["w"], "method": "drop"}]}, "'w' is data.weight, whose numbers are needed"),
        (
            {"source": {"format": "csv", "path": "f", "columns": ["x", "y"]}},
            r"weight names \['w'\], but source.columns",
        ),
    ],
)
def test_weight_that_is_needed_otherwise_is_refused_with_the_file(fields: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        spec(**fields)


def test_data_without_weights_is_known_as_before_there_were_any():
    assert "weight" not in spec(weight=None).shaping()
    assert spec().shaping()["weight"] == "w"
