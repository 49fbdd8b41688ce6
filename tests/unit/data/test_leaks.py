"""No row, and no group, is both learned and tested on without anybody being told."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.splits import leaks
from raypipe.data.splits.base import TEST, TRAIN, VAL, SplitKeys
from raypipe.data.splits.content import Content
from raypipe.data.splits.leaks import Leaks, Twins, all_shared, copies, group_parts, shared_groups
from raypipe.data.splits.split import codes, decide, split_keys, tally
from raypipe.data.splits.verdict import judge, lopsided
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec


def spec(split=None, **fields):
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv"}, "target": "y", "split": split or {}, **fields}
    )


def ranges(row_id, code, num):
    """As the data stage does: all rows of a range of ids at a time."""
    number = ((row_id >> np.uint64(32)) * np.uint64(num)) >> np.uint64(32)
    twins, later = Twins(), np.zeros(len(row_id), bool)
    for part in range(num):
        mine = number == part
        some, later[mine] = copies(row_id[mine], np.zeros(int(mine.sum()), np.uint32), code[mine])
        twins += some
    return twins, later


@pytest.mark.parametrize("num_ranges", [1, 7])
def test_planted_copies_across_splits_are_all_found_and_named(num_ranges):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20_000, 3))
    code = rng.choice(3, 20_000, p=[0.7, 0.1, 0.2]).astype(np.uint8)
    planted = rng.choice(np.flatnonzero(code == TRAIN), 200, replace=False)
    where = np.where(np.arange(200) < 50, VAL, TEST).astype(np.uint8)
    row_id = row_hash({"x": np.concatenate([x, x[planted]])})
    twins, later = ranges(row_id, np.concatenate([code, where]), num_ranges)
    found = twins.leaks
    assert found.pairs == {"train and val": 50, "train and test": 150}
    assert set(found.named) == set(row_hash({"x": x[planted]}).tolist())
    assert np.flatnonzero(later).tolist() == list(range(20_000, 20_200))


def test_copies_inside_one_split_are_no_leak():
    twins, later = copies(np.array([5, 5, 9], np.uint64), np.zeros(3, np.uint32), np.array([1, 1, 0], np.uint8))
    assert not twins.leaks and not later.any()


def test_different_rows_of_one_hash_are_no_copies():
    twins, later = copies(np.full(3, 5, np.uint64), np.array([0, 1, 0], np.uint32), np.array([0, 2, 0], np.uint8))
    assert not twins.leaks and not later.any() and twins.num_twins == {}


def test_copy_in_all_splits_stays_in_the_earliest():
    code = np.array([TEST, TRAIN, VAL, TEST, TRAIN], np.uint8)
    twins, later = copies(np.full(5, 8, np.uint64), np.zeros(5, np.uint32), code)
    found = twins.leaks
    assert later.tolist() == [True, False, True, True, False]
    assert found.pairs == {"train and val": 1, "train and test": 1, "val and test": 1}
    assert found.named == (8,)


def test_copies_of_no_rows_are_none():
    twins, later = copies(np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint8))
    assert not twins.leaks and len(later) == 0 and twins.chance == 0


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=60), st.integers(1, 9))
def test_copies_over_any_number_of_ranges_are_what_a_dictionary_finds(pairs, num_ranges):
    pairs = pairs + [(number, (code + 1) % 3) for number, code in pairs[::2]]
    row_id = np.array([number for number, _ in pairs], np.uint64)
    code = np.array([code for _, code in pairs], np.uint8)
    twins, later = ranges(row_id, code, num_ranges)
    found = twins.leaks
    splits: dict[int, set[int]] = {}
    for number, where in pairs:
        splits.setdefault(number, set()).add(where)
    assert set(found.named) == {number for number, where in splits.items() if len(where) > 1}
    assert list(found.named) == sorted(found.named)
    assert later.tolist() == [where > min(splits[number]) for number, where in pairs]
    assert twins.num_twins["test"] == sum(code == TEST and TRAIN in splits[number] for number, code in pairs)
    train = Counter(number for number, code in pairs if code == TRAIN)
    assert twins.train_once == list(train.values()).count(1) and twins.num_rows["train"] == train.total()


def test_named_rows_are_bounded_and_the_same_for_any_number_of_ranges(monkeypatch):
    monkeypatch.setattr(leaks, "MAX_NAMED", 10)  # fewer than there are copies
    row_id = row_hash({"x": np.arange(50)}).repeat(2)
    code = np.tile(np.array([0, 2], np.uint8), 50)
    one, many = ranges(row_id, code, 1)[0], ranges(row_id, code, 13)[0]
    assert one == many
    one = one.leaks
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
            keys.append((split_keys(rows, row_hash(rows), data, code)[0], rows, np.flatnonzero(mine)))
    tallies = [tally(key, rows, data) for key, rows, _ in keys]
    state = decide(lambda: tallies, Content(), data)
    parts = [group_parts(key, num_parts) for key, _, _ in keys]
    shared = all_shared([shared_groups([block[p] for block in parts], state, data) for p in range(num_parts)])
    later = np.zeros(len(forced), bool)
    for key, _, positions in keys:
        none = np.zeros(len(positions), np.uint64)
        later[positions] = shared.later(key, codes(key, none, state, data))
    return shared, later


@pytest.mark.parametrize(("num_blocks", "num_parts"), [(1, 1), (3, 1), (2, 5)])
def test_group_in_two_files_is_found_for_any_cut(num_blocks, num_parts):
    data = spec({"kind": "directories", "group": ["g"]})
    group = np.array([1, 1, 2, 2, 3, 3, 4, 4, 4])
    forced = np.array([0, 0, 0, 1, 1, 2, 0, 1, 2])
    shared, later = group_leaks({"g": group, "y": np.arange(9)}, data, forced, num_blocks, num_parts)
    assert later.tolist() == [False, False, False, True, False, True, False, True, True]
    assert shared.leaks.pairs == {"train and val": 2, "val and test": 2, "train and test": 1}
    assert set(shared.leaks.named) == set(row_hash({"g": np.array([2, 3, 4])}).tolist())


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
        keys, _ = split_keys(values, row_hash(values), spec(split))
        assert keys.group is None and group_parts(keys, 3) == []


# --- what the user is told --------------------------------------------------------------------------------------------

FOUND = Leaks(Counter({"train and test": 2}), (0xABC, 0xDEF))
SIZES = Counter({"train": 100, "test": 30})
TWINS = Twins(FOUND, SIZES, Counter({"test": 4}), 98)
ORDINARY = Twins(FOUND, SIZES, Counter({"test": 29}), 3)
RICH = Content(130, np.arange(2, dtype=np.uint64), np.array([60, 70]), np.ones(2, bool))
POOR = Content(130, np.arange(2, dtype=np.uint64), np.array([60, 70]), np.zeros(2, bool))


@pytest.mark.parametrize(("twins", "content"), [(TWINS, RICH), (TWINS, POOR), (ORDINARY, RICH)])
def test_leak_that_fails_names_rows_twins_chance_and_remedies(twins, content):
    with pytest.raises(DataError) as caught:
        judge(twins, Leaks(), content, spec())
    assert re.search(r"2 in train and test; .*; row ids 0000000000000abc, 0000000000000def", caught.value.message)
    chance = 1 if twins is TWINS else 29
    assert f"of 30 test rows have a twin in train, chance would give about {chance};" in caught.value.message
    assert "data.split.leaks: drop" in caught.value.hint


def test_rows_that_are_equal_because_there_are_few_ways_to_differ_are_told_and_no_leak():
    text, remedy = judge(ORDINARY, Leaks(), POOR, spec())
    assert "29 of 30 test rows have a twin in train, chance would give about 29" in text
    assert "data.split.key" in remedy and "kind: stratified" in remedy


@pytest.mark.parametrize(("num_twins", "is_leak"), [(3, False), (4, True)])
def test_rows_of_a_table_that_hardly_repeats_are_a_leak_where_chance_gives_fewer(num_twins, is_leak):
    twins = Twins(FOUND, SIZES, Counter({"test": num_twins}), 98)  # 0.6 by chance
    assert twins.are_chance is not is_leak
    assert not Twins(FOUND, SIZES, Counter({"test": 1}), 100).are_chance


def test_group_in_two_splits_is_a_leak_beside_rows_that_repeat_by_chance():
    data = spec({"kind": "directories", "group": ["g"]})
    with pytest.raises(DataError, match=r"groups of \['g'\] are in two splits: 1 in train and val; a model") as caught:
        judge(ORDINARY, Leaks(Counter({"train and val": 1}), (5,)), POOR, data)
    assert "same content" not in caught.value.message


@pytest.mark.parametrize(("policy", "says"), [("warn", ""), ("drop", "; the later split gives them up")])
def test_leak_that_does_not_fail_is_told(policy, says):
    data = spec({"kind": "directories", "group": ["g"], "leaks": policy})
    rows, groups = judge(TWINS, Leaks(Counter({"train and val": 1}), (5,)), RICH, data)
    assert rows.endswith(f"0000000000000def{says}")
    assert groups == f"groups of ['g'] are in two splits: 1 in train and val{says}"


def test_no_leak_is_not_told():
    assert judge(Twins(), Leaks(), POOR, spec()) == []


def test_hash_split_that_a_heavy_row_makes_lopsided_is_told_with_the_remedy():
    (line,) = lopsided({"train": 300, "val": 100, "test": 600}, RICH, {}, spec())
    assert line.startswith("test has 600 rows where 200 were asked for: some rows are there many times")
    assert "kind: stratified" in line and "data.split.key" in line
    assert lopsided({"train": 702, "val": 99, "test": 199}, RICH, {}, spec()) == []
    assert lopsided({"train": 300, "val": 100, "test": 600}, RICH, {}, spec({"kind": "stratified"})) == []


def test_groups_of_one_hash_are_told_apart_by_the_other():
    same = np.array([7, 7, 9, 9], np.uint64)
    keys = SplitKeys(np.array([0, 2, 0, 2], np.uint8), group=same, group_check=np.array([1, 2, 3, 3], np.uint64))
    data = spec({"kind": "directories", "group": ["g"]})
    shared = shared_groups([*group_parts(keys, 1)], {}, data)
    assert shared.leaks.pairs == {"train and test": 1} and shared.group.tolist() == [9]
