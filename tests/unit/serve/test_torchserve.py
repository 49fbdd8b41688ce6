from __future__ import annotations

import json

import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask

IMAGES = np.arange(24).reshape(2, 4, 3).tolist()


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/shapes", "/predictions/shapes/7"])
@pytest.mark.parametrize("body", [IMAGES, {"instances": IMAGES}, [{"image": image} for image in IMAGES]])
def test_rows_bare_or_named_get_the_same_answer(method: str, path: str, body: object, classifier: ModelApp):
    expected = ask(classifier, "POST", "/predict", json.dumps({"instances": IMAGES}).encode())
    answer = ask(classifier, method, path, json.dumps(body).encode())
    assert answer.status_code == 200
    assert json.loads(bytes(answer.body))["predictions"] == json.loads(bytes(expected.body))["predictions"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/predictions/shapes", {"data": IMAGES}, 400, "BadRequestException"),
        ("/predictions/shapes", "text", 400, "BadRequestException"),
        ("/predictions/shapes/8", IMAGES, 404, "ResourceNotFoundException"),
        ("/predictions/shape", IMAGES, 404, "ResourceNotFoundException"),
        ("/predictions/shapes", [IMAGES[0]] * 21, 413, "RequestEntityTooLargeException"),
    ],
)
def test_a_refusal_has_code_type_and_message(path: str, body: object, status: int, kind: str, classifier: ModelApp):
    answer = ask(classifier, "POST", path, json.dumps(body).encode())
    error = json.loads(bytes(answer.body))
    assert (answer.status_code, error["code"], error["type"]) == (status, status, kind)
    assert error["message"]


def test_a_table_model_takes_no_picture_as_body(regressor: ModelApp):
    answer = ask(regressor, "POST", "/predictions/prices", b"\x89PNG\r\n\x1a\n", headers={"content-type": "image/png"})
    assert answer.status_code == 415
    assert "expected application/json" in json.loads(bytes(answer.body))["message"]
