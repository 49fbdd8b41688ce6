"""Tensors and rows that are not what they say: refused before anything is made for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask
from tests.unit.serve.hostile.refusals import checked, readers

pytestmark = pytest.mark.thorough

HUGE = [2**62, 2**62]
TENSORS: dict[str, dict[str, Any]] = {
    "a product that overflows": {"shape": HUGE, "data": [1]},
    "a product of 2^64": {"shape": [2**32, 2**32], "data": []},
    "a product that overflows to the right count": {"shape": [2**63, 2, 1, 1], "data": []},
    "huge and empty": {"shape": [2**62, 0], "data": []},
    "negative": {"shape": [-1, 8, 8, 3], "data": [1]},
    "two negatives": {"shape": [-1, -192], "data": [1] * 192},
    "more than data": {"shape": [1_000_000, 8, 8, 3], "data": [0] * 192},
    "less than data": {"shape": [1, 8, 8, 3], "data": [0] * 193},
    "no rows": {"shape": [0, 8, 8, 3], "data": []},
    "no dimensions": {"shape": [], "data": [1]},
    "65 dimensions": {"shape": [1] * 64 + [192], "data": [0] * 192},
    "fractions": {"shape": [1.5, 128], "data": [0] * 192},
    "texts": {"shape": ["1", "192"], "data": [0] * 192},
    "true": {"shape": [True, 192], "data": [0] * 192},
    "2^100": {"shape": [2**100], "data": [0]},
    "unknown type": {"datatype": "COMPLEX512"},
    "text for numbers": {"datatype": "BYTES"},
    "bytes after the JSON that are not there": {"parameters": {"binary_data_size": 2**62}, "data": None},
    "negative bytes": {"parameters": {"binary_data_size": -5}, "data": None},
    "shared memory": {
        "parameters": {"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 192},
        "data": None,
    },
}


@pytest.mark.parametrize("bomb", TENSORS)
def test_tensor_that_is_not_what_it_says_is_refused_before_anything_is_made_for_it(bomb: str, pictures: ModelApp):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192} | TENSORS[bomb]
    body = json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()
    answer = ask(pictures, "POST", "/v2/models/pictures/infer", body)
    assert checked(answer, (bomb, answer.body)) in (400, 413), answer.body


TOO_MANY_ROWS: dict[str, dict[str, Any]] = {
    "pictures": {"instances": [[0] * 192] * 10_001},
    "numbers": {"instances": [1] * 1_000_000},
    "objects": {"instances": [{"image": 0}] * 10_001},
    "a column": {"inputs": {"image": [0] * 10_001}},
    "inputs": {"inputs": [[0] * 192] * 10_001},
    "empty rows": {"rows": [[]] * 1_000_000},
    "a table": {"columns": ["image"], "data": [[0]] * 10_001},
}


@pytest.mark.parametrize("rows", TOO_MANY_ROWS)
def test_too_many_rows_are_refused_in_every_shape(rows: str, pictures: ModelApp):
    sent = json.dumps(TOO_MANY_ROWS[rows]).encode()
    statuses = {checked(ask(pictures, each.method, each.path, sent), each.path) for each in readers(pictures)}
    assert statuses <= {400, 413}
