"""Who is let in: every route of the application by every kind of credential; pages of other origins; a full replica."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from raypipe.records import DatasetVersion
from raypipe.serve.app import ModelApp
from raypipe.serve.body import Arriving
from raypipe.serve.keys import headers_of, line_of, new_key
from raypipe.serve.protocols import Call
from raypipe.spec.access import AuthSpec, CorsSpec
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.served import ask, model_app, model_version, request

PERSON = json.dumps({"instances": [{"age": 33.5, "color": "red"}]}).encode()

HEALTH = {
    "/health",
    "/healthz",
    "/ping",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/prices/ready",
    "/v2/models/prices/versions/1/ready",
}
"""All that may answer without a key: whether the endpoint is healthy, as those ask who start and watch containers."""

HEALTH_RPCS = {
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
    "/grpc.health.v1.Health/Check",
}

PREDICT, ADMIN, EXPIRED, LIMITED = new_key(), new_key(), new_key(), new_key()

AUTH = AuthSpec(keys_env="ENDPOINT_KEYS")


@pytest.fixture(autouse=True)
def known_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    expired = json.loads(line_of(EXPIRED, "old", ["predict", "admin"])) | {"expires": "2020-01-01T00:00:00Z"}
    lines = [
        line_of(PREDICT, "ann", ["predict"]),
        line_of(ADMIN, "ada", ["admin"]),
        line_of(LIMITED, "max", ["predict"], rate=0.001),
        json.dumps(expired),
    ]
    monkeypatch.setenv("ENDPOINT_KEYS", "\n".join(lines))


def served(store: LocalFolder, table: DatasetVersion, **fields: Any) -> ModelApp:
    return model_app(store, model_version(store, table, name="prices"), ServeSpec(**fields, engine="eager"))


@pytest.fixture
def closed(store: LocalFolder, table: DatasetVersion) -> ModelApp:
    return served(store, table, auth=AUTH)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


NO_CREDENTIALS: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"authorization": ""},
    "bad": bearer(new_key()),
    "expired": bearer(EXPIRED),
    "another scheme": {"authorization": f"Basic {PREDICT}"},
    "bare": {"authorization": PREDICT},
    "Ray's header": {"x-ray-authorization": f"Bearer {PREDICT}"},
    "cookie": {"cookie": f"authorization=Bearer {PREDICT}; x-api-key={PREDICT}"},
    "forwarded": {"x-forwarded-for": "127.0.0.1", "x-original-url": "/healthz", "x-rewrite-url": "/healthz"},
    "override": {"x-http-method-override": "OPTIONS"},
    "page": {"origin": "https://evil.example", "access-control-request-method": "POST"},
}

DISGUISES = {
    "as it is": lambda path: path,
    "two slashes": lambda path: "/" + path,
    "case": str.upper,
    "trailing slash": lambda path: path + "/",
    "trailing dot": lambda path: path + ".",
    "health first": lambda path: "/healthz/.." + path,
    "parameter": lambda path: path + ";/healthz",
    "empty": lambda path: "",
}

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get"]


def test_only_routes_that_tell_health_are_open(closed: ModelApp):
    open_paths = {route.path for route in closed.routes.all() if route.scope == "open"}
    assert "/healthz" in open_paths
    assert open_paths <= HEALTH | {"/"}, "a route that is not about health needs a scope"
    assert {route.path for route in closed.rpc_routes() if route.scope == "open"} <= HEALTH_RPCS
    assert all(route.method == "GET" and not route.accepts for route in closed.routes.all() if route.scope == "open")


def test_page_that_is_open_tells_nothing_of_the_model(closed: ModelApp):
    page = bytes(ask(closed, "GET", "/").body)
    assert b"asks for an API key" in page
    for word in ("prices", "age", "color", "red"):  # the model's name, its inputs, a category
        assert f'"{word}"'.encode() not in page and f">{word}<".encode() not in page


@pytest.mark.parametrize("credential", NO_CREDENTIALS)
def test_no_route_answers_without_a_key_in_any_disguise(credential: str, closed: ModelApp):
    open_paths = {route.path for route in closed.routes.all() if route.scope == "open"}
    paths = {route.path for route in closed.routes.all()} | {"/absent", "/-/x"}
    asked = {(method, disguise(path)) for method in METHODS for path in paths for disguise in DISGUISES.values()}
    closed_ones = [(m, path) for m, path in asked if (path or "/") not in open_paths or m not in ("GET", "HEAD")]
    assert len(closed_ones) > 300

    async def ask_all() -> list[tuple[str, str, int, bytes]]:
        found: list[tuple[str, str, int, bytes]] = []
        for method, path in closed_ones:
            asked = request(method, path, PERSON, headers=NO_CREDENTIALS[credential])
            answer = await closed(asked)
            found.append((method, path, answer.status_code, bytes(answer.body)))
        return found

    for method, path, status, body in asyncio.run(ask_all()):
        assert status == (403 if credential == "page" else 401), (method, path)
        assert b"prediction" not in body and PREDICT.encode() not in body


@pytest.mark.parametrize("credential", [name for name in NO_CREDENTIALS if name != "page"])
def test_no_call_of_grpc_is_answered_without_a_key(credential: str, store: LocalFolder, table: DatasetVersion):
    app = served(store, table, auth=AUTH, grpc_port=9000)
    metadata = headers_of(NO_CREDENTIALS[credential].items())
    for route in app.rpc_routes():
        status = asyncio.run(app.answer_rpc(route.path, metadata, b"")).status
        assert (status == 401) == (route.scope != "open"), route.path
        other = ADMIN if route.scope == "predict" else PREDICT
        refused = asyncio.run(app.answer_rpc(route.path, headers_of(bearer(other).items()), b""))
        assert (refused.status == 403) == (route.scope != "open"), route.path


def test_key_of_another_scope_is_403_on_every_route(closed: ModelApp):
    for route in closed.routes.all():
        if route.scope != "open":
            other = ADMIN if route.scope == "predict" else PREDICT
            assert ask(closed, route.method, route.path, PERSON, headers=bearer(other)).status_code == 403, route.path


def test_key_with_the_scope_lets_in_and_health_asks_for_none(closed: ModelApp):
    for headers in (bearer(PREDICT), {"x-api-key": PREDICT}):
        assert ask(closed, "POST", "/predict", PERSON, headers=headers).status_code == 200
    assert ask(closed, "GET", "/healthz").status_code == 200
    assert ask(closed, "HEAD", "/healthz").status_code == 200
    assert ask(closed, "GET", "/absent", headers=bearer(PREDICT)).status_code == 404


def test_key_that_asks_too_often_is_429_in_the_words_of_the_protocol(closed: ModelApp):
    assert ask(closed, "POST", "/predict", PERSON, headers=bearer(LIMITED)).status_code == 200
    answer = ask(closed, "POST", "/predict", PERSON, headers=bearer(LIMITED))
    error = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (429, "too_many_requests", "1000")


def test_refusal_for_want_of_a_key_leaves_the_body_unread(closed: ModelApp):
    async def receive() -> Any:
        raise AssertionError("the body was read")

    headers = dict(request("POST", "/predict", PERSON).scope["headers"])
    reply = asyncio.run(closed.answer(Call("POST", "/predict", headers, b""), Arriving(receive)))
    assert reply.status == 401


def test_without_keys_everybody_is_let_in(store: LocalFolder, table: DatasetVersion):
    assert ask(served(store, table), "POST", "/predict", PERSON).status_code == 200


PAGE = "https://app.example.com"


@pytest.mark.parametrize(
    ("host", "origin", "asked_host", "status"),
    [
        ("127.0.0.1", None, "anything", 200),  # no browser's page
        ("127.0.0.1", "http://127.0.0.1:8000", "127.0.0.1:8000", 200),
        ("127.0.0.1", "http://localhost:8000", "localhost:8000", 200),
        ("127.0.0.1", "http://[::1]:8000", "[::1]:8000", 200),
        ("127.0.0.1", "http://evil.example:8000", "evil.example:8000", 403),  # a name that now leads to loopback
        ("127.0.0.1", "http://127.0.0.1.evil.example", "127.0.0.1.evil.example", 403),
        ("127.0.0.1", "http://evil.example", "127.0.0.1:8000", 403),
        ("127.0.0.1", "http://localhost:9000", "localhost:8000", 403),
        ("127.0.0.1", "null", "127.0.0.1:8000", 403),
        ("127.0.0.1", "", "", 403),
        ("127.0.0.1", "file://", "127.0.0.1:8000", 403),
        ("127.0.0.1", PAGE, "127.0.0.1:8000", 403),
        ("0.0.0.0", "http://model.example.com", "model.example.com", 200),
        ("0.0.0.0", "http://evil.example", "model.example.com", 403),
    ],
)
def test_page_of_another_origin_may_not_ask(
    host: str, origin: str | None, asked_host: str, status: int, store: LocalFolder, table: DatasetVersion
):
    app = served(store, table, host=host)
    headers = {"host": asked_host} | ({} if origin is None else {"origin": origin})
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        answer = ask(app, "POST", "/predict", PERSON, headers={**headers, "content-type": kind})
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control")]
    if status == 403:
        assert json.loads(bytes(answer.body))["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
def test_other_kinds_that_a_form_may_send_are_refused(kind: str, store: LocalFolder, table: DatasetVersion):
    assert ask(served(store, table), "POST", "/predict", PERSON, headers={"content-type": kind}).status_code == 415


def test_page_of_a_named_origin_may_ask_and_no_other(store: LocalFolder, table: DatasetVersion):
    app = served(store, table, cors=CorsSpec(origins=[PAGE]), auth=AUTH)
    question = {"origin": PAGE, "access-control-request-method": "POST", "host": "127.0.0.1:8000"}
    preflight = ask(app, "OPTIONS", "/predict", headers=question)
    assert preflight.status_code == 204 and preflight.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = ask(app, "POST", "/predict", PERSON, headers={"origin": PAGE, **bearer(PREDICT)})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    unknown = ask(app, "POST", "/predict", PERSON, headers={"origin": PAGE})
    assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, PAGE)
    for other in (PAGE + ".evil.example", PAGE.replace("https", "http"), PAGE + ":8443", PAGE.upper(), "null"):
        refused = ask(app, "OPTIONS", "/predict", headers={**question, "origin": other})
        assert refused.status_code in (401, 403) and "access-control-allow-origin" not in refused.headers
        refused = ask(app, "POST", "/predict", PERSON, headers={"origin": other, **bearer(PREDICT)})
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        assert refused.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in answer.headers, "no cookie is ever read"


def test_full_replica_refuses_before_it_reads_and_tells_health(store: LocalFolder, table: DatasetVersion):
    app = served(store, table, max_ongoing_requests=1, max_queued_requests=2)

    async def story() -> list[int]:
        going = asyncio.Event()

        async def slowly() -> Any:
            await going.wait()
            return {"type": "http.request", "body": PERSON, "more_body": False}

        async def unread() -> Any:
            raise AssertionError("the body was read")

        headers = dict(request("POST", "/predict", b"").scope["headers"])

        def asked(receive: Any, method: str = "POST", path: str = "/predict") -> Any:
            return app.answer(Call(method, path, headers, b""), Arriving(receive))

        inside = [asyncio.create_task(asked(slowly)) for _ in range(3)]
        await asyncio.sleep(0)
        refused = await asked(unread)
        assert json.loads(refused.body)["error"]["message"] == "3 requests are here already"
        assert refused.headers["retry-after"] == "1"
        health = await asked(unread, "GET", "/healthz")
        inside[0].cancel()  # its client went
        await asyncio.wait(inside[:1])
        later = asyncio.create_task(asked(slowly))
        await asyncio.sleep(0)
        going.set()
        answers = await asyncio.gather(*inside[1:], later)
        return [refused.status, health.status, *(each.status for each in answers)]

    assert asyncio.run(story()) == [503, 200, 200, 200, 200]
    assert (app.room.requests, app.room.held_bytes) == (0, 0)


def test_bodies_that_together_are_too_much_are_refused_and_what_they_held_is_given_back(
    store: LocalFolder, table: DatasetVersion
):
    app = served(store, table, limits=LimitsSpec(max_held_bytes=2000))

    async def story() -> list[int]:
        going = asyncio.Event()

        def large() -> Any:
            parts = [b" " * 900, PERSON]

            async def receive() -> Any:
                if len(parts) == 1:
                    await going.wait()
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

            return receive

        headers = dict(request("POST", "/predict", [b""]).scope["headers"])
        calls = [Call("POST", "/predict", headers, b"") for _ in range(3)]
        tasks = [asyncio.create_task(app.answer(call, Arriving(large()))) for call in calls]
        await asyncio.sleep(0.01)
        assert app.room.held_bytes == 1800
        going.set()
        return sorted(reply.status for reply in await asyncio.gather(*tasks))

    assert asyncio.run(story()) == [200, 200, 503]
    assert (app.room.requests, app.room.held_bytes) == (0, 0)


def test_one_body_alone_is_never_too_much(store: LocalFolder, table: DatasetVersion):
    app = served(store, table, limits=LimitsSpec(max_held_bytes=1024))
    assert ask(app, "POST", "/predict", PERSON + b" " * 5000).status_code == 200
