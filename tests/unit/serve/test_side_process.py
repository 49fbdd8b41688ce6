"""Large requests and answers: what the side process gives is what the replica would; the replica does none of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from raypipe.errors import DataError
from raypipe.serve import request_reading, side_work
from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import base, predict
from raypipe.serve.protocols.base import INLINE_MAX_BYTES, Call, Reply
from raypipe.serve.protocols.oip_grpc import MESSAGES
from raypipe.serve.protocols.proto_wire import bytes_beside
from raypipe.serve.side_process import SideProcess
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts.protocols import WIRES
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version
from tests.conftest import examples

pytestmark = pytest.mark.thorough

SPEC = ServeSpec(max_request_rows=9000, max_body_bytes=2**20, request_timeout_s=60, engine="eager", grpc_port=9000)
PEOPLE = [{"age": i / 7, "color": "red" if i % 3 else "blue"} for i in range(3000)]
BLANKS = b" " * INLINE_MAX_BYTES

JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["age", "color", "rows"]), inner),
    max_leaves=12,
).map(lambda value: json.dumps({"instances": value}, ensure_ascii=False).encode(errors="replace"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def app(store: LocalFolder) -> ModelApp:
    """A regression on a number and a category."""
    columns = {"age": np.arange(12.0), "color": np.array(["red", "blue", "green"] * 4, object)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=["age"]),
        OneHotTransform(kind="one_hot", columns=["color"]),
    ]
    dataset = tiny_dataset(store, columns, np.arange(12.0), task="regression", transforms=transforms)
    return model_app(store, model_version(store, dataset, name="prices"), SPEC)


@pytest.fixture(scope="module")
def numbers(store: LocalFolder) -> ModelApp:
    """A classifier of 100 numbers."""
    dataset = tiny_dataset(store, {"x": np.ones((12, 100), np.float32)}, np.arange(12) % 3)
    return model_app(store, model_version(store, dataset, name="numbers"), SPEC)


def people(**changed: Any) -> bytes:
    """3000 rows; the last is changed."""
    return json.dumps({"instances": [*PEOPLE[:-1], {**PEOPLE[-1], **changed}]}).encode()


def seen(answer: Response) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, bytes(answer.body), dict(answer.headers)


def done_here(monkeypatch: pytest.MonkeyPatch, request: Callable[[], Response]) -> Response:
    """The same request where nothing is too large for the replica itself."""
    with monkeypatch.context() as patched:
        patched.setattr(request_reading, "INLINE_MAX_BYTES", 2**30)
        patched.setattr(request_reading, "INLINE_MAX_VALUES", 2**30)
        patched.setattr(SideProcess, "_done", None)
        return request()


BODIES = {
    "good": people(),
    "a row lacks a field": people()[:-25] + b"}]}",
    "a text for a number": people(age="old"),
    "an unknown field": people(colour="red"),
    "an unknown category": people(color="mauve"),
    "a number too large": people(age=10**400),
    "too many rows": json.dumps({"instances": [PEOPLE[0]] * 9001}).encode(),
    "a trailing comma": people()[:-2] + b",]}",
    "ends early": people()[:-1],
    "on many lines": people().replace(b"}, ", b"},\n\n \xc3\xa4"),
    "no UTF-8": people()[:-3] + b"\xff}]}",
    "NaN": people()[:-2] + b", NaN]}",
    "a key twice": people()[:-3] + b', "age": 5}]}',
    "deep": b'{"instances": ' + b"[" * INLINE_MAX_BYTES,
    "a list": b"[1]" + BLANKS,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_large_body_gets_the_answer_that_the_replica_itself_would_give(
    name: str, app: ModelApp, monkeypatch: pytest.MonkeyPatch
):
    body = BODIES[name]
    assert len(body) > INLINE_MAX_BYTES

    def request() -> Response:
        return ask(app, "POST", "/predict", body)

    assert seen(request()) == seen(done_here(monkeypatch, request))


@pytest.mark.parametrize("name", WIRES)
def test_large_rows_of_every_protocol_get_the_same_answer(name: str, app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    wire = WIRES[name]

    def request() -> Response:
        return ask(
            app,
            "POST",
            app.routes.predict_paths(name)[0],
            wire.write(PEOPLE),
            headers={"content-type": wire.media_type},
        )

    answer = request()
    assert answer.status_code == 200
    assert seen(answer) == seen(done_here(monkeypatch, request))


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=JSON_TEXT, place=st.floats(0, 1), damage=st.sampled_from([b"", b"\n", b",", b"]", b'"', b"\\", b"1", b"\xff"])
)
def test_any_text_is_read_or_refused_alike(
    text: bytes, place: float, damage: bytes, app: ModelApp, monkeypatch: pytest.MonkeyPatch
):
    at = int(place * len(text))
    body = BLANKS + text[:at] + damage + text[at:]

    def request() -> Response:
        return ask(app, "POST", "/predict", body)

    assert seen(request()) == seen(done_here(monkeypatch, request))


def test_the_replica_itself_parses_and_writes_nothing_large(app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    parsed, written = [], []
    json_value, to_json = base.json_value, predict.to_json

    def parse(body: bytes, hint: str = "") -> Any:
        parsed.append(len(body))
        return json_value(body, hint)

    def write(document: dict[str, Any]) -> bytes:
        written.append(len(document["predictions"]))
        return to_json(document)

    monkeypatch.setattr(base, "json_value", parse)
    monkeypatch.setattr(predict, "to_json", write)
    for num_rows in (1, 1000, 9000):
        rows = [{"age": 1, "color": "red"}] * num_rows
        answer = ask(app, "POST", "/predict", json.dumps({"instances": rows}).encode())
        assert len(json.loads(bytes(answer.body))["predictions"]) == num_rows
    assert len(parsed) == 2 and max(parsed) <= INLINE_MAX_BYTES
    assert written == [1, 1000] and max(written) <= request_reading.INLINE_MAX_VALUES


def test_what_is_large_only_once_it_is_opened_is_opened_elsewhere(app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "json_value", None)
    gzipped = {"content-encoding": "gzip"}
    answer = ask(app, "POST", "/predict", gzip.compress(people()), headers=gzipped)
    assert seen(answer) == seen(ask(app, "POST", "/predict", people()))
    bomb = ask(app, "POST", "/predict", gzip.compress(bytes(2**20 + 1)), headers=gzipped)
    assert bomb.status_code == 413 and b"holds more than 1048576 bytes once it is opened" in bytes(bomb.body)
    damaged = ask(app, "POST", "/predict", gzip.compress(people())[:-9], headers=gzipped)
    assert damaged.status_code == 400 and b"ends early" in bytes(damaged.body)


def test_a_process_that_ends_costs_one_answer(app: ModelApp):
    before = ask(app, "POST", "/predict", people())
    pid = app._reader._side.pid
    assert before.status_code == 200 and pid is not None
    os.kill(pid, signal.SIGKILL)
    answer = ask(app, "POST", "/predict", people())
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert b"the process that reads large bodies here ended" in bytes(answer.body)
    assert seen(ask(app, "POST", "/predict", people())) == seen(before)
    assert app._reader._side.pid not in (pid, None)


def test_the_process_ends_with_the_replica():
    ours, theirs = socket.socketpair()
    ended: list[Exception] = []

    def work() -> None:
        with theirs:
            try:
                side_work.main(theirs)
            except EOFError as error:
                ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ours.close()
    thread.join(10)
    assert len(ended) == 1


def test_an_error_that_cannot_be_sent_is_told_as_text(app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    class Odd(DataError):
        """Of a class that no other process can find."""

    def handler(call: Call) -> Reply:
        raise Odd("a category too many")

    ours, theirs = socket.socketpair()
    work = side_work.SideWork(side_work.SetUp(app.served, app.predictor.transforms(), ()))
    with ours, theirs:
        side_work.answer(work, side_work.Frames(theirs, {}), side_work.Read(handler, Call("POST", "/", {}, b"")))
        failed = side_work.Frames(ours, {}).receive()
    assert isinstance(failed.error, RuntimeError) and "a category too many" in str(failed.error)


def v2_binary(num_rows: int, datatype: str = "FP32") -> tuple[bytes, dict[str, str]]:
    values = np.ones((num_rows, 100), np.float32).tobytes()
    tensor = {"name": "x", "datatype": datatype, "shape": [num_rows, 100]}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(values)}}]}).encode()
    return header + values, {"inference-header-content-length": str(len(header))}


def message_of(num_rows: int, *, raw: bool) -> bytes:
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [num_rows, 100]}
    values = np.ones(num_rows * 100, np.float32)
    if not raw:
        tensor["contents"] = {"fp32_contents": values}
    request = MESSAGES["ModelInferRequest"](model_name="numbers", inputs=[tensor])
    if raw:
        request.raw_input_contents.append(values.tobytes())
    return request.SerializeToString()


def test_bare_arrays_are_read_by_the_replica_and_all_else_is_not(numbers: ModelApp, monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []

    async def read(self: SideProcess, handler: Any, call: Call) -> Any:
        sent.append(len(call.body))
        return Reply(b"elsewhere"), None

    monkeypatch.setattr(SideProcess, "read", read)
    body, headers = v2_binary(1000)
    path, rpc = "/v2/models/numbers/infer", "/inference.GRPCInferenceService/ModelInfer"
    chunks = [body[:300_000], body[300_000:]]  # read without a copy, as a bytearray
    for sent_body in (body, chunks):
        assert ask(numbers, "POST", path, sent_body, headers=headers).status_code == 200
    assert asyncio.run(numbers.answer_rpc(rpc, {}, message_of(1000, raw=True))).status == 200
    assert not sent
    texts, text_headers = v2_binary(1000, "BYTES")
    ask(numbers, "POST", path, texts, headers=text_headers)
    asyncio.run(numbers.answer_rpc(rpc, {}, message_of(1000, raw=False)))
    ask(numbers, "POST", path, body, headers={"inference-header-content-length": str(len(body))})
    assert sent == [len(texts), len(message_of(1000, raw=False)), len(body)]


@given(
    name=st.text(max_size=9),
    sizes=st.lists(st.integers(0, 2**40), max_size=3),
    contents=st.lists(st.binary(max_size=300), max_size=4),
)
def test_what_lies_beside_the_bytes_of_a_message_is_the_message_without_them(
    name: str, sizes: list[int], contents: list[bytes]
):
    fields: dict[str, Any] = {"model_name": name, "inputs": [{"name": name, "shape": sizes}]}
    message = MESSAGES["ModelInferRequest"](**fields, raw_input_contents=contents).SerializeToString()
    without = MESSAGES["ModelInferRequest"](**fields).SerializeToString()
    heads = len(message) - len(without) - sum(map(len, contents))
    beside = bytes_beside(message, 7, 2**20)
    assert beside is not None and beside.startswith(without) and len(beside) == len(without) + heads
    assert bytes_beside(message, 7, len(beside)) == beside
    assert not beside or bytes_beside(message, 7, len(beside) - 1) is None


@pytest.mark.parametrize("damaged", [b"\x3a", b"\x3a\x05abc", b"\xff" * 11, b"\x0b", b"\x3a\x00" * 1001])
def test_a_message_that_is_damaged_or_of_many_parts_is_none_of_bare_arrays(damaged: bytes):
    assert bytes_beside(damaged, 7, 2**20) is None
