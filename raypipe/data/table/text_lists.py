"""Lists of texts, one a row (tags, words): kept as one text, which is the list as JSON writes it.

So that everything that looks at text (hashes, shards, profiles, requests) looks at them too, and no text within needs a
mark of its own.  B rows, N texts of all rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json as pajson

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

FEW = 1000
"""Texts that Python reads faster than Arrow begins to."""


def written(texts: Sequence[str]) -> str:
    """One list as it is kept."""
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":"))


def as_text(lists: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Lists of texts [B] as they are kept; null where a list is missing, or a text in it is."""
    array = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    if not pa.types.is_list(array.type) or pa.types.is_null(array.type.value_type):
        array = array.cast(pa.list_(pa.string()))
    texts = array.flatten().dictionary_encode()
    quoted = pa.array([json.dumps(text, ensure_ascii=False) for text in texts.dictionary.to_pylist()], pa.string())
    lengths = pc.list_value_length(array)
    offsets = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy(zero_copy_only=False))])
    again = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), quoted.take(texts.indices))
    joined = pc.binary_join(again, ",")
    closed = pc.binary_join_element_wise("[", joined, "]", "")
    return pc.if_else(array.is_valid(), closed, pa.scalar(None, pa.string()))


def as_lists(text: pa.Array) -> pa.Array:
    """What is kept of lists [B] as lists of texts."""
    if len(text) <= FEW:
        read = [None if each is None else json.loads(each) for each in text.to_pylist()]
        return pa.array(read, pa.list_(pa.string()))
    lines = pc.binary_join_element_wise('{"v":', text.fill_null("null"), "}\n", "")
    data = "".join(lines.to_pylist()).encode()
    table = pajson.read_json(
        pa.BufferReader(data),
        pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
        pajson.ParseOptions(explicit_schema=pa.schema([("v", pa.list_(pa.string()))])),
    )
    return table["v"].combine_chunks()


def parsed(text: str) -> list[str]:
    """A list of texts that somebody else wrote as JSON.

    Raises:
        ValueError: it is none.
    """
    value = json.loads(text)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("is no list of texts")
    "".join(value).encode()  # half of a character that UTF-16 writes in two is no text: UnicodeEncodeError
    return value
