"""Every split has its share of each class."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import train_test_split

from raypipe.data.splits.fractions import MAX_STRATA
from raypipe.data.splits.split import codes
from raypipe.errors import DataError
from tests.unit.data.splits import divided, keyed, row_id, rows, spec


def per_class(code, y):
    return {c: np.bincount(code[y == c], minlength=3).tolist() for c in np.unique(y).tolist()}


@pytest.mark.parametrize("num", [40, 150, 1797, 20_011])
@pytest.mark.parametrize(("val_frac", "test_frac"), [(0.1, 0.2), (0.15, 0.15), (0.0, 0.3), (0.25, 0.0), (0.3, 0.37)])
def test_stratified_split_has_the_classes_of_scikit_learns_within_one_row(num, val_frac, test_frac):
    values = rows(num, seed=num)
    values["y"][:12] = np.arange(12) % 4
    y = values["y"]
    rest, theirs = np.arange(num), np.zeros(num, int)
    for code, share, left in ((2, test_frac, 1.0), (1, val_frac, 1.0 - test_frac)):
        if share:
            rest, taken = train_test_split(rest, test_size=share / left, stratify=y[rest], random_state=0)
            theirs[taken] = code
    ours, _ = divided(values, spec({"kind": "stratified", "val_frac": val_frac, "test_frac": test_frac}))
    expected = per_class(theirs, y)
    for c, counts in per_class(ours, y).items():
        assert np.abs(np.subtract(counts, expected[c])).max() <= 1, (c, counts, expected[c])


def test_stratified_split_by_another_column_balances_that_one():
    site = (["a"] * 9 + ["b"]) * 100
    values = rows(1000) | {"site": pa.array(site)}
    code, _ = divided(values, spec({"kind": "stratified", "by": "site", "val_frac": 0.1, "test_frac": 0.2}))
    assert per_class(code, np.array(site)) == {"a": [630, 90, 180], "b": [70, 10, 20]}


def test_stratified_split_keeps_copies_of_a_row_together():
    values = {"x": np.repeat(np.arange(100), 3), "y": np.repeat(np.arange(100) % 2, 3)}
    code, _ = divided(values, spec({"kind": "stratified"}))
    assert (code.reshape(100, 3) == code.reshape(100, 3)[:, :1]).all()
    assert np.abs(np.bincount(code) - [210, 30, 60]).max() <= 6


def test_stratified_split_with_a_class_too_small_names_class_count_and_remedy():
    values = {"x": np.arange(100), "y": pa.array(["a"] * 98 + ["rare"] * 2)}
    with pytest.raises(
        DataError, match=r"class 'rare' of 'y' has 2 row\(s\); to be in train, val, test it needs 3"
    ) as e:
        divided(values, spec({"kind": "stratified"}))
    assert "or use kind: hash" in e.value.hint
    divided(values, spec({"kind": "stratified", "val_frac": 0}))


def test_stratified_split_with_a_class_of_copies_says_so():
    values = {"x": np.array([*range(97), 1, 1, 1]), "y": np.array([0] * 97 + [1] * 3)}
    with pytest.raises(DataError, match=r"class 1 of 'y' has 3 row\(s\), 1 of them different"):
        divided(values, spec({"kind": "stratified"}))


@pytest.mark.parametrize("cuts", [(), range(0, MAX_STRATA, 97)])
def test_stratified_split_by_numbers_that_are_no_classes_is_refused(cuts):
    values = {"x": np.arange(MAX_STRATA + 1), "y": np.arange(MAX_STRATA + 1) / 7}
    with pytest.raises(DataError, match="'y' holds more than 10000 different values, which are no classes"):
        divided(values, spec({"kind": "stratified"}), cuts)


def test_stratified_split_of_later_rows_leaves_the_first_rows_where_they_were():
    data, values = spec({"kind": "stratified"}), rows(300)
    code, state = divided(values, data)
    more = {
        name: np.concatenate([v, w]) for (name, v), w in zip(values.items(), rows(300, seed=5).values(), strict=True)
    }
    more["y"][300:310] = 77  # a class nobody had seen
    later = codes(keyed(more, data)[0], row_id(more, data), state, data)
    assert (later[:300] == code).all()
    assert set(later[300:].tolist()) == {0, 1, 2}
