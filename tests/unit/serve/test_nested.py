"""Fields in objects and lists of texts, to every protocol of one replica: the same numbers, and refusals in words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask
from tests.unit.serve.hostile.refusals import checked

ROW = {"user": {"age": 3, "home": {"city": "Rome"}}, "tags": ["b c", "a"]}
FLAT = {"user.age": 3, "user.home.city": "Rome", "tags": ["b c", "a"]}
CSV = {"content-type": "text/csv"}


def post(app: ModelApp, path: str, body: Any, **headers: str) -> Response:
    return ask(app, "POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers=headers)


def tensors(tags: Any, shape: list[int] | None = None) -> dict[str, Any]:
    given = {"user.age": ("FP64", [3]), "user.home.city": ("BYTES", ["Rome"]), "tags": ("BYTES", tags)}
    return {
        "inputs": [
            {"name": name, "datatype": kind, "shape": (shape if name == "tags" else None) or [1], "data": data}
            for name, (kind, data) in given.items()
        ]
    }


def test_every_protocol_reads_objects_dotted_names_and_lists_alike(nested: ModelApp):
    values = {"user.age": np.array([3.0]), "user.home.city": np.array(["Rome"], object)}
    (expected,) = nested.predictor.predict({**values, "tags": np.array(['["b c","a"]'], object)}).values.ravel()
    columns = {"user": {"age": [3], "home": {"city": ["Rome"]}}, "tags": [["b c", "a"]]}
    asked = [
        ("/predict", {"instances": [ROW]}),
        ("/predict", {"instances": [FLAT]}),
        ("/predict", {"instances": [[3, "Rome", ["b c", "a"]]]}),
        ("/v1/models/users:predict", {"instances": [ROW]}),
        ("/predictions/users", [ROW]),
        ("/invocations", {"dataframe_records": [ROW]}),
        ("/invocations", {"dataframe_split": {"columns": list(FLAT), "data": [list(FLAT.values())]}}),
        ("/invocations", {"inputs": columns}),
    ]
    for path, body in asked:
        answer = post(nested, path, body)
        assert answer.status_code == 200, (path, answer.body)
        assert json.loads(bytes(answer.body))["predictions"] == pytest.approx([expected], rel=1e-6), path
    by_column = json.loads(bytes(post(nested, "/v1/models/users:predict", {"inputs": columns}).body))
    assert by_column["outputs"] == pytest.approx([expected], rel=1e-6)
    (output,) = json.loads(bytes(post(nested, "/v2/models/users/infer", tensors(['["b c", "a"]'])).body))["outputs"]
    assert output["data"] == pytest.approx([expected], rel=1e-6)
    table = 'user.age,user.home.city,tags\n3,Rome,"[""b c"", ""a""]"\n'
    lines = ask(nested, "POST", "/invocations", table.encode(), headers=CSV)
    assert json.loads(bytes(lines.body))["predictions"] == pytest.approx([expected], rel=1e-6)


def test_what_is_told_of_inputs_is_told_by_their_dotted_names(nested: ModelApp):
    inputs = json.loads(bytes(ask(nested, "GET", "/metadata").body))["inputs"]
    assert {name: each["example"] for name, each in inputs.items()} == {
        "user.age": 1, "user.home.city": "Bonn", "tags": ["a"],
    }  # fmt: skip


DEEP = "[" * 1000 + "]" * 1000
HALF = '["\\ud800"]'
"""JSON of half a character of UTF-16."""


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/predict", {"instances": [{**ROW, "user": {**ROW["user"], "name": "x"}}]}, "unknown field 'user.name'"),
        ("/predict", {"instances": [{**ROW, "other": {"a": 1}}]}, "unknown field 'other'"),
        ("/predict", {"instances": [{**ROW, "user": [1, 2]}]}, "unknown field 'user'"),
        ("/predict", {"instances": [{**ROW, "user": {"age": {"years": 3}, "home": {"city": "Rome"}}}]}, "an object"),
        ("/predict", {"instances": [{**ROW, "tags": {"0": "a"}}]}, "found an object"),
        ("/predict", {"instances": [{**ROW, "tags": [["a"]]}]}, "field 'tags': found a list of 1"),
        ("/predict", {"instances": [{**ROW, "user.age": 3}]}, "field 'user.age' is given twice"),
        ("/invocations", {"dataframe_split": {"columns": ["user", "tags"], "data": [[{"age": 1}, []]]}}, "'user'"),
        ("/invocations", {"inputs": {"user": {"age": [1], "home": 5}, "tags": [[]]}}, "'user.home'"),
        ("/v2/models/users/infer", tensors(["a"]), "found 'a' (string); expected a list of strings"),
        ("/v2/models/users/infer", tensors([HALF]), "expected a list of strings"),
        ("/v2/models/users/infer", tensors([DEEP]), "expected a list of strings"),
        ("/v2/models/users/infer", tensors([None]), "found null"),
        ("/v2/models/users/infer", tensors(["[]", "[]"], [1, 2]), "found shape [1, 2]; expected [rows]"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(path: str, body: Any, words: str, nested: ModelApp):
    answer = post(nested, path, body)
    assert checked(answer, (path, words)) == 400
    assert words in bytes(answer.body).decode().replace("\\u0027", "'"), answer.body


@pytest.mark.parametrize("cell", [HALF, DEEP, "a", "", '{"a": 1}', "[1]", "null"])
def test_a_cell_of_csv_that_is_no_list_is_refused(cell: str, nested: ModelApp):
    quoted = cell.replace('"', '""')
    answer = ask(nested, "POST", "/invocations", f'3,Rome,"{quoted}"\n'.encode(), headers=CSV)
    assert checked(answer, cell) == 400 and b"row 0, field 'tags': found" in answer.body, answer.body
