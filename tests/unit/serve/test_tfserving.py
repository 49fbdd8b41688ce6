from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask

IMAGES = np.arange(24).reshape(2, 4, 3).tolist()
PEOPLE = {"age": [33.5, 61], "color": ["red", "green"]}


def predict(app: ModelApp, body: Any, path: str = "/v1/models/shapes:predict") -> tuple[int, Any]:
    answer = ask(app, "POST", path, json.dumps(body).encode())
    return answer.status_code, json.loads(bytes(answer.body))


def get(app: ModelApp, path: str) -> Any:
    answer = ask(app, "GET", path)
    assert answer.status_code == 200, answer.body
    return json.loads(bytes(answer.body))


def test_columns_are_answered_with_outputs_that_hold_the_numbers_of_rows(classifier: ModelApp):
    _, by_row = predict(classifier, {"instances": IMAGES})
    for inputs in (IMAGES, {"image": IMAGES}):
        status, by_column = predict(classifier, {"inputs": inputs, "signature_name": "serving_default"})
        assert status == 200
        for name in ("label", "probability", "probabilities"):
            assert by_column["outputs"][name] == [row[name] for row in by_row["predictions"]]


def test_the_only_output_of_a_regression_has_no_name(regressor: ModelApp):
    path = "/v1/models/prices:predict"
    rows = [dict(zip(PEOPLE, values, strict=True)) for values in zip(*PEOPLE.values(), strict=True)]
    _, by_row = predict(regressor, {"instances": rows}, path)
    assert predict(regressor, {"inputs": PEOPLE}, path) == (200, {"outputs": by_row["predictions"]})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": IMAGES, "inputs": IMAGES}, "found both"),
        ({"examples": []}, "found examples"),
        ({"instances": IMAGES, "signature_name": "classify"}, "'signature_name' must be 'serving_default'"),
        ({"instances": IMAGES, "parameters": {"temperature": 1}}, "'parameters' are not read here"),
        ({"inputs": {"image": IMAGES, "picture": IMAGES[:1]}, "instances": 1}, "found both"),
        ({"inputs": {"imag": IMAGES}}, "field 'image' is missing"),
    ],
)
def test_what_is_not_served_is_refused_in_one_text(body: Any, words: str, classifier: ModelApp):
    status, answer = predict(classifier, body)
    assert status == 400 and words in answer["error"] and set(answer) == {"error"}


def test_signature_name_and_parameters_that_say_nothing_are_taken(classifier: ModelApp):
    for extra in ({"signature_name": ""}, {"parameters": None}, {"parameters": {}}):
        assert predict(classifier, {"instances": IMAGES, **extra})[0] == 200


@pytest.mark.parametrize("path", ["/v1/models/shapes", "/v1/models/shapes/versions/7"])
def test_one_status_document_serves_tensorflow_and_kserve(path: str, classifier: ModelApp):
    document = get(classifier, path)
    (state,) = document["model_version_status"]
    assert (state["version"], state["state"], state["status"]["error_code"]) == ("7", "AVAILABLE", "OK")
    assert (document["name"], document["ready"]) == ("shapes", True)
    assert get(classifier, "/v1/models") == {"models": ["shapes"]}


def test_metadata_describes_the_tensors(classifier: ModelApp):
    document = get(classifier, "/v1/models/shapes/versions/7/metadata")
    assert document["model_spec"] == {"name": "shapes", "signature_name": "", "version": "7"}
    described = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    image = described["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "4", "3"]
    assert {name: tensor["dtype"] for name, tensor in described["outputs"].items()} == {
        "label": "DT_INT64",
        "probability": "DT_FLOAT",
        "probabilities": "DT_FLOAT",
    }


@pytest.mark.parametrize(
    "path",
    ["/v1/models/shape:predict", "/v1/models/shapes/versions/8:predict", "/v1/models/shapes:explain"],
)
def test_another_model_version_or_verb_is_not_found_with_what_is_here(path: str, classifier: ModelApp):
    status, answer = predict(classifier, {"instances": IMAGES}, path)
    assert status == 404 and "did you mean /v1/models/shapes" in answer["error"]
