"""Tables change their form on the way to a shard, never their values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.shards import tensor_array, to_bytes
from raypipe.data.table import packing
from raypipe.data.table.columns import ENCODED, NUMBERS, values
from tests.unit.data.helpers import forms

TEXTS = st.lists(st.sampled_from(["b", "a", "é", "", "long " * 9, None]), max_size=40)
INTEGERS = {name: st.integers(int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in NUMBERS[:8]}


@given(texts=TEXTS)
def test_packed_text_has_the_same_bytes_in_whatever_form_it_came(texts):
    made = [packing.packed(pa.table({"t": form})) for form in forms(texts)]
    assert [table["t"].to_pylist() for table in made] == [texts] * 4
    assert len({bytes(to_bytes(table)) for table in made}) == 1


def test_packed_text_that_repeats_is_encoded_and_other_text_is_plain():
    made = packing.packed(pa.table({"twice": ["x", "y", "x", "y"], "rare": ["x", "y", "z", "y"]}))
    assert [str(field.type) for field in made.schema] == [
        "dictionary<values=string, indices=int8, ordered=0>",
        "string",
    ]


@pytest.mark.parametrize(("num", "index_type"), [(127, "int8"), (128, "int16"), (32_767, "int16"), (32_768, "int32")])
def test_indices_of_packed_text_are_as_narrow_as_their_number_allows(num, index_type):
    texts = [f"{i:06d}" for i in range(num)]
    made = packing.packed(pa.table({"t": [*texts, *texts, None]}))
    assert made.schema.field("t").type.index_type == pa.type_for_alias(index_type)
    assert made["t"].to_pylist() == [*texts, *texts, None]


def test_packed_keeps_floats_and_takes_the_fewest_bytes_for_whole_numbers():
    table = pa.table(
        {
            "small": pa.array([0, 127]),
            "signed": pa.array([-129, 0]),
            "high": pa.array([2**63, 2**64 - 1], pa.uint64()),
            "byte": pa.array([0, 1], pa.uint8()),
            "float": [1.0, 2.0],
            "flag": [True, False],
        }
    )
    types = ["int8", "int16", "uint64", "uint8", "double", "bool"]
    assert [str(field.type) for field in packing.packed(table).schema] == types


@pytest.mark.parametrize("name", INTEGERS)
@given(data=st.data())
def test_unpacked_gives_whole_numbers_back_as_they_were_however_often_they_were_packed(name, data):
    numbers = data.draw(st.lists(INTEGERS[name], max_size=20))
    few = data.draw(st.lists(st.integers(0, 100), max_size=20))
    tables = [pa.table({"n": pa.array(some, pa.type_for_alias(name))}) for some in (numbers, few)]
    for first, second in (tables, tables[::-1]):
        whole = pa.concat_tables([first, second])
        joined = packing.concat([packing.packed(first), packing.packed(second)])
        again = packing.packed(joined)
        assert again.equals(packing.packed(whole), check_metadata=True)
        assert packing.unpacked(joined).equals(whole) and packing.unpacked(again).equals(whole)
        assert packing.unpacked(again).schema == whole.schema
        assert again.nbytes <= joined.nbytes <= whole.nbytes


@given(texts=TEXTS, others=st.lists(st.sampled_from(["b", "z", None]), max_size=9))
def test_concat_keeps_text_whatever_form_each_table_has_it_in(texts, others):
    for form in forms(texts):
        tables = [pa.table({"t": form}), packing.packed(pa.table({"t": pa.array(others, pa.string())}))]
        for order in (tables, tables[::-1]):
            made = packing.concat(order)
            assert made["t"].to_pylist() == [text for table in order for text in table["t"].to_pylist()]
            assert made["t"].num_chunks <= 1


def test_concat_of_encoded_text_is_encoded_also_where_all_distinct_texts_need_wider_indices():
    tables = [packing.packed(pa.table({"t": [f"{k}{i:03d}" for i in range(100)] * 2})) for k in "ab"]
    made = packing.concat(tables)
    assert made.schema.field("t").type == ENCODED
    assert made["t"].to_pylist() == [text for table in tables for text in table["t"].to_pylist()]


def test_concat_of_tables_without_rows_has_their_columns():
    empty = packing.packed(pa.table({"n": pa.array([], pa.int64()), "t": pa.array([], pa.string())}))
    full = packing.packed(pa.table({"n": [1, 2], "t": ["a", "a"]}))
    assert packing.concat([empty, empty]).column_names == ["n", "t"]
    assert packing.unpacked(packing.concat([empty, full, empty])).equals(packing.unpacked(full))


def test_buffer_gives_the_table_back_and_picked_rows_are_those():
    table = packing.packed(
        pa.table({"n": [7, 8, 300], "t": ["a", "a", None], "f": [0.5, None, 1.0], "v": tensor_array(np.eye(3))})
    )
    found = packing.from_buffer(packing.to_buffer(table))
    assert found.equals(table, check_metadata=True)
    some = packing.picked(found, np.array([2, 0]))
    assert some["n"].to_pylist() == [300, 7] and some["t"].to_pylist() == [None, "a"]
    np.testing.assert_array_equal(values(some["v"]), np.eye(3)[[2, 0]])


def test_most_texts_counts_those_that_no_row_has():
    table = pa.table({"t": ["a", "b", "c", "a"], "n": range(4)})
    assert packing.most_texts(table) == 0
    assert packing.most_texts(packing.packed(table).slice(0, 1)) == 0  # plain: every other text is a new one
    encoded = packing.packed(pa.table({"t": ["a", "b", "c"] * 2}))
    assert packing.most_texts(encoded.slice(0, 1)) == 3
    assert packing.decoded(encoded).schema.field("t").type == pa.string()
