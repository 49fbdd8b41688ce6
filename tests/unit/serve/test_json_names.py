from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import RequestError
from raypipe.serve.protocols.json_names import check_names_once

TEXTS = st.text('[]{}:,"\\a\n ', max_size=5)
DOCUMENTS = st.recursive(
    TEXTS | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, st.sampled_from([None, 1]))
def test_document_with_each_name_once_passes_whatever_its_texts(document: Any, indent: int | None):
    check_names_once(json.dumps(document, indent=indent).encode(), document)


@given(DOCUMENTS, TEXTS, DOCUMENTS, st.sampled_from(["", " ", "\n\t "]), st.booleans())
def test_name_that_is_there_twice_is_refused_wherever_it_stands(
    before: Any, name: str, value: Any, blank: str, is_row: bool
):
    entry = f"{json.dumps(name)}{blank}:{json.dumps(value)}"
    body = f'{{"instances":[{json.dumps(before)},{{{entry},{entry}}}]}}' if is_row else f"{{{entry},{entry}}}"
    with pytest.raises(RequestError, match="more than once") as raised:
        check_names_once(body.encode(), json.loads(body))
    assert raised.value.status == 400
