"""Requests whose values are files in base64."""

from __future__ import annotations

import base64
import json
from typing import Any

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask


def text_of(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def answer_of(app: ModelApp, body: Any, path: str = "/predict") -> bytes:
    """The body of an answer with status 200."""
    response = ask(app, "POST", path, json.dumps(body).encode())
    assert response.status_code == 200, response.body
    return bytes(response.body)


def refusal_of(app: ModelApp, field: str, value: Any) -> tuple[int, str]:
    """Status and message for a row with this value."""
    response = ask(app, "POST", "/predict", json.dumps({"instances": [{field: value}]}).encode())
    return response.status_code, json.loads(bytes(response.body))["error"]["message"]
