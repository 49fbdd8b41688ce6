from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from starlette.requests import Request

from raypipe.serve.app import ModelApp
from raypipe.serve.ray_serve import TIMEOUT_GRACE_S
from raypipe.testing.served import ask, request

PERSON = {"age": 33.5, "color": "red"}
GOOD = json.dumps({"instances": [PERSON]}).encode()


def refusal(answer: Any) -> tuple[int, dict[str, str]]:
    error = json.loads(bytes(answer.body))["error"]
    assert set(error) == {"code", "message", "hint"}
    assert "/tmp" not in error["message"] + error["hint"] and "Traceback" not in error["message"]
    return answer.status_code, error


def test_health_tells_model_and_version(regressor: ModelApp):
    answer = ask(regressor, "GET", "/healthz")
    assert json.loads(bytes(answer.body)) == {"status": "ok", "model": "prices", "version": 1}
    assert answer.headers["x-raypipe-model"] == "prices@1"


def test_path_below_a_route_prefix_is_found(regressor: ModelApp):
    assert ask(regressor, "POST", "/shop/predict", GOOD, root_path="/shop").status_code == 200


def test_path_of_a_platform_is_answered_as_the_known_one_and_by_its_method_alone(regressor: ModelApp):
    regressor.routes.add_path("/score:now", "POST", "/predict")
    assert ask(regressor, "POST", "/score:now", GOOD).body == ask(regressor, "POST", "/predict", GOOD).body
    assert ask(regressor, "GET", "/score:now").headers["allow"] == "POST"
    regressor.routes.add_path("/healthz", "GET", "/ping")  # where both are known, the platform's word counts
    assert ask(regressor, "GET", "/healthz").body == ask(regressor, "GET", "/ping").body


def test_unknown_path_is_404_and_names_the_nearest(regressor: ModelApp):
    status, error = refusal(ask(regressor, "POST", "/predikt", GOOD))
    assert status == 404 and error["hint"] == "did you mean /predict?"


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/predict", "POST"), ("DELETE", "/healthz", "GET")])
def test_wrong_method_is_405_and_names_the_right_one(method: str, path: str, allowed: str, regressor: ModelApp):
    status, error = refusal(ask(regressor, method, path))
    assert status == 405 and allowed in error["hint"]


@pytest.mark.parametrize("kind", ["text/csv", "image/png", "multipart/form-data; boundary=x", ""])
def test_wrong_content_type_is_415(kind: str, regressor: ModelApp):
    assert refusal(ask(regressor, "POST", "/predict", GOOD, headers={"content-type": kind}))[0] == 415


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/x-www-form-urlencoded"]
)
def test_content_type_that_json_comes_with_is_read(kind: str, regressor: ModelApp):
    assert ask(regressor, "POST", "/predict", GOOD, headers={"content-type": kind}).status_code == 200


RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD, mtime=0)),
        ("X-GZIP", gzip.compress(GOOD, mtime=0)),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", RAW_DEFLATE.compress(GOOD) + RAW_DEFLATE.flush()),
        ("identity", GOOD),
    ],
)
def test_compressed_body_is_read(encoding: str, body: bytes, regressor: ModelApp):
    assert ask(regressor, "POST", "/predict", body, headers={"content-encoding": encoding}).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status", "words"),
    [
        ("br", GOOD, 415, "br is not read here"),
        ("gzip", GOOD, 400, "no gzip data"),
        ("gzip", gzip.compress(GOOD, mtime=0)[:-9], 400, "ends early"),
        ("deflate", b"", 400, "ends early"),
        ("gzip", gzip.compress(b" " * 5000, mtime=0), 413, "once it is opened"),
    ],
)
def test_compressed_body_that_cannot_be_opened_is_refused(
    encoding: str, body: bytes, status: int, words: str, regressor: ModelApp
):
    found, error = refusal(ask(regressor, "POST", "/predict", body, headers={"content-encoding": encoding}))
    assert found == status and words in error["message"]


def test_gzip_bomb_is_refused_without_its_memory(regressor: ModelApp):
    bomb = gzip.compress(bytes(8 * 2**20), mtime=0)[:4096]  # the beginning of one of any size: 4 MB when opened
    tracemalloc.start()
    status, _ = refusal(ask(regressor, "POST", "/predict", bomb, headers={"content-encoding": "gzip"}))
    assert status == 413 and tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_declared_body_over_the_cap_is_413_and_stays_unread(regressor: ModelApp):
    async def receive() -> Any:
        raise AssertionError("the body was read")

    scope = request("POST", "/predict", b"x" * 5000).scope
    assert refusal(asyncio.run(regressor(Request(scope, receive))))[0] == 413


def test_chunked_body_over_the_cap_is_413_as_soon_as_it_is_over(regressor: ModelApp):
    taken = 0

    def chunks() -> Any:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"[" * 1000

    asked = request("POST", "/predict", chunks())
    received = 0
    receive = asked.receive

    async def counted() -> Any:
        nonlocal received
        received += 1
        return await receive()

    answer = asyncio.run(regressor(Request(asked.scope, counted)))
    assert refusal(answer)[0] == 413 and received == 5  # 4096 bytes are allowed


def test_chunked_body_under_the_cap_is_answered(regressor: ModelApp):
    assert ask(regressor, "POST", "/predict", [GOOD[:10], b"", GOOD[10:]]).status_code == 200


def test_declared_length_that_lies_is_still_capped(regressor: ModelApp):
    answer = ask(regressor, "POST", "/predict", [b"[" * 3000] * 3, headers={"content-length": "10"})
    assert refusal(answer)[0] == 413


def test_body_that_does_not_arrive_in_time_is_408(hasty: ModelApp):
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()

    scope = request("POST", "/predict", b"{}").scope
    assert refusal(asyncio.run(hasty(Request(scope, receive))))[0] == 408


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"instances": [1,}', "line 1, column"),
        (b"[" * 4000, "not valid JSON"),
        (b'{"instances": [{"age": NaN, "color": "red"}]}', "not valid JSON"),
        (b'{"instances": [{"age": 1e999, "color": "red"}]}', "not valid JSON"),
        (b'{"instances": [{"age": 1, "color": "\\ud800"}]}', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"", "no body"),
    ],
)
def test_broken_json_is_400_and_says_where(body: bytes, words: str, regressor: ModelApp):
    status, error = refusal(ask(regressor, "POST", "/predict", body))
    assert status == 400 and words in error["message"]


def test_too_many_rows_is_413(regressor: ModelApp):
    body = json.dumps({"instances": [[1, "red"]] * 21}).encode()
    assert refusal(ask(regressor, "POST", "/predict", body))[0] == 413


def test_category_the_model_never_saw_is_400_and_named(regressor: ModelApp):
    body = json.dumps({"instances": [{**PERSON, "color": "mauve"}]}).encode()
    status, error = refusal(ask(regressor, "POST", "/predict", body))
    assert status == 400 and "color" in error["message"] and "mauve" in error["message"]


def test_model_that_breaks_is_500_without_its_inner_words(regressor: ModelApp, monkeypatch: pytest.MonkeyPatch):
    def broken(columns: Any) -> Any:
        raise RuntimeError("/tmp/secret/path")

    monkeypatch.setattr(regressor._batcher, "_model", broken)
    status, error = refusal(ask(regressor, "POST", "/predict", GOOD))
    assert status == 500 and "secret" not in json.dumps(error)


def test_model_that_takes_too_long_is_504_within_the_time_limit(hasty: ModelApp):
    stuck = threading.Event()
    predict = hasty._batcher._model

    def slow(columns: Any) -> Any:
        stuck.wait(30)
        return predict(columns)

    hasty._batcher._model = slow
    start = time.monotonic()
    status, error = refusal(ask(hasty, "POST", "/predict", GOOD))
    stuck.set()
    assert status == 504 and error["code"] == "timeout"
    assert "1 rows within 0.2 s" in error["message"] and "serve.request_timeout_s" in error["hint"]
    assert time.monotonic() - start < 0.2 + TIMEOUT_GRACE_S


def test_client_that_leaves_while_sending_harms_nobody(regressor: ModelApp):
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = request("POST", "/predict", GOOD).scope
    assert asyncio.run(regressor(Request(scope, receive))).status_code == 400
    assert ask(regressor, "POST", "/predict", GOOD).status_code == 200


def test_requests_at_once_with_a_bad_one_among_them_fail_only_that_one(regressor: ModelApp):
    def people(*rows: Any) -> Request:
        return request("POST", "/predict", json.dumps({"instances": rows}).encode())

    async def at_once_and_alone() -> tuple[list[Any], list[Any]]:
        asked = [people({**PERSON, "age": age, "color": "mauve" if age == 3 else "red"}) for age in range(8)]
        together = await asyncio.gather(*(regressor(one) for one in asked))
        return together, [await regressor(people([age, "red"])) for age in (0, 7)]

    answers, alone = asyncio.run(at_once_and_alone())
    assert [a.status_code for a in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
    for one, together in zip(alone, (answers[0], answers[7]), strict=True):
        found, expected = (json.loads(bytes(a.body))["predictions"][0] for a in (together, one))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
