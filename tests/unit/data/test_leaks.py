"""No row, and no group, is both learned and tested on without anybody being told."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.splits import leaks
from raypipe.data.splits.borders import decide, tally
from raypipe.data.splits.leaks import Leaks, all_shared, copies, group_parts, judge, shared_groups
from raypipe.data.splits.split import TEST, TRAIN, VAL, codes, split_keys
from raypipe.data.table.hashing import row_ids
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec


def spec(split=None, **fields):
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv"}, "target": "y", "split": split or {}, **fields}
    )


def ranges(row_id, code, num):
    """As the data stage does: all rows of a range of ids at a time."""
    number = ((row_id >> np.uint64(32)) * np.uint64(num)) >> np.uint64(32)
    found, later = Leaks(), np.zeros(len(row_id), bool)
    for part in range(num):
        leak, flags = copies(row_id[number == part], code[number == part])
        found, later[number == part] = found + leak, flags
    return found, later


@pytest.mark.parametrize("num_ranges", [1, 7])
def test_planted_copies_across_splits_are_all_found_and_named(num_ranges):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20_000, 3))
    code = rng.choice(3, 20_000, p=[0.7, 0.1, 0.2]).astype(np.uint8)
    planted = rng.choice(np.flatnonzero(code == TRAIN), 200, replace=False)
    where = np.where(np.arange(200) < 50, VAL, TEST).astype(np.uint8)
    row_id = row_ids({"x": np.concatenate([x, x[planted]])})
    found, later = ranges(row_id, np.concatenate([code, where]), num_ranges)
    assert found.pairs == {"train and val": 50, "train and test": 150}
    assert set(found.named) == set(row_ids({"x": x[planted]}).tolist())
    assert np.flatnonzero(later).tolist() == list(range(20_000, 20_200))


def test_copies_inside_one_split_are_no_leak():
    found, later = copies(np.array([5, 5, 9], np.uint64), np.array([1, 1, 0], np.uint8))
    assert not found and not later.any()


def test_copy_in_all_splits_stays_in_the_earliest():
    code = np.array([TEST, TRAIN, VAL, TEST, TRAIN], np.uint8)
    found, later = copies(np.full(5, 8, np.uint64), code)
    assert later.tolist() == [True, False, True, True, False]
    assert found.pairs == {"train and val": 1, "train and test": 1, "val and test": 1}
    assert found.named == (8,)


def test_copies_of_no_rows_are_none():
    found, later = copies(np.zeros(0, np.uint64), np.zeros(0, np.uint8))
    assert not found and len(later) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=60), st.integers(1, 9))
def test_copies_over_any_number_of_ranges_are_what_a_dictionary_finds(pairs, num_ranges):
    pairs = pairs + [(number, (code + 1) % 3) for number, code in pairs[::2]]
    row_id = np.array([number for number, _ in pairs], np.uint64)
    code = np.array([code for _, code in pairs], np.uint8)
    found, later = ranges(row_id, code, num_ranges)
    splits: dict[int, set[int]] = {}
    for number, where in pairs:
        splits.setdefault(number, set()).add(where)
    assert set(found.named) == {number for number, where in splits.items() if len(where) > 1}
    assert list(found.named) == sorted(found.named)
    assert later.tolist() == [where > min(splits[number]) for number, where in pairs]


def test_named_rows_are_bounded_and_the_same_for_any_number_of_ranges(monkeypatch):
    monkeypatch.setattr(leaks, "MAX_NAMED", 10)  # fewer than there are copies
    row_id = row_ids({"x": np.arange(50)}).repeat(2)
    code = np.tile(np.array([0, 2], np.uint8), 50)
    one, many = ranges(row_id, code, 1)[0], ranges(row_id, code, 13)[0]
    assert one == many
    assert one.named == tuple(np.unique(row_id)[:10].tolist()) and one.pairs == {"train and test": 50}


# --- groups ----------------------------------------------------------------------------------------------------------


def group_leaks(values, data, forced, num_blocks=1, num_parts=1):
    """Shared groups, and the later rows, of rows whose files belong to splits."""
    number = np.arange(len(forced)) % num_blocks
    keys = []
    for block in range(num_blocks):
        for code in (None, TRAIN, VAL, TEST):
            mine = (number == block) & (forced == (255 if code is None else code))
            rows = {
                name: v[mine] if isinstance(v, np.ndarray) else v.filter(pa.array(mine)) for name, v in values.items()
            }
            keys.append((split_keys(rows, row_ids(rows), data, code)[0], rows, np.flatnonzero(mine)))
    state = decide([tally(key, rows, data) for key, rows, _ in keys], data)
    parts = [group_parts(key, num_parts) for key, _, _ in keys]
    shared = all_shared([shared_groups([block[p] for block in parts], state, data) for p in range(num_parts)])
    later = np.zeros(len(forced), bool)
    for key, _, positions in keys:
        later[positions] = shared.later(key, codes(key, state, data))
    return shared, later


@pytest.mark.parametrize(("num_blocks", "num_parts"), [(1, 1), (3, 1), (2, 5)])
def test_group_in_two_files_is_found_for_any_cut(num_blocks, num_parts):
    data = spec({"kind": "directories", "group": ["g"]})
    group = np.array([1, 1, 2, 2, 3, 3, 4, 4, 4])
    forced = np.array([0, 0, 0, 1, 1, 2, 0, 1, 2])
    shared, later = group_leaks({"g": group, "y": np.arange(9)}, data, forced, num_blocks, num_parts)
    assert later.tolist() == [False, False, False, True, False, True, False, True, True]
    assert shared.leaks.pairs == {"train and val": 2, "val and test": 2, "train and test": 1}
    assert set(shared.leaks.named) == set(row_ids({"g": np.array([2, 3, 4])}).tolist())


@pytest.mark.parametrize("num_parts", [1, 4])
def test_group_of_a_time_split_that_lives_on_is_found(num_parts):
    data = spec({"kind": "time", "column": "t", "val_frac": 0, "test_frac": 0.5, "group": ["g"]})
    values = {"t": np.arange(8), "g": pa.array(["a", "a", "b", "c", "c", "d", "a", "d"]), "y": np.arange(8)}
    shared, later = group_leaks(values, data, np.full(8, 255), 2, num_parts)
    assert shared.leaks.pairs == {"train and test": 2}
    assert np.flatnonzero(later).tolist() == [4, 6]


@pytest.mark.parametrize("split", [{"kind": "grouped", "group": ["g"]}, {"key": ["g"]}])
def test_group_of_the_test_source_that_is_in_train_too_is_found(split):
    data = spec({**split, "val_frac": 0.2}, test_source={"format": "csv", "path": "t.csv"})
    group = np.concatenate([np.arange(100), [7, 1000]])
    forced = np.array([255] * 100 + [2, 2])
    shared, later = group_leaks({"g": group, "y": np.arange(102)}, data, forced)
    assert sum(shared.leaks.pairs.values()) == 1
    assert np.flatnonzero(later).tolist() == [100]


def test_groups_that_cannot_be_in_two_splits_are_not_carried_along():
    values = {"g": np.arange(9), "y": np.arange(9)}
    for split in ({"key": ["g"]}, {"kind": "grouped", "group": ["g"]}, {"kind": "stratified"}):
        keys, _ = split_keys(values, row_ids(values), spec(split))
        assert keys.group is None and group_parts(keys, 3) == []


# --- what the user is told --------------------------------------------------------------------------------------------

FOUND = Leaks(Counter({"train and test": 2}), (0xABC, 0xDEF))


def test_leak_that_fails_names_rows_and_remedies():
    with pytest.raises(DataError) as caught:
        judge(FOUND, Leaks(), spec())
    assert re.search(r"2 in train and test; row ids 0000000000000abc, 0000000000000def", caught.value.message)
    assert "data.split.leaks: drop" in caught.value.hint


@pytest.mark.parametrize(("policy", "says"), [("warn", ""), ("drop", "; the later split gives them up")])
def test_leak_that_does_not_fail_is_told(policy, says):
    data = spec({"kind": "directories", "group": ["g"], "leaks": policy})
    rows, groups = judge(FOUND, Leaks(Counter({"train and val": 1}), (5,)), data)
    assert rows.endswith(f"0000000000000def{says}")
    assert groups == f"groups of ['g'] are in two splits: 1 in train and val{says}"


def test_no_leak_is_not_told():
    assert judge(Leaks(), Leaks(), spec()) == []
