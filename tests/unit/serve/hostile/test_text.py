"""Text that means something to a log, a header, a shell or a browser: it comes back neutral, or not at all."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask, request
from tests.unit.serve.hostile.refusals import checked, readers

pytestmark = pytest.mark.thorough

INJECTIONS = [
    "\r\nset-cookie: a=b",
    "\n2026-01-01 ERROR forged",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x00",
    "\u202egnp.exe",
    "\u2028next",
    "%s%s%s%n",
    "{0.__class__.__mro__}",
    "${jndi:ldap://127.0.0.1/a}",
    "$(touch /tmp/x)",
    "`id`",
    "; rm -rf /",
    "' OR '1'='1",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "__proto__",
    "../../etc/passwd",
    "%0d%0aset-cookie:%20a=b",
    "{{7*7}}",
]


@pytest.mark.parametrize("payload", INJECTIONS)
def test_hostile_text_comes_back_neutral_wherever_it_stands(
    payload: str, app: ModelApp, capfd: pytest.CaptureFixture[str]
):
    json_bodies = [
        {payload: 1},
        {"instances": [{payload: 1}]},
        {"instances": [{"age": payload, "color": payload, "image": payload}]},
        {"instances": payload},
        {"inputs": {payload: [1]}},
        {"signature_name": payload, "instances": [1]},
        {"inputs": [{"name": payload, "datatype": payload, "shape": [1], "data": [payload]}]},
    ]
    for route in readers(app):
        for body in json_bodies:
            answer = ask(app, route.method, route.path, json.dumps(body).encode())
            checked_neutral(answer, payload)
    for path in (f"/{payload}", f"/v1/models/{payload}:predict", f"/v2/models/{payload}/infer", f"/predict{payload}"):
        checked_neutral(ask(app, "POST", path, b"{}"), payload)
    for name in ("content-type", "content-encoding", "authorization", "origin", "accept"):
        latin = payload.encode("utf-8").decode("latin-1")
        checked_neutral(ask(app, "POST", "/predict", b"{}", headers={name: latin}), payload)
    said = capfd.readouterr()
    assert payload not in said.out + said.err, "what a client sends is not logged"


def checked_neutral(answer: Response, payload: str) -> None:
    assert answer.status_code < 500
    assert answer.media_type is None or answer.media_type.startswith(("application/json", "text/plain"))
    body = bytes(answer.body)
    if answer.media_type == "application/json":
        json.loads(body)
    assert b"\x1b" not in body and b"\x00" not in body and b"49" not in body.partition(b"{{7*7}}")[0][-4:]
    if "<script>" in payload and answer.media_type != "application/json":
        assert b"<script>" not in body
    assert not [value for value in answer.headers.values() if "set-cookie" in value.lower()]


def test_method_and_path_of_any_kind_are_refused_in_words(app: ModelApp):
    for method in ("GET", "POST", "PROPFIND", "X" * 10_000, "PUT", "get", "CONNECT"):
        for path in (
            "/" + "a" * 60_000,
            "/" * 1000,
            "/..",
            "/%2e%2e/%2e%2e/passwd",
            "",
            "*",
            "http://a/",
            "/\ud800",
        ):
            answer = asyncio.run(app(request(method, path, b"")))
            assert checked(answer, (method[:10], path[:20])) in (404, 405)
            assert len(answer.body) < 4000
