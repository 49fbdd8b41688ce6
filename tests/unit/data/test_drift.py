"""Columns that are distributed as before, and columns that have moved."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.data.checks.verdicts import judge_drift, refuse_broken
from raypipe.data.profile import parts, profile
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from raypipe.records import DataProfile
from tests.unit.data.expectations import as_values, parsed


def profiled(version, **columns):
    values = as_values(columns)
    whole = parts.part(values, row_hash(values))
    return DataProfile(name="d", version=version, num_rows=whole.num_rows, columns=profile.finish(whole))


def drifted(now, before, **fields):
    expectations = parsed({"kind": "drift", **fields})
    (found,) = judge_drift(expectations, now, lambda expectation: before)
    return found


def test_drift_lists_the_columns_that_moved_most_and_their_new_values():
    before = profiled("v1", age=np.arange(100), name=["a"] * 50 + ["b"] * 50, on=np.array([True, False] * 50))
    now = profiled("v2", age=np.arange(100) + 200, name=["a"] * 50 + ["c"] * 50, on=np.array([True, False] * 50))
    found = drifted(now, before)
    assert not found.passed and found.columns == ("age", "name", "on")
    assert found.detail == "against d@v1: 'name' 8.52 (new ['c'], lost ['b']), 'age' 8.28"
    with pytest.raises(DataError, match=r"drift \(psi\) is at most 0\.25; against d@v1"):
        refuse_broken([found])


def test_drift_looks_at_the_named_columns_by_the_named_metric():
    before, now = profiled("v1", age=np.arange(100), pay=np.arange(100)), profiled("v2", age=np.arange(100) + 30)
    assert drifted(now, before, columns=["age"], metric="ks", threshold=0.31).passed
    assert not drifted(now, before, columns=["age"], metric="ks", threshold=0.29).passed
    assert not drifted(now, before, metric="share_change", threshold=0.1).passed


def test_drift_without_an_earlier_version_holds_and_says_why():
    found = drifted(profiled("v1", age=np.arange(9)), None)
    assert found.passed and found.detail == "there is no earlier version to compare with"


def test_drift_of_a_column_that_the_baseline_has_not_is_refused():
    with pytest.raises(DataError, match="drift of 'pay' against d@v1 cannot be measured"):
        drifted(profiled("v2", pay=np.arange(9)), profiled("v1", age=np.arange(9)), columns=["pay"])
