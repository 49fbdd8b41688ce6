"""What the address of an endpoint alone tells: documents that are true, pages that nothing can be smuggled into."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from raypipe.serve.app import ModelApp
from raypipe.serve.openapi import REFUSALS, openapi, schema_of
from raypipe.serve.page.render import UNSAFE
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import OneHotTransform, ScaleTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version

HOSTILE = "</script><script>alert(1)</script>\"'&<!--"


class Parts(HTMLParser):
    """What a browser makes of a page: tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self._is_in_block = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_in_block = tag in ("script", "style")
        if self._is_in_block:
            self.blocks.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._is_in_block = False

    def handle_data(self, data: str) -> None:
        if self._is_in_block:
            tag, attrs, text = self.blocks[-1]
            self.blocks[-1] = tag, attrs, text + data


@pytest.fixture
def hostile(store: LocalFolder) -> ModelApp:
    """A model whose every name tries to leave the page it stands in."""
    random = np.random.default_rng(0)
    columns = {HOSTILE: random.normal(size=12), "kind": np.array([HOSTILE, "it's", "x"] * 4, object)}
    transforms = [OneHotTransform(kind="one_hot", columns=["kind"])]
    target = np.array([HOSTILE, "b", "c"] * 4, object)
    dataset = tiny_dataset(store, columns, target, transforms=transforms)
    return model_app(
        store, model_version(store, dataset, name="hostile"), ServeSpec(route_prefix="/v1/hostile", engine="eager")
    )


def document(app: ModelApp, path: str) -> Any:
    answer = ask(app, "GET", path)
    assert answer.status_code == 200, answer.body
    return json.loads(bytes(answer.body))


def test_metadata_tells_the_version_its_signature_and_scores_and_no_place(regressor: ModelApp, kept_folder: Path):
    found = document(regressor, "/metadata")
    assert (found["model"], found["version"], found["run"]) == ("prices", 1, "rtest")
    assert found["artifact"] == {"digest": regressor.model.artifact.digest}
    assert [column["name"] for column in found["signature"]["inputs"]] == ["age", "color"]
    assert found["inputs"]["color"]["known"] == ["blue", "green", "red"] and found["inputs"]["color"]["only_known"]
    assert found["inputs"]["age"]["typical"] == pytest.approx(40, abs=10)
    paths = {route["path"] for routes in found["protocols"].values() for route in routes}
    assert paths == {route.path for route in regressor.routes.all()}
    text = json.dumps(found)
    assert str(kept_folder) not in text and regressor.model.artifact.key not in text


@pytest.mark.parametrize("app", ["classifier", "regressor", "hostile", "nested"])
def test_openapi_is_valid_and_every_example_in_it_is_answered(app: str, request: pytest.FixtureRequest):
    served: ModelApp = request.getfixturevalue(app)
    found = document(served, "/openapi.json")
    OpenAPIV31SpecValidator(found).validate()
    asked = 0
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if method != "get" and "example" not in content:
                continue
            body = json.dumps(content["example"]).encode() if content else b""
            answer = ask(served, method.upper(), path, body)
            assert answer.status_code == 200, (path, answer.body)
            (kind, declared), *_ = operation["responses"]["200"]["content"].items()
            assert answer.headers["content-type"].split(";")[0] == kind
            if declared:
                jsonschema.validate(json.loads(bytes(answer.body)), declared["schema"], jsonschema.Draft202012Validator)
            asked += 1
    assert asked >= 6


def test_openapi_names_every_status_with_the_error_of_its_protocol(classifier: ModelApp):
    found = document(classifier, "/openapi.json")
    operation = found["paths"]["/predict"]["post"]
    assert set(operation["responses"]) == {"200", *map(str, REFUSALS)}
    refused = ask(classifier, "POST", "/predict", b"{")
    (name,) = {
        found["components"]["responses"][each["$ref"].rpartition("/")[2]]["content"]["application/json"]["schema"][
            "$ref"
        ].rpartition("/")[2]
        for status, each in operation["responses"].items()
        if status != "200"
    }
    jsonschema.validate(json.loads(bytes(refused.body)), found["components"]["schemas"][name])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"detail": "no"}, found["components"]["schemas"][name])


def test_openapi_says_which_body_may_be_left_out(classifier: ModelApp):
    paths = document(classifier, "/openapi.json")["paths"]
    assert ask(classifier, "POST", "/v2/repository/index").status_code == 200
    assert paths["/v2/repository/index"]["post"]["requestBody"]["required"] is False
    assert paths["/predict"]["post"]["requestBody"]["required"] is True


def test_openapi_asks_for_a_key_only_where_the_endpoint_does(classifier: ModelApp):
    routes = [("predict", classifier.routes._protocols["predict"], route) for route in classifier.routes.of("predict")]
    free = openapi(classifier.model, routes, "")
    closed = openapi(classifier.model, routes, "", asks_for_keys=True)
    assert "security" not in free["paths"]["/predict"]["post"]
    assert closed["paths"]["/predict"]["post"]["security"] == [{"key": []}]
    assert "security" not in closed["paths"]["/healthz"]["get"]


def test_schema_of_documents_requires_what_all_have():
    assert schema_of([{"a": 1, "b": {"c": "x"}}, {"a": None, "b": {"c": "y", "d": True}}]) == {
        "type": "object",
        "properties": {
            "a": {"type": ["integer", "null"]},
            "b": {
                "type": "object",
                "properties": {"c": {"type": "string"}, "d": {"type": "boolean"}},
                "required": ["c"],
            },
        },
        "required": ["a", "b"],
    }


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_runs_its_own_script_alone_and_asks_nobody_else(path: str, classifier: ModelApp):
    answer = ask(classifier, "GET", path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    found = Parts(bytes(answer.body).decode())
    executed = [(tag, text) for tag, attrs, text in found.blocks if attrs.get("type") != "application/json"]
    assert [tag for tag, _ in executed] == ["style", "script"]
    for tag, text in executed:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    for tag, attrs in found.tags:
        assert not {"src", "style"} & set(attrs) and not [name for name in attrs if name.startswith("on")], (tag, attrs)
        target = attrs.get("href") or ""
        assert not target.startswith(("/", "http:", "https:")), "relative addresses work below any prefix"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_with_hostile_names_holds_them_as_text(path: str, hostile: ModelApp):
    text = bytes(ask(hostile, "GET", path).body).decode()
    found = Parts(text)
    assert len([tag for tag, _ in found.tags if tag == "script"]) == (2 if path == "/" else 1)
    assert "<script>alert" not in text and "<!--" not in text
    if path == "/":
        (data,) = [block for tag, attrs, block in found.blocks if attrs.get("id") == "model"]
        assert not [character for character in UNSAFE if character in data]
        assert json.loads(data)["inputs"][0]["name"] == HOSTILE
    else:
        assert HOSTILE in unescape(text)


def test_page_calls_on_the_reference_can_be_pasted_below_a_prefix(hostile: ModelApp):
    text = unescape(bytes(ask(hostile, "GET", "/docs").body).decode())
    (python,) = re.findall(
        r"<code>(import requests\n\nanswer = requests\.post\('[^']*/v1/hostile/predict'.*?)</code>", text, re.S
    )
    sent: dict[str, Any] = {}

    class Requests:
        @staticmethod
        def post(url: str, *, json: Any, timeout: int) -> Any:
            sent.update(url=url, body=json)
            return type("Answer", (), {"json": lambda self: None})()

    exec(python.replace("import requests", ""), {"requests": Requests})
    assert sent["url"] == "http://127.0.0.1:8000/v1/hostile/predict"
    answer = ask(hostile, "POST", "/v1/hostile/predict", json.dumps(sent["body"]).encode(), root_path="/v1/hostile")
    assert answer.status_code == 200, answer.body


@pytest.mark.parametrize("path", ["/v1/hostile", "/v1/hostile/"])
def test_page_is_answered_with_and_without_a_slash_after_the_prefix(path: str, hostile: ModelApp):
    answer = ask(hostile, "GET", path, root_path="/v1/hostile")
    assert answer.status_code == 200 and b'id="form"' in bytes(answer.body)


def test_page_whose_example_is_too_long_says_where_it_is(store: LocalFolder):
    photos = np.zeros((4, 96, 96, 3), np.uint8)
    transforms = [ScaleTransform(kind="scale", columns=["photo"], factor=1 / 255)]
    app = model_app(
        store, model_version(store, tiny_dataset(store, {"photo": photos}, np.arange(4) % 2, transforms=transforms))
    )
    text = bytes(ask(app, "GET", "/docs").body).decode()
    assert "too long to print" in text and len(text) < 100_000


def test_documents_are_no_place_to_send_to(classifier: ModelApp):
    for path in ("/", "/docs", "/openapi.json", "/metadata"):
        refused = ask(classifier, "POST", path, b"{}")
        assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"
