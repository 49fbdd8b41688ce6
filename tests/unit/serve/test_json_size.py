from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import RequestError
from raypipe.records import Column, Signature
from raypipe.serve.protocols.json_size import SLACK, Held, JsonSize, held_by

TEXTS = st.text('[]{}:,"\\a\n', max_size=6)
DOCUMENTS = st.recursive(
    TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
ROWS = 1000
PICTURE = Column(name="image", dtype="uint8", shape=(4, 3))
WORDS = Column(name="words", dtype="string", shape=())


def size_of(*columns: Column, **more: Any) -> JsonSize:
    return JsonSize(Signature(inputs=columns, task="regression", target="y", **more), ROWS)


def refused(size: JsonSize, body: bytes) -> bool:
    try:
        size.check(body)
    except RequestError as error:
        return error.status == 413
    return False


def held(document: Any) -> Held:
    """The same of a parsed one."""
    if isinstance(document, str):
        return Held(0, 0, 1)
    names = len(document) if isinstance(document, dict) else 0
    inner = [held(each) for each in (document.values() if isinstance(document, dict) else document)]
    return Held(
        1 + sum(each.parts for each in inner),
        names + sum(each.names for each in inner),
        names + sum(each.texts for each in inner),
    )


@given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_counts_are_those_of_the_parsed_document(document: Any, indent: int | None, ascii_only: bool):
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert held_by(body) == held(document)


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"image": [[7] * 3] * 4}] * ROWS},
        {"instances": [[[[7] * 3] * 4]] * ROWS},
        {"instances": [{"image": {"b64": "A" * 40}}] * ROWS},
        {"inputs": {"image": [[[7] * 3] * 4] * ROWS}},
        {"instances": [{"image": [7] * 12} | {f"other column {i}": 1 for i in range(60)}] * ROWS},
        {"instances": [{"image": [7] * 12, "tags": [[1], [2], [3]]}] * ROWS},
    ],
    ids=["named", "bare", "picture", "columns", "other columns", "other lists"],
)
def test_most_rows_of_every_shape_pass(document: Any):
    assert not refused(size_of(PICTURE), json.dumps(document).encode())


def test_texts_may_hold_what_they_like():
    text = '{"a": [{"b": "c:' * 40
    body = json.dumps({"instances": [{"words": text}] * ROWS}).encode()
    assert body.count(b":") > 100 * ROWS and not refused(size_of(WORDS, extra_columns="error"), body)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":1' % i for i in range(2 * SLACK)) + b"}",
        b'{"instances": [{' + b",".join(b'"%d" \n :1' % i for i in range(2 * SLACK)) + b"}]}",
        b'{"instances": [' + b",".join(b'{"%d\\\\":1}' % i for i in range(2 * SLACK)) + b"]}",
        b'{"instances": [' + b"[]," * 2 * SLACK + b"[]]}",
        b'{"instances": ["a", ' + b"{}," * 2 * SLACK + b"{}]}",
        b"[" * 2 * SLACK,
        b'{"instances": [' + b'"a",' * 4 * SLACK + b'"a"]}',
    ],
    ids=["names", "names of a row", "objects with a name", "empty lists", "empty objects", "depth", "texts"],
)
def test_more_than_any_rows_need_is_refused(body: bytes, strict: bool):
    assert refused(size_of(PICTURE, extra_columns="error" if strict else "ignore"), body)


def test_numbers_alone_are_as_many_as_the_body_may_hold():
    values = math.prod((ROWS, 200, 3))
    assert not refused(size_of(PICTURE), json.dumps({"inputs": [0] * values}).encode())
