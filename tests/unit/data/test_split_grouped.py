"""No group is torn apart, and every split has its share of the rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.splits.base import TEST
from raypipe.data.splits.content import Content
from raypipe.data.splits.split import codes, decide, tally
from raypipe.errors import DataError
from tests.unit.data.splits import divided, keyed, row_id, rows, spec


def test_grouped_split_tears_no_group_apart_and_keeps_the_shares():
    values = rows(20_000)
    code, _ = divided(values, spec({"kind": "grouped", "group": ["g"], "val_frac": 0.1, "test_frac": 0.2}))
    firsts = np.full(20_000, 9)
    firsts[values["g"]] = code
    assert (firsts[values["g"]] == code).all()
    assert np.abs(np.bincount(code) / 20_000 - [0.7, 0.1, 0.2]).max() < 0.001


def test_grouped_split_puts_large_groups_into_train():
    group = np.concatenate([np.zeros(600, int), np.arange(1, 401)])
    for salt in "abcdefgh":
        split = {"kind": "grouped", "group": ["g"], "val_frac": 0.1, "test_frac": 0.2, "salt": salt}
        code, _ = divided({"g": group, "y": group}, spec(split))
        assert set(code[:600].tolist()) == {0}
        assert np.bincount(code).tolist() == [700, 100, 200]


def test_grouped_split_with_large_groups_may_leave_train_nothing_else():
    group = np.concatenate([np.zeros(70, int), np.arange(1, 31)])
    code, _ = divided({"g": group, "y": group}, spec({"kind": "grouped", "group": ["g"]}))
    assert np.bincount(code).tolist() == [70, 10, 20]


def test_grouped_split_with_a_group_larger_than_a_split_names_its_size_and_not_its_value():
    group = pa.array(["secret"] * 800 + [f"p{i}" for i in range(200)])
    with pytest.raises(
        DataError, match=r"a group of \['g'\] has 800 of 1000 rows.*\(val 100, test 200 rows\)"
    ) as caught:
        divided({"g": group, "y": np.arange(1000)}, spec({"kind": "grouped", "group": ["g"]}))
    assert "secret" not in str(caught.value)


def test_grouped_split_with_fewer_groups_than_splits_is_refused():
    values = {"g": np.array([1, 1, 2, 2]), "y": np.arange(4)}
    with pytest.raises(DataError, match=r"2 group\(s\) of \['g'\]; train, val, test need one each"):
        divided(values, spec({"kind": "grouped", "group": ["g"]}))


def test_grouped_split_leaves_other_files_rows_where_they_are():
    data, values = spec({"kind": "grouped", "group": ["g"]}, test_source={"format": "csv", "path": "t.csv"}), rows(50)
    (keys, _), ids = keyed(values, data, forced=TEST), row_id(values, data)
    state = decide(lambda: [tally(keys, values, data)], Content(), data)
    assert (codes(keys, ids, state, data) == TEST).all()
