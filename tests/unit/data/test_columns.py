"""Columns change their form on the way to a shard, never their values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data import columns
from raypipe.data.shards import to_bytes

TEXTS = st.lists(st.sampled_from(["b", "a", "é", "", "long " * 9, None]), max_size=40)
INTEGERS = {name: st.integers(int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in columns.NUMBERS[:8]}


def forms(texts: list[str | None]) -> list[pa.Array]:
    """The same texts plain, encoded, and encoded with values that are not used, in another order."""
    plain = pa.array(texts, pa.string())
    every = ["unused", "é", "long " * 9, "", "b", "a", "other"]
    index = pa.array([None if text is None else every.index(text) for text in texts], pa.int32())
    return [plain, plain.dictionary_encode(), pa.DictionaryArray.from_arrays(index, pa.array(every))]


@given(texts=TEXTS)
def test_canonical_text_has_the_same_bytes_in_whatever_form_it_came(texts):
    made = [columns.canonical(pa.table({"t": form})) for form in forms(texts)]
    assert [table["t"].to_pylist() for table in made] == [texts] * 3
    assert len({bytes(to_bytes(table)) for table in made}) == 1


@given(texts=TEXTS)
def test_raw_bytes_of_text_do_not_depend_on_its_form(texts):
    found = {columns.raw_bytes(form) for form in forms(texts)}
    assert found == {sum(len((text or "").encode()) for text in texts)}


def test_canonical_text_that_repeats_is_encoded_and_other_text_is_plain():
    made = columns.canonical(pa.table({"twice": ["x", "y", "x", "y"], "rare": ["x", "y", "z", "y"], "n": range(4)}))
    assert [made[name].type for name in made.column_names] == [columns.ENCODED, pa.string(), pa.int64()]


@pytest.mark.parametrize("name", INTEGERS)
@given(data=st.data())
def test_concat_gives_narrowed_columns_back_as_they_were(name, data):
    values = data.draw(st.lists(INTEGERS[name], max_size=20))
    few = data.draw(st.lists(st.integers(0, 100), max_size=20))
    tables = [pa.table({"n": pa.array(some, pa.type_for_alias(name))}) for some in (values, few)]
    for first, second in (tables, tables[::-1]):
        narrow = [columns.narrowed(first), columns.narrowed(second)]
        assert columns.concat(narrow).equals(columns.concat([first, second]))
        assert columns.concat(narrow).schema == first.schema
        assert sum(table.nbytes for table in narrow) <= first.nbytes + second.nbytes


@given(texts=TEXTS)
def test_concat_gives_narrowed_text_back_encoded(texts):
    for form in forms(texts)[1:]:
        table = columns.narrowed(pa.table({"t": form}))
        made = columns.concat([table, table.slice(0, len(table) // 2)])
        assert made.schema.field("t").type == columns.ENCODED
        assert made["t"].to_pylist() == [*texts, *texts[: len(texts) // 2]]


def test_narrowed_keeps_floats_and_takes_the_fewest_bytes_for_whole_numbers():
    table = pa.table(
        {
            "small": pa.array([0, 127]),
            "signed": pa.array([-129, 0]),
            "high": pa.array([2**63, 2**64 - 1], pa.uint64()),
            "float": [1.0, 2.0],
            "text": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    types = ["int8", "int16", "uint64", "double", "dictionary<values=string, indices=int8, ordered=0>"]
    assert [str(field.type) for field in columns.narrowed(table).schema] == types
