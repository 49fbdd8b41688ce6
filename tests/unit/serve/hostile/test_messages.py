"""Messages of protobuf that no client sends by mistake: refused on their bytes, before they become objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols.base import Reply
from raypipe.serve.protocols.message_size import held_by, kind_of_message
from raypipe.serve.protocols.oip_grpc import INFERENCE, MESSAGES
from tests.unit.serve.hostile.refusals import LEAKS, in_little_memory

pytestmark = pytest.mark.thorough

NUM_BYTES = 16 * 2**20 - 64
ASKED = MESSAGES["ModelInferRequest"]
KIND = kind_of_message(ASKED.DESCRIPTOR)

PARAMETERS, INPUTS, OUTPUTS, RAW, UNKNOWN = 4, 5, 6, 7, 15
SHAPE, CONTENTS = 3, 5
"""Of an input."""
INT64, TEXTS = 3, 8
"""Of contents."""


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def repeated(number: int) -> bytes:
    return field(number, b"") * (NUM_BYTES // 2)


def deep(number: int, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = field(number, content)
    return content


BOMBS: dict[str, Callable[[], bytes]] = {
    "empty tensors": lambda: repeated(INPUTS),
    "empty outputs": lambda: repeated(OUTPUTS),
    "empty raw contents": lambda: repeated(RAW),
    "parameters": lambda: b"".join(field(PARAMETERS, field(1, b"%d" % i)) for i in range(1_000_000)),
    "parameters of a tensor": lambda: field(
        INPUTS, b"".join(field(PARAMETERS, field(1, b"%d" % i)) for i in range(1_000_000))
    ),
    "empty texts": lambda: field(INPUTS, field(CONTENTS, repeated(TEXTS))),
    "integers one by one": lambda: field(INPUTS, field(CONTENTS, varint(INT64 << 3) + b"\x00") * (NUM_BYTES // 4)),
    "a million dimensions": lambda: field(INPUTS, field(SHAPE, bytes(1_000_000))),
    "sixteen million dimensions": lambda: field(INPUTS, field(SHAPE, bytes(NUM_BYTES))),
    "sixteen million integers": lambda: field(INPUTS, field(CONTENTS, field(INT64, bytes(NUM_BYTES)))),
    "fields nobody knows": lambda: repeated(UNKNOWN),
    "groups": lambda: varint(UNKNOWN << 3 | 3) * 100_000 + varint(UNKNOWN << 3 | 4) * 100_000,
    "groups of a tensor": lambda: field(INPUTS, varint(UNKNOWN << 3 | 3) * 100_000),
    "messages within messages": lambda: deep(UNKNOWN, 5000),
    "tensors within tensors": lambda: deep(INPUTS, 5000),
    "a length of 2^63": lambda: varint(INPUTS << 3 | 2) + varint(2**63) + bytes(20_000),
    "a number without an end": lambda: b"\x80" * 20_000,
}
"""Each made by its test: making all takes seconds, of every process that collects tests."""


def asked(app: ModelApp, sent: bytes) -> Reply:
    return asyncio.run(app.answer_rpc(f"/{INFERENCE.service}/ModelInfer", {}, sent))


@pytest.mark.parametrize("bomb", BOMBS)
def test_message_that_is_more_than_it_seems_is_refused_before_it_is_parsed(bomb: str, app: ModelApp):
    sent = field(1, app.model.model.encode()) + BOMBS[bomb]()
    with in_little_memory(bomb):
        reply = asked(app, sent)
    assert reply.status in (400, 413) and not LEAKS.search(reply.body.decode()), (bomb, reply.body[:200])


def test_most_rows_are_read_in_every_form(pictures: ModelApp, people: ModelApp):
    most = pictures.spec.max_request_rows
    image = {"name": "image", "datatype": "UINT8", "shape": [most, 192]}
    for more in (
        {"inputs": [image], "raw_input_contents": [bytes(most * 192)]},
        {"inputs": [{**image, "contents": {"uint_contents": np.zeros(most * 192, np.uint32)}}]},
    ):
        assert asked(pictures, ASKED(model_name="pictures", **more).SerializeToString()).status == 200
    inputs = [
        {"name": "age", "datatype": "FP64", "shape": [most], "contents": {"fp64_contents": [1.5] * most}},
        {"name": "color", "datatype": "BYTES", "shape": [most], "contents": {"bytes_contents": [b"red"] * most}},
    ]
    assert asked(people, ASKED(model_name="people", inputs=inputs).SerializeToString()).status == 200


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.lists(st.binary(max_size=3), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(0, 2**40), max_size=4),
    st.lists(st.binary(max_size=200), max_size=4),
)
def test_count_is_that_of_the_message(
    integers: list[int], texts: list[bytes], parameters: dict[str, int], raw: list[bytes]
):
    tensor = {"name": "a", "shape": integers, "contents": {"int64_contents": integers, "bytes_contents": texts}}
    told = {name: {"int64_param": value} for name, value in parameters.items()}
    sent = ASKED(model_name="m", inputs=[tensor] * 2, parameters=told, raw_input_contents=raw).SerializeToString()
    packed = 2 if integers else 0  # the shape, and the contents' own
    in_tensor = 1 + packed + 1 + len(texts)  # name and contents
    in_parameters = 4 * len(parameters)  # entry, name, value and what the value is
    assert held_by(sent, KIND, 10**6) == (1 + 2 * (1 + in_tensor) + in_parameters + len(raw), 4 * len(integers))


@given(st.binary(max_size=60))
def test_what_protobuf_reads_is_counted(sent: bytes):
    try:
        ASKED.FromString(sent)
    except DecodeError:
        return
    assume(not any(byte & 7 in (3, 4) for byte in sent))  # groups, which are none of proto3
    assert held_by(sent, KIND, 10**6)[0] <= len(sent)
