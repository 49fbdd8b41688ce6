"""A model that answers with texts: every protocol gives the text that the Predictor gives, /generate the same token by
token, and what cannot be read is refused by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.serve.direct import Direct
from raypipe.serve.protocols import PROTOCOLS
from raypipe.serve.protocols.oip_grpc import OpenInferenceGrpc
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts import ProtocolContract
from raypipe.testing.served import ask, listening, model_app
from tests.unit.model.test_sequence_to_sequence import WORDS, version_of

ROWS = [{"source": word} for word in WORDS]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> ModelApp:
    store = LocalFolder(str(tmp_path_factory.mktemp("store")))
    return model_app(store, version_of(store))


@pytest.fixture(scope="module")
def expected(app: ModelApp) -> list[dict[str, Any]]:
    rows = app.predictor.task.json_rows(app.predictor.predict({"source": np.array(WORDS, object)}).values)
    assert len({row["text"] for row in rows}) > 1 and all(len(row["text"]) for row in rows[:2])
    return rows


@pytest.fixture(scope="module")
def address(app: ModelApp) -> Iterator[str]:
    with listening(Direct(app)) as address:
        yield address


def document(answer: Response) -> Any:
    assert answer.status_code == 200, bytes(answer.body)
    return json.loads(bytes(answer.body))


def post(app: ModelApp, path: str, body: Any) -> Response:
    return ask(app, "POST", path, json.dumps(body).encode())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_of_texts_what_it_answers(name: str, app: ModelApp):
    ProtocolContract(name, app).check_schemas(partial(jsonschema.validate, cls=jsonschema.Draft202012Validator))


def test_every_protocol_answers_the_texts_of_the_predictor(app: ModelApp, expected: list[dict[str, Any]]):
    texts, sure = [row["text"] for row in expected], [float(row["probability"]) for row in expected]
    for path in ("/predict", "/v1/models/tiny:predict", "/invocations", "/predictions/tiny"):
        predictions = document(post(app, path, {"instances": ROWS}))["predictions"]
        assert [row["text"] for row in predictions] == texts, path
        assert [row["probability"] for row in predictions] == pytest.approx(sure, rel=1e-5), path
    columns = document(post(app, "/v1/models/tiny:predict", {"inputs": {"source": WORDS}}))["outputs"]
    assert columns["text"] == texts
    asked = {"name": "source", "datatype": "BYTES", "shape": [len(WORDS)], "data": WORDS}
    outputs = {
        each["name"]: each for each in document(post(app, "/v2/models/tiny/infer", {"inputs": [asked]}))["outputs"]
    }
    assert outputs["text"]["data"] == texts and outputs["text"]["datatype"] == "BYTES"
    assert outputs["probability"]["data"] == pytest.approx(sure, rel=1e-5)
    table = "source\n" + "\n".join(WORDS)
    lines = ask(app, "POST", "/invocations", table.encode(), headers={"content-type": "text/csv", "accept": "text/csv"})
    assert [cell for (cell,) in csv.reader(bytes(lines.body).decode().splitlines())] == texts
    told = OpenInferenceGrpc(app.served).tensors.outputs()
    assert [(each["name"], each["datatype"]) for each in told] == [("text", "BYTES"), ("probability", "FP32")]


def test_generate_writes_what_predict_answers_whole_and_streamed(
    app: ModelApp, address: str, expected: list[dict[str, Any]]
):
    for word, row in zip(WORDS[:3], expected, strict=False):
        whole = document(post(app, "/generate", {"prompt": word, "seed": 1}))
        assert whole == {"text": row["text"], "num_tokens": len(row["text"]), "seed": 1, "model": "tiny", "version": 1}
        streamed = httpx.post(f"{address}/generate", json={"prompt": word, "seed": 1, "stream": True}).text
        blocks = [block.split("\n") for block in streamed.strip().split("\n\n")]
        tokens = [json.loads(line[0].removeprefix("data: "))["token"] for line in blocks[:-1]]
        assert "".join(tokens) == row["text"] and blocks[-1][0] == "event: done"
    cut = document(post(app, "/generate", {"prompt": WORDS[0], "max_new_tokens": 1}))
    assert cut["text"] == expected[0]["text"][:1]
    drawn = {document(post(app, "/generate", {"prompt": "ab", "temperature": 5, "seed": s}))["text"] for s in range(6)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column 'source' holds an empty text"),
        ("abcabcabc", "holds a text of 9 characters ('abcabcabc'), and at most 8 are taken"),
        ("añb", "holds 'ñ', which is not among the 6 characters that train taught ('abcdef')"),
    ],
)
def test_text_that_cannot_be_read_is_refused_in_the_words_of_the_transform(text: str, words: str, app: ModelApp):
    for path, body in (("/predict", {"instances": [{"source": text}]}), ("/generate", {"prompt": text})):
        answer = post(app, path, body)
        error = json.loads(bytes(answer.body))["error"]
        assert answer.status_code == 400 and words in error["message"] and error["hint"], path


def test_more_tokens_than_a_target_has_are_refused(app: ModelApp):
    answer = post(app, "/generate", {"prompt": "ab", "max_new_tokens": 10})
    assert answer.status_code == 400 and b"max_new_tokens must be a whole number from 1 to 9; found 10" in answer.body


def test_page_of_the_endpoint_tells_that_a_text_is_written(app: ModelApp):
    page = bytes(ask(app, "GET", "/").body).decode()
    assert "Writes a text, <strong>y</strong>, for <strong>source</strong>; with its probability." in page
