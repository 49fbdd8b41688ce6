"""Two thousand requests that hypothesis makes up: tensors, rows and messages that lie about their size, kind or number.

Each is answered, or refused in words; none ends in a 5xx, and none makes the process larger for what it only says.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.oip_grpc import CONTENTS, INFERENCE, MESSAGES
from raypipe.testing.served import ask
from tests.conftest import examples
from tests.unit.serve.hostile.refusals import LEAKS, checked, in_little_memory, readers

pytestmark = pytest.mark.thorough

EXAMPLES_A_KIND = 500
"""Of JSON and of messages, to each of two models."""

REFUSED = (400, 404, 413, 422)

SIZES = st.sampled_from([0, 1, 2, 3, 8, 192, 10_001, 10**6, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -1])
SHAPES = st.lists(SIZES, max_size=5) | st.sampled_from([[1], [1, 1], [1, 8, 8, 3], [1, 192], [1] * 65, [0] * 65])
VALUES = st.sampled_from([0, 1, 7, -1, 256, 0.5, 2**53 + 1, 2**64, 10**400, 1e308, math.nan, True, None, "", "red"])
NAMES = st.sampled_from(["image", "age", "color", "b64", "data", "__proto__", ""])
JSONS = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
RIGHT_ROW: dict[str, dict[str, Any]] = {
    "pictures": {"image": [[[7] * 3] * 8] * 8},
    "people": {"age": 3.5, "color": "red"},
}
RIGHT_TENSORS: dict[str, list[dict[str, Any]]] = {
    "pictures": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [7] * 192}],
    "people": [
        {"name": "age", "datatype": "FP64", "shape": [1], "data": [3.5]},
        {"name": "color", "datatype": "BYTES", "shape": [1], "data": ["red"]},
    ],
}
FIELDS = sorted(set(CONTENTS.values()))


def chance(draw: st.DrawFn, one_of: int) -> bool:
    return draw(st.integers(1, one_of)) == one_of


@st.composite
def rows_body(draw: st.DrawFn, model: str) -> bytes:
    """Rows under one of the names they have: right, with a wrong value, of another kind, or far too many."""
    name = draw(
        st.sampled_from(["instances", "instances", "instances", "inputs", "rows", "dataframe_records", "data"])
    ).encode()
    row: Any = {key: draw(JSONS) if chance(draw, 5) else value for key, value in RIGHT_ROW[model].items()}
    if chance(draw, 4):
        row = [*row.values()] if chance(draw, 2) else draw(JSONS)
    text = json.dumps(row).encode()
    num_rows = 1_000_000 if chance(draw, 30) else draw(st.sampled_from([0, 1, 1, 1, 2, 10_001]))
    if num_rows > 2:
        text = text[:1] + b"7" + text[-1:] if chance(draw, 2) else b"7"
    return b'{"%s": [%s]}' % (name, b",".join([text] * num_rows))


@st.composite
def tensors_said(draw: st.DrawFn, model: str) -> list[dict[str, Any]]:
    """What a client says about its tensors: right, but for one or two words."""
    said = RIGHT_TENSORS[model]
    if chance(draw, 6):
        said = draw(st.sampled_from([[], said * 2, said[:-1], said + said[:1]]))
    said = [dict(tensor) for tensor in said]
    for tensor in said:
        if chance(draw, 2):
            tensor["shape"] = draw(SHAPES)
            size = math.prod(tensor["shape"])
            if chance(draw, 2) and 0 <= size <= 10_000:
                tensor["data"] = [draw(VALUES)] * size
        if chance(draw, 3):
            tensor["datatype"] = draw(st.sampled_from([*tensors.DATATYPES, "COMPLEX64"]))
        if chance(draw, 4):
            tensor["data"] = draw(st.lists(VALUES, max_size=4))
        if chance(draw, 8):
            tensor["name"] = draw(NAMES)
    return said


@st.composite
def tensors_body(draw: st.DrawFn, model: str) -> bytes:
    said = draw(tensors_said(model))
    for tensor in said:
        if chance(draw, 6):
            tensor["parameters"] = {draw(st.sampled_from(["binary_data_size", "a"])): draw(JSONS)}
            if chance(draw, 2):
                del tensor["data"]
    return json.dumps({"inputs": said, **({"outputs": draw(JSONS)} if chance(draw, 6) else {})}).encode()


@st.composite
def message(draw: st.DrawFn, model: str) -> bytes:
    """The same over gRPC: values in one of the fields, or as bytes."""
    asked = MESSAGES["ModelInferRequest"](model_name=model)
    for each in draw(tensors_said(model)):
        shape = [max(-(2**63), min(size, 2**63 - 1)) for size in each["shape"]]
        described = asked.inputs.add(name=each["name"], datatype=each["datatype"], shape=shape)
        if chance(draw, 5):
            asked.raw_input_contents.append(b"\x00" * len(each["data"]))
            continue
        field = draw(st.sampled_from(FIELDS)) if chance(draw, 4) else CONTENTS.get(each["datatype"], FIELDS[0])
        value = b"red" if field == "bytes_contents" else draw(st.integers(0, 1))
        getattr(described.contents, field).extend([value] * len(each["data"]))
    return asked.SerializeToString()


@st.composite
def torn(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Most as they are; some end early, or begin again."""
    sent = draw(whole)
    if not chance(draw, 6):
        return sent
    where = draw(st.integers(0, len(sent)))
    return sent[:where] if chance(draw, 2) else sent + sent[:where]


many = settings(
    max_examples=examples(EXAMPLES_A_KIND),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_made_up_json_is_answered_or_refused_and_takes_no_memory(app: ModelApp):
    model, routes, statuses = app.model.model, readers(app), Counter[int]()

    @many
    @given(st.sampled_from(routes), torn(rows_body(model) | tensors_body(model)))
    def asked(route: Any, sent: bytes) -> None:
        told = (route.path, sent[:2000], len(sent))
        with in_little_memory(told):
            answer = ask(app, route.method, route.path, sent)
        assert answer.status_code == 200 or checked(answer, told) in REFUSED, told
        statuses[answer.status_code] += 1

    asked()
    assert {200, 400} <= set(statuses), "some are right, so that the others are nearly so"


def test_made_up_messages_are_answered_or_refused_and_take_no_memory(app: ModelApp):
    statuses = Counter[int]()

    @many
    @given(torn(message(app.model.model)))
    def asked(sent: bytes) -> None:
        with in_little_memory(sent):
            reply = asyncio.run(app.answer_rpc(f"/{INFERENCE.service}/ModelInfer", {}, sent))
        assert reply.status == 200 or reply.status in REFUSED, sent
        assert reply.status == 200 or not LEAKS.search(reply.body.decode()), sent
        statuses[reply.status] += 1

    asked()
    assert {200, 400} <= set(statuses), "some are right, so that the others are nearly so"


@pytest.mark.parametrize("shape", [[0, 2**31, 2**32], [0, 2**62, 2**62], [2**62, 2, 0]])
def test_no_rows_of_more_than_memory_holds_are_refused(shape: list[int], pictures: ModelApp):
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": []}
    answer = ask(pictures, "POST", "/v2/models/pictures/infer", json.dumps({"inputs": [tensor]}).encode())
    assert checked(answer, shape) == 400 and b"more than any memory holds" in bytes(answer.body)
