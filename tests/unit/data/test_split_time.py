"""Train before val before test."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.splits.split import split_keys
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from tests.unit.data.splits import divided, spec


@pytest.mark.parametrize(
    "times",
    [
        np.arange(100),
        np.arange(100, dtype=np.uint64),
        np.arange(100) / 7,
        pa.array([f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(100)]),
        pa.array([f"2024-01-01 00:00:00.{i:06}" for i in range(100)]),
    ],
    ids=["int", "uint", "float", "date", "microseconds"],
)
def test_time_split_is_in_order_of_time(times):
    order = np.random.default_rng(1).permutation(100)
    shuffled = times[order] if isinstance(times, np.ndarray) else times.take(pa.array(order))
    values = {"t": shuffled, "y": np.arange(100)}
    code, _ = divided(values, spec({"kind": "time", "column": "t", "val_frac": 0.1, "test_frac": 0.2}))
    assert code[np.argsort(order)].tolist() == [0] * 70 + [1] * 10 + [2] * 20


def test_time_split_keeps_equal_times_together():
    values = {"t": np.repeat(np.arange(10), 7), "y": np.arange(70)}
    code, _ = divided(values, spec({"kind": "time", "column": "t", "val_frac": 0.15, "test_frac": 0.15}))
    days = code.reshape(10, 7)
    assert (days == days[:, :1]).all() and (np.diff(days[:, 0].astype(int)) >= 0).all()
    assert np.abs(np.bincount(code) - [49, 10.5, 10.5]).max() <= 3.5


def test_time_split_with_borders_cuts_exactly_there():
    times = pa.array(["2024-01-31T23:59:59", "2024-02-01", "2024-02-29T00:30:00+01:00", "2024-03-01T00:00:00Z"])
    split = {"kind": "time", "column": "t", "val_from": "2024-02-01", "test_from": "2024-03-01"}
    code, _ = divided({"t": times, "y": np.arange(4)}, spec(split))
    assert code.tolist() == [0, 1, 1, 2]
    only_test = {"kind": "time", "column": "t", "test_from": 2.5}
    assert divided({"t": np.arange(5), "y": np.arange(5)}, spec(only_test))[0].tolist() == [0, 0, 0, 2, 2]


def test_time_split_of_rows_without_a_time_names_them():
    values = {"t": pa.array(["2024-01-01", "soon", None, "2024-02-30"]), "y": np.arange(4)}
    ids = row_hash(values)
    _, misfits = split_keys(values, ids, spec({"kind": "time", "column": "t"}))
    ((bad, reason),) = misfits
    assert bad.tolist() == [False, True, True, True]
    assert reason == "'t' is no time; write it like 2024-01-31 or 2024-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("split", "times", "message"),
    [
        ({}, np.array([True, False]), "'t' holds bool; a time is a number"),
        ({}, np.zeros((2, 3)), r"'t' holds arrays of shape \[3\]; a time is a number"),
        ({"test_from": 3}, pa.array(["2024-01-01"] * 2), "border 3 cannot be compared with 't', which holds text"),
        ({"test_from": "2024-01-01"}, np.arange(2), "border '2024-01-01' cannot be compared with 't', which holds num"),
        ({}, np.zeros(9), r"'t' has 1 different time\(s\); train, val, test need one each"),
    ],
)
def test_time_split_by_a_column_that_cannot_order_rows_is_refused(split, times, message):
    with pytest.raises(DataError, match=message):
        divided({"t": times, "y": np.arange(len(times))}, spec({"kind": "time", "column": "t", **split}))
