"""POST /generate: texts at once or token by token, for clients that read, stall, leave or ask nonsense."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from starlette.responses import Response

from raypipe.serve import writing
from raypipe.serve.app import ModelApp
from raypipe.serve.direct import Direct
from raypipe.serve.protocols import PROTOCOLS
from raypipe.serve.worker_thread import WorkerThread
from raypipe.spec.model import GptModel, ImportModel
from raypipe.spec.serve import LimitsSpec, ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts import ProtocolContract
from raypipe.testing.fakes import tiny_text
from raypipe.testing.served import ask, listening, model_app, model_version, request

TEXT = "the cat sat on the mat; a dog ran. " * 40
GPT = GptModel(kind="gpt", dim=16, num_layers=1, num_heads=2)

FAILS_LATER = """
import torch
from torch import nn

def boom(ids):
    raise RuntimeError("a secret of own.py")

class FailsLater(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.table = nn.Parameter(torch.arange(float(num_outputs)))
    def forward(self, ids):
        if 5 < int((ids != 0).sum(dim=1).max()) < 8:
            ids = FAILS
        return ids[:, :, None] * 0.0 + self.table

def build(num_outputs):
    return FailsLater(num_outputs)
"""

OWN = """
import torch
from torch import nn

class Likes(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.table = nn.Parameter(torch.arange(float(num_outputs)))
    def forward(self, ids):
        one = nn.functional.one_hot(ids.long(), len(self.table)).float()
        return one.roll(1, dims=2) * 50 + self.table * 0.01

def build(num_outputs):
    return Likes(num_outputs)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


def replica(store: LocalFolder, **serve: Any) -> ModelApp:
    dataset = tiny_text(store, TEXT)
    return model_app(store, model_version(store, dataset, spec=GPT), ServeSpec.model_validate(serve))


@pytest.fixture(scope="module")
def app(store: LocalFolder) -> ModelApp:
    return replica(store)


@pytest.fixture(scope="module")
def address(app: ModelApp) -> Iterator[str]:
    with listening(Direct(app)) as address:
        yield address


def body(**fields: Any) -> bytes:
    return json.dumps({"prompt": "the ", "max_new_tokens": 20, "seed": 3, **fields}).encode()


def document(answer: Response) -> Any:
    return json.loads(bytes(answer.body))


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each server-sent event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_of_a_language_model_what_it_answers(name: str, app: ModelApp):
    ProtocolContract(name, app).check_schemas(partial(jsonschema.validate, cls=jsonschema.Draft202012Validator))


def test_same_seed_writes_the_same_text_whole_and_streamed(app: ModelApp, address: str):
    whole = document(ask(app, "POST", "/generate", body()))
    assert whole == {"text": whole["text"], "num_tokens": 20, "seed": 3, "model": "tiny", "version": 1}
    assert len(whole["text"]) == 20 and set(whole["text"]) <= set(TEXT)

    streamed = httpx.post(f"{address}/generate", content=body(stream=True))

    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["x-raypipe-model"] == "tiny@1"
    *tokens, last = events(streamed.text)
    assert "".join(data["token"] for _, data in tokens) == whole["text"]
    assert last == ("done", {"num_tokens": 20, "seed": 3, "model": "tiny", "version": 1})
    assert document(ask(app, "POST", "/generate", body(seed=4)))["text"] != whole["text"]


def test_seed_that_was_drawn_is_told_and_writes_the_text_again(app: ModelApp):
    first = document(ask(app, "POST", "/generate", body(seed=None)))
    again = document(ask(app, "POST", "/generate", body(seed=first["seed"])))
    assert first == again


def test_text_longer_than_the_context_goes_on_and_the_likeliest_needs_no_seed(app: ModelApp):
    texts = {document(ask(app, "POST", "/generate", body(temperature=0, seed=s)))["text"] for s in (1, 2)}
    assert len(texts) == 1
    long = document(ask(app, "POST", "/generate", body(prompt=TEXT, max_new_tokens=50)))
    assert long["num_tokens"] == 50


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": None}, "prompt must be a text; found None"),
        ({"prompt": "the é and ß"}, "prompt holds 'é', 'ß', which the model has never read"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1 to 16384; found 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number from 1"),
        ({"max_new_tokens": 10**9}, "max_new_tokens must be a whole number from 1 to 16384; found 1000000000"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens must be a whole number"),
        ({"temperature": -1}, "temperature must be 0 to 100; found -1"),
        ({"temperature": 1e308}, "temperature must be 0 to 100; found 1e+308"),
        ({"temperature": 10**400}, "the body is not valid JSON"),
        ({"temperature": math.nan}, "the body is not valid JSON"),
        ({"temperature": [1]}, "temperature must be 0 to 100; found a list of 1"),
        ({"prompt": {"text": ["the"] * 100_000}}, "prompt must be a text; found an object"),
        ({"temperature": "hot"}, "temperature must be 0 to 100"),
        ({"top_k": 0}, "top_k must be a whole number from 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"stream": 1}, "stream must be true or false; found 1"),
        ({"tempurature": 1}, "unknown field 'tempurature'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_request_that_makes_no_sense_is_refused_in_words(
    fields: dict[str, Any], words: str, stream: bool, app: ModelApp
):
    answer = ask(app, "POST", "/generate", body(**{"stream": stream, **fields}))
    assert answer.status_code == 400
    assert words in document(answer)["error"]["message"]


@pytest.mark.parametrize("field", ["prompt", "max_new_tokens", "temperature", "top_k", "seed", "stream"])
def test_lists_as_deep_as_json_is_parsed_are_refused(field: str, app: ModelApp):
    fields = {"prompt": '"the "', field: "[" * 1000 + "]" * 1000}
    sent = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    answer = ask(app, "POST", "/generate", f"{{{sent}}}".encode())
    assert answer.status_code == 400 and f"{field} must be" in document(answer)["error"]["message"]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-9])
def test_next_to_no_temperature_writes_the_likeliest_text(temperature: float, app: ModelApp):
    likeliest = document(ask(app, "POST", "/generate", body(temperature=0)))["text"]
    for top_k in (None, 3):
        answer = document(ask(app, "POST", "/generate", body(temperature=temperature, top_k=top_k)))
        assert answer["text"] == likeliest


def test_prompt_of_megabytes_is_read_to_its_end_and_its_end_counts(app: ModelApp):
    long = "the cat sat " * 200_000
    ids = app.served.writer.read(long) if app.served.writer else None
    assert ids is not None and ids.shape == (1, 8)
    short = document(ask(app, "POST", "/generate", body(prompt=long[-8:])))["text"]
    assert document(ask(app, "POST", "/generate", body(prompt=long)))["text"] == short
    refused = ask(app, "POST", "/generate", body(prompt=f"{long}ß{long}"))
    assert refused.status_code == 400 and "prompt holds 'ß'" in document(refused)["error"]["message"]


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("fails", ["ids * float('nan')", "boom(ids)"])
def test_network_that_fails_gives_no_token_and_tells_nothing_of_itself(
    fails: str, temperature: float, store: LocalFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "own.py").write_text(FAILS_LATER.replace("FAILS", fails))
    spec = ImportModel(kind="import", path="own.py:build")
    version = model_version(store, tiny_text(store, TEXT), name="failing", spec=spec, code_dir=tmp_path)
    app = ModelApp(store.uri, version.model_dump_json(), str(tmp_path), ServeSpec().model_dump_json())
    code = "not_finite" if "nan" in fails else "internal"

    whole = ask(app, "POST", "/generate", body(prompt="the", temperature=temperature))
    assert whole.status_code == 500 and document(whole)["error"]["code"] == code
    with listening(Direct(app)) as address:
        at_once = httpx.post(
            f"{address}/generate", content=body(prompt="the cat", temperature=temperature, stream=True)
        )
        later = httpx.post(f"{address}/generate", content=body(prompt="the", temperature=temperature, stream=True))

    assert at_once.status_code == 500 and at_once.json()["error"]["code"] == code
    (*tokens, (name, told)) = events(later.text)
    assert (later.status_code, len(tokens), name) == (200, 3, "error")
    assert set(told["error"]) == {"code", "message", "hint"} and told["error"]["code"] == code
    for text in (bytes(whole.body).decode(), at_once.text, later.text):
        assert "secret" not in text and "own.py" not in text
    assert app._writing.num_texts == app.room.requests == 0


def test_text_that_takes_too_long_is_ended_with_words(store: LocalFolder):
    slow = replica(store, request_timeout_s=0.05)
    whole = ask(slow, "POST", "/generate", body(max_new_tokens=16_000))
    assert whole.status_code == 504
    assert "not finished within 0.05 s" in document(whole)["error"]["message"]
    with listening(Direct(slow)) as address:
        streamed = httpx.post(f"{address}/generate", content=body(max_new_tokens=16_000, stream=True), timeout=20)
    name, data = events(streamed.text)[-1]
    assert streamed.status_code == 200 and name == "error"
    assert "not finished within 0.05 s" in data["error"]["message"]
    assert slow._writing.num_texts == slow.room.requests == slow.room.held_bytes == 0


class Unhurried(WorkerThread):
    """Takes its time for each token: a text is not at its end before a test goes on, however busy the machine is."""

    async def run(self, function: Any, *args: Any, **named: Any) -> Any:
        return await super().run(lambda: (time.sleep(0.005), function(*args, **named))[1])


def test_client_that_leaves_ends_its_text(app: ModelApp, address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app._writing, "_thread", Unhurried("slow"))
    monkeypatch.setattr(writing, "INLINE_MAX_S", 0.0)
    with httpx.stream("POST", f"{address}/generate", content=body(max_new_tokens=16_000, stream=True)) as answer:
        pieces = answer.iter_bytes()  # kept: who lets go of it closes the connection
        next(pieces)
        assert app._writing.num_texts == app.room.requests == 1
    for _ in range(200):
        if not app._writing.num_texts and not app.room.requests:
            break
        httpx.get(f"{address}/healthz")
    assert app._writing.num_texts == app.room.requests == app.room.held_bytes == 0


def test_client_that_leaves_ends_a_text_that_is_not_streamed(app: ModelApp, address: str):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/generate", content=body(max_new_tokens=16_000), timeout=0.2)
    for _ in range(200):
        if not app._writing.num_texts and not app.room.requests:
            break
        httpx.get(f"{address}/healthz")
    assert app._writing.num_texts == app.room.requests == app.room.held_bytes == 0


def test_answer_in_pieces_that_nobody_takes_holds_nothing(app: ModelApp):
    async def given_up() -> None:
        response = await app(request("POST", "/generate", body(stream=True)))
        assert app._writing.num_texts == app.room.requests == 1

        async def stays() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            raise OSError("the client is gone")

        with pytest.raises(Exception):  # noqa: B017, PT011  (what Starlette makes of it)
            await response({"type": "http"}, stays, send)
        assert app.room.requests == app.room.held_bytes == 0

    asyncio.run(given_up())
    assert app._writing.num_texts == 0


def test_client_that_takes_nothing_makes_no_token_and_is_given_up(store: LocalFolder):
    app = replica(store, limits=LimitsSpec(stalled_timeout_s=1).model_dump())
    sent: list[Any] = []

    async def stalled() -> int:
        arriving = iter([{"type": "http.request", "body": body(max_new_tokens=16_000, stream=True)}])

        async def receive() -> Any:
            return next(arriving, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 4:  # the start of the answer, and three tokens
                await asyncio.Event().wait()

        scope = {"type": "http", "method": "POST", "path": "/generate", "query_string": b"", "headers": []}
        return await app.answer_asgi(scope, receive, send)

    assert asyncio.run(stalled()) == 200
    assert len(sent) == 4
    assert app._writing.num_texts == app.room.requests == app.room.held_bytes == 0


def test_more_texts_than_may_be_written_at_once_are_refused(app: ModelApp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "MAX_AT_ONCE", 0)
    for stream in (False, True):
        answer = ask(app, "POST", "/generate", body(stream=stream))
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


def test_route_that_streams_takes_the_way_that_can(app: ModelApp):
    direct = Direct(app)
    assert direct.takes("/predict") and not direct.takes("/generate")


def test_path_of_a_platform_streams_where_its_route_does(store: LocalFolder):
    app = replica(store)
    app.routes.add_path("/invoke", "POST", "/generate")
    assert not Direct(app).takes("/invoke")


def test_probability_of_a_text_is_told_to_who_predicts(app: ModelApp):
    answer = document(ask(app, "POST", "/predict", b'{"instances": [{"text": "the cat"}, {"text": "t"}]}'))
    long, short = answer["predictions"]
    assert long["num_tokens"] == 6 and long["perplexity"] > 1 and long["log_likelihood"] < 0
    assert (short["num_tokens"], short["log_likelihood"], short["perplexity"]) == (0, 0, 1)


def test_network_of_the_users_own_writes_too(store: LocalFolder, tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)
    dataset = tiny_text(store, TEXT)
    assert dataset.signature.language is not None
    own = ImportModel(kind="import", path="own.py:build")
    version = model_version(store, dataset, name="own", spec=own, code_dir=tmp_path)
    app = ModelApp(store.uri, version.model_dump_json(), str(tmp_path), ServeSpec().model_dump_json())
    tokens = dataset.signature.language.tokens

    text = document(ask(app, "POST", "/generate", body(prompt=tokens[0], max_new_tokens=12, temperature=0)))

    assert text["text"] == "".join(tokens[1:13])  # it likes the next character of its alphabet
