"""OpenAPI 3.1 of an endpoint, made once from its routes: what a client may send, and each way it may be answered.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypipe.errors import RequestError
from raypipe.records import ModelVersion
from raypipe.serve.protocols.base import JSON, Protocol, Route

Schema = dict[str, Any]

Routes = Sequence[tuple[str, Protocol, Route]]
"""Name of the protocol, the protocol, its route."""

REFUSALS = {
    400: "The request is not what the model reads; the message says where, what was found and what is expected.",
    401: "A key is asked for, and none that is known was sent.",
    403: "The key may not do this.",
    404: "Nothing is answered at this path.",
    405: "Another method is answered here; see the header Allow.",
    408: "The request did not arrive in time.",
    413: "The body is too large, or holds too many rows.",
    415: "The body has a content-type or content-encoding that is not read.",
    422: "The request is well formed, and the model cannot answer it.",
    429: "Too many requests; ask again after the seconds that Retry-After says.",
    431: "The headers are too large.",
    500: "The model failed on this request.",
    503: "Too much waits already; ask again after the seconds that Retry-After says.",
    504: "The model did not answer in time.",
}
"""Status -> what it means, for every route; those of bodies only where a body is read."""

OF_BODIES = (413, 415, 422)

WITH_RETRY_AFTER = (429, 503)

KEY = "key"
"""Name of the security scheme."""


def openapi(model: ModelVersion, routes: Routes, prefix: str, *, asks_for_keys: bool = False) -> Schema:
    """The document.

    Args:
        routes: all that is answered.
        prefix: what comes before every path; empty at the root.
        asks_for_keys: whether routes of the scope `predict` are closed without a key.
    """
    protocols = {name: protocol for name, protocol, _ in routes}
    paths: dict[str, Schema] = {}
    for name, _, route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(name, route, asks_for_keys)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model.model} {model.version}",
            "version": str(model.version),
            "description": f"Version {model.version} of the model {model.model}, served by raypipe.",
        },
        "servers": [{"url": prefix or "/"}],
        "tags": [{"name": name, "description": _first_line(protocol)} for name, protocol in protocols.items()],
        "paths": paths,
        "components": {
            "schemas": {_error_name(name): error_schema(protocol) for name, protocol in protocols.items()},
            "responses": {
                f"{name}-{status}": _refusal(name, status, says)
                for name in protocols
                for status, says in REFUSALS.items()
            },
            "headers": {
                "model": {"description": "Model and version that answered.", "schema": {"type": "string"}},
                "retry-after": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
                "allow": {"description": "Methods that are answered.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The header `authorization: Bearer KEY`, where the endpoint asks for keys.",
                }
            },
        },
    }


def error_schema(protocol: Protocol) -> Schema:
    """Of the body of a refusal, seen from refusals: with and without a hint, a code and headers."""
    return schema_of(error_examples(protocol))


def error_examples(protocol: Protocol) -> list[Any]:
    """Refusals as a protocol writes them: with a hint, without one, and with a code of its own."""
    errors = [
        RequestError("row 0, field 'x': found null; a value is required", "expected <float32>"),
        RequestError("the request has no body; expected a JSON object"),
        RequestError("the model failed on this request", status=500, code="not_finite", headers={"retry-after": "1"}),
    ]
    return [json.loads(protocol.refuse(error).body) for error in errors]


def schema_of(documents: Iterable[Any]) -> Schema:
    """What JSON documents have in common: their properties, of which those that none lacks are required."""
    found = list(documents)
    if all(isinstance(each, dict) for each in found):
        names = list(dict.fromkeys(name for each in found for name in each))
        return {
            "type": "object",
            "properties": {name: schema_of([each[name] for each in found if name in each]) for name in names},
            "required": [name for name in names if all(name in each for each in found)],
        }
    kinds = sorted({_json_type(each) for each in found})
    return {"type": kinds[0] if len(kinds) == 1 else kinds}


def statuses(route: Route) -> list[int]:
    """Ways a route may refuse."""
    return [status for status in REFUSALS if route.accepts or status not in OF_BODIES]


def _operation(protocol: str, route: Route, asks_for_keys: bool) -> Schema:
    name = re.sub(r"[^A-Za-z0-9]+", "-", route.path).strip("-") or "page"
    operation: Schema = {
        "operationId": f"{route.method.lower()}-{name}",
        "tags": [protocol],
        "summary": route.summary,
        "responses": {
            "200": _answer(route),
            **{str(status): {"$ref": f"#/components/responses/{protocol}-{status}"} for status in statuses(route)},
        },
    }
    if route.accepts:
        content = {kind: _body(kind, route) for kind in route.accepts}
        operation["requestBody"] = {"required": route.needs_body, "content": content}
    if route.scope != "open" and asks_for_keys:
        operation["security"] = [{KEY: []}]
    return operation


def _body(kind: str, route: Route) -> Schema:
    if kind != JSON:
        return {"schema": {"type": "string"}} if kind.startswith("text/") else {}
    body: Schema = {"schema": route.request if route.request is not None else {}}
    if route.example is not None:
        body["example"] = route.example
    return body


def _answer(route: Route) -> Schema:
    answer: Schema = {
        "description": "The answer.",
        "headers": {"x-raypipe-model": {"$ref": "#/components/headers/model"}},
    }
    if route.answers:
        answer["content"] = {
            kind: {"schema": route.response} if kind == JSON and route.response is not None else {}
            for kind in route.answers
        }
    return answer


def _refusal(protocol: str, status: int, says: str) -> Schema:
    refusal: Schema = {
        "description": says,
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{_error_name(protocol)}"}}},
    }
    if status in WITH_RETRY_AFTER:
        refusal["headers"] = {"retry-after": {"$ref": "#/components/headers/retry-after"}}
    if status == 405:
        refusal["headers"] = {"allow": {"$ref": "#/components/headers/allow"}}
    return refusal


def _error_name(protocol: str) -> str:
    return f"{protocol}-error"


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names: Mapping[type, str] = {str: "string", int: "integer", float: "number", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def _first_line(protocol: Protocol) -> str:
    return (type(protocol).__doc__ or "").strip().split("\n", 1)[0]
