"""The golden values here are a promise: a data set prepared today and one prepared in years agree on every row."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from raypipe.data.borders import MAX_STRATA, decide, merge, tally
from raypipe.data.hashing import row_ids
from raypipe.data.split import SPLITS, TEST, SplitKeys, codes, content_columns, split_codes, split_keys
from raypipe.data.validate import check, profile, schema_of
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import HashSplit

COLUMNS = {
    "n": np.array([0.0, -0.0, 1.0, 1.5, np.nan, -7.0, 1e300, np.inf]),
    "s": pa.array(["a", "ä", "", None, "a", "b", "c", "d"]),
    "b": np.array([1, 0] * 4, bool),
    "image": np.arange(32, dtype=np.uint8).reshape(8, 2, 2),
    "v": np.linspace(-1, 1, 16).reshape(8, 2),
}


def test_row_ids_of_golden_rows_never_change():
    assert [f"{i:016x}" for i in row_ids(COLUMNS)] == [
        "3e1e6368bc008588",
        "873e53e6a9904d22",
        "a8bea3505473288c",
        "60b0356684f2d1a6",
        "af31954bb64bee8c",
        "a5e1ed58e1c058a3",
        "57c52a2f64075e23",
        "d806bb1e8ffae82a",
    ]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("n", "569fc541af65b523", "ce429312f4de12c3"),
        ("s", "ed1cd6f3e6c29b0b", "a0503e7b021a5f73"),
        ("b", "05cc0a7c1580dc83", "d5b4a0850c0d1cd5"),
        ("image", "7b1df936e2a5c36f", "b2ace41d053749d4"),
        ("v", "336b2931c34238d7", "dce4a19d0437197d"),
    ],
)
def test_row_ids_of_each_kind_of_column_never_change(name, first, last):
    ids = row_ids({name: COLUMNS[name]})
    assert (f"{ids[0]:016x}", f"{ids[-1]:016x}") == (first, last)


def test_split_codes_of_golden_keys_never_change():
    keys = row_ids({"id": np.arange(40)})
    plain = split_codes(keys, HashSplit(val_frac=0.2, test_frac=0.3))
    salted = split_codes(keys, HashSplit(val_frac=0.2, test_frac=0.3, salt="again"))
    assert "".join(map(str, plain)) == "0020220102220200122020120220120010020210"
    assert "".join(map(str, salted)) == "0000220211220000221200102102020210200222"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "float32", "float64"])
def test_row_ids_of_equal_whole_numbers_agree_over_all_types(dtype):
    assert (row_ids({"x": np.array([0, 1, 7], dtype)}) == row_ids({"x": np.array([0, 1, 7], np.int64)})).all()


def test_row_ids_of_numbers_beyond_int64_agree_between_integer_and_float():
    big = row_ids({"x": np.array([2**63, 5], np.uint64)})
    assert (big == row_ids({"x": np.array([2.0**63, 5.0])})).all()


def test_row_ids_do_not_depend_on_the_order_of_columns():
    assert (row_ids(COLUMNS) == row_ids(dict(reversed(COLUMNS.items())))).all()


def test_row_ids_of_values_that_swap_columns_differ():
    assert row_ids({"x": np.array([1]), "y": np.array([2])}) != row_ids({"x": np.array([2]), "y": np.array([1])})


def test_row_ids_of_no_rows_are_empty():
    empty = {"x": np.zeros((0, 2), np.uint8), "s": pa.array([], pa.string()), "n": np.zeros(0)}
    assert len(row_ids(empty)) == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 8), max_size=3))
def test_row_ids_at_any_cut_into_blocks_are_the_same(cuts):
    edges = [0, *sorted(cuts), 8]
    parts = [row_ids({n: v[a:b] for n, v in COLUMNS.items()}) for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == row_ids(COLUMNS)).all()


def test_split_codes_over_many_rows_keep_the_fractions():
    codes = split_codes(row_ids({"id": np.arange(100_000)}), HashSplit(val_frac=0.1, test_frac=0.2))
    assert np.abs(np.bincount(codes) / 100_000 - [0.7, 0.1, 0.2]).max() < 0.005


def test_split_codes_of_more_rows_leave_the_first_rows_where_they_were():
    spec = HashSplit(val_frac=0.1, test_frac=0.2)
    few, many = row_ids({"id": np.arange(100)}), row_ids({"id": np.arange(1000)})
    assert (split_codes(few, spec) == split_codes(many, spec)[:100]).all()


def test_split_codes_when_val_grows_keep_the_test_rows():
    keys = row_ids({"id": np.arange(1000)})
    small = split_codes(keys, HashSplit(val_frac=0.1, test_frac=0.2)) == 2
    large = split_codes(keys, HashSplit(val_frac=0.4, test_frac=0.2)) == 2
    assert (small == large).all()


# --- the kinds of split, as the data stage walks through them ---------------------------------------------------------


def spec(split, **fields):
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv"}, "target": "y", "split": split, **fields}
    )


def keyed(values, data, forced=None):
    """Keys of the rows that fit, and why the others do not."""
    ids = row_ids({name: values[name] for name in content_columns(values, data)})
    keys, misfits = split_keys(values, ids, data, forced)
    return keys, [reason for bad, reason in misfits if bad.any()]


def divided(values, data, cuts=()):
    """The code of each row when the rows come in blocks cut at `cuts`."""
    edges = [0, *sorted(cuts), len(next(iter(values.values())))]
    blocks = [{name: v[a:b] for name, v in values.items()} for a, b in pairwise(edges)]
    keys = [keyed(block, data)[0] for block in blocks]
    tallies = [tally(k, block, data) for k, block in zip(keys, blocks, strict=True)]
    state = json.loads(json.dumps(decide(tallies, data)))
    traveled = [SplitKeys.from_columns(pa.table(k.columns())) for k in keys]
    return np.concatenate([codes(k, state, data) for k in traveled]), state


def per_class(code, y):
    return {c: np.bincount(code[y == c], minlength=3).tolist() for c in np.unique(y).tolist()}


def rows(num, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=num),
        "g": rng.integers(0, max(2, num // 7), num),
        "t": rng.permutation(num),
        "part": rng.integers(0, 4, num),
        "y": rng.choice(4, num, p=[0.6, 0.25, 0.1, 0.05]),
    }


KINDS = [
    {"val_frac": 0.15, "test_frac": 0.25},
    {"kind": "hash", "key": ["g"]},
    {"kind": "stratified", "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "grouped", "group": ["g"], "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "time", "column": "t", "val_frac": 0.15, "test_frac": 0.25},
    {"kind": "time", "column": "t", "val_from": 200, "test_from": 300},
    {"kind": "column", "column": "part", "train": [0, 3], "val": [1], "test": [2]},
]


@pytest.mark.parametrize("split", KINDS, ids=str)
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 400), max_size=4), st.randoms(use_true_random=False))
def test_split_of_any_kind_is_the_same_for_any_blocks_and_order(split, cuts, random):
    values, data = rows(400), spec(split)
    whole, state = divided(values, data)
    order = np.array(random.sample(range(400), 400))
    shuffled, again = divided({name: v[order] for name, v in values.items()}, data, cuts)
    assert (shuffled == whole[order]).all()
    assert again == state


def test_hash_split_with_and_without_its_kind_is_the_one_by_hash_alone():
    values = rows(200)
    ids = row_ids(values)
    for split in ({}, {"kind": "hash"}):
        assert (divided(values, spec(split))[0] == split_codes(ids, HashSplit())).all()
    by_key = divided(values, spec({"key": ["g"]}))[0]
    assert (by_key == split_codes(row_ids({"g": values["g"]}), HashSplit())).all()


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
    values = rows(1000) | {"site": pa.array((["a"] * 9 + ["b"]) * 100)}
    code, _ = divided(values, spec({"kind": "stratified", "by": "site", "val_frac": 0.1, "test_frac": 0.2}))
    site = np.array(values["site"].to_pylist())
    assert per_class(code, site) == {"a": [630, 90, 180], "b": [70, 10, 20]}


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
    later = codes(keyed(more, data)[0], state, data)
    assert (later[:300] == code).all()
    assert set(later[300:].tolist()) == {0, 1, 2}


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
    data = spec({"kind": "grouped", "group": ["g"]}, test_source={"format": "csv", "path": "t.csv"})
    keys, _ = keyed(rows(50), data, forced=TEST)
    assert (codes(keys, decide([tally(keys, rows(50), data)], data), data) == TEST).all()


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
    ids = row_ids(values)
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


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({}, pa.array(["train", "val", "test", "train"])),
        ({}, pa.array(["train", "val", "test", "train"]).dictionary_encode()),
        ({"train": [0], "val": [1], "test": [2]}, np.array([0, 1, 2, 0])),
        ({"train": ["a", "b"], "val": ["dev"], "test": ["eval"]}, pa.array(["a", "dev", "eval", "b"])),
    ],
)
def test_column_split_goes_by_the_words(words, part):
    code, _ = divided({"part": part, "y": np.arange(4)}, spec({"kind": "column", "column": "part", **words}))
    assert code.tolist() == [0, 1, 2, 0]


def test_column_split_by_truth_tells_it_from_one():
    split = {"kind": "column", "column": "part", "train": [False], "val": [], "test": [True]}
    assert divided({"part": np.array([True, False]), "y": np.arange(2)}, spec(split))[0].tolist() == [2, 0]
    _, reasons = keyed({"part": np.array([1, 0]), "y": np.arange(2)}, spec(split))
    assert reasons


def test_column_split_of_rows_with_unknown_words_names_them_and_what_is_known():
    values = {"part": pa.array(["train", "Train", None]), "y": np.arange(3)}
    _, misfits = split_keys(values, row_ids(values), spec({"kind": "column", "column": "part", "val": []}))
    ((bad, reason),) = misfits
    assert bad.tolist() == [False, True, True]
    assert reason == "'part' is none of the values that data.split knows (train: 'train'; test: 'test')"


def test_content_of_a_row_leaves_out_the_word_that_says_its_split():
    data = spec({"kind": "column", "column": "part"})
    assert content_columns(["a", "part", "y"], data) == ["a", "y"]
    assert content_columns(["a", "part", "y"], spec({})) == ["a", "part", "y"]


def test_codes_of_golden_rows_by_class_and_by_group_never_change():
    values = {"g": np.arange(40) // 2, "y": np.arange(40) % 2}
    by_class, _ = divided(values, spec({"kind": "stratified", "val_frac": 0.2, "test_frac": 0.3}))
    by_group, _ = divided(values, spec({"kind": "grouped", "group": ["g"], "val_frac": 0.2, "test_frac": 0.3}))
    assert "".join(map(str, by_class)) == "2100002010020102000012001122102221200200"
    assert "".join(map(str, by_group)) == "1100000000222200110000221100002200222211"


def test_tally_of_merged_blocks_counts_each_row_once():
    data, values = spec({"kind": "grouped", "group": ["g"]}), rows(500)
    halves = [{name: v[a:b] for name, v in values.items()} for a, b in ((0, 250), (250, 500))]
    merged = merge(tally(keyed(half, data)[0], half, data) for half in halves)
    whole = tally(keyed(values, data)[0], values, data)
    assert (merged.counts[0][0] == whole.counts[0][0]).all() and (merged.counts[0][1] == whole.counts[0][1]).all()


@pytest.mark.parametrize(
    ("split", "features"),
    [
        ({"kind": "time", "column": "t", "group": ["g"]}, ("x",)),
        ({"kind": "stratified", "by": "g"}, ("x", "g", "t")),
        ({"key": ["g", "t"]}, ("x",)),
    ],
)
def test_columns_that_the_split_reads_are_in_the_schema_and_must_hold_a_value(split, features):
    block = pa.table({"x": [1, 2], "g": ["a", None], "t": [3, 4], "y": [0, 1]})
    schema = schema_of(spec(split), [profile(block)])
    values, bad = check(block, schema)
    assert schema.features == features
    assert {"g", "t"} & set(spec(split).split.reads) <= set(values)
    assert [row["reason"] for row in bad.kept] == ["'g' is missing"]


def test_column_of_the_split_that_is_not_there_is_refused_with_the_near_name():
    block = pa.table({"x": [1], "date": ["2024-01-01"], "y": [0]})
    with pytest.raises(DataError, match="column 'dato' is not there, did you mean 'date'"):
        schema_of(spec({"kind": "time", "column": "dato"}), [profile(block)])


def test_splits_in_the_code_and_in_the_spec_have_the_same_names():
    assert spec({}).wanted_splits == SPLITS
