from __future__ import annotations

import json
from functools import partial

import jsonschema
import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import PROTOCOLS
from raypipe.testing.contracts import ProtocolContract
from raypipe.testing.contracts.protocols import WIRES
from raypipe.testing.served import ask

validate = partial(jsonschema.validate, cls=jsonschema.Draft202012Validator)

IMAGES = [{"image": np.full((4, 3), value).tolist()} for value in (0, 17, 255)]
PREDICTING = [name for name, kind in PROTOCOLS.items() if kind.predicts]
PEOPLE = [{"age": 33.5, "color": "red"}, {"age": 61, "color": "green"}]


def test_table_of_protocols_agrees_with_the_contract():
    assert set(PREDICTING) == set(WIRES)


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - set(PREDICTING)))
def test_protocol_that_only_tells_about_the_model_keeps_its_schemas(
    name: str, classifier: ModelApp, regressor: ModelApp
):
    for app in (classifier, regressor):
        ProtocolContract(name, app).check_schemas(validate)
        assert app.predict_paths(name) == []


@pytest.mark.parametrize("name", PREDICTING)
def test_protocol_on_a_classifier_keeps_its_contract(name: str, classifier: ModelApp):
    ProtocolContract(name, classifier).check_same_numbers(IMAGES)
    ProtocolContract(name, classifier).check_refusals(IMAGES)
    ProtocolContract(name, classifier).check_schemas(validate)


@pytest.mark.parametrize("name", PREDICTING)
def test_protocol_on_a_regression_keeps_its_contract(name: str, regressor: ModelApp):
    ProtocolContract(name, regressor).check_same_numbers(PEOPLE)
    ProtocolContract(name, regressor).check_refusals(PEOPLE)
    ProtocolContract(name, regressor).check_schemas(validate)


def test_predict_accepts_rows_as_a_synonym_and_names_model_and_version(classifier: ModelApp):
    one = ask(classifier, "POST", "/predict", json.dumps({"instances": IMAGES}).encode())
    two = ask(classifier, "POST", "/predict", json.dumps({"rows": IMAGES}).encode())
    assert one.body == two.body
    assert {"model": "shapes", "version": 7}.items() <= json.loads(bytes(one.body)).items()


def test_predict_takes_bare_values_of_a_single_column(classifier: ModelApp):
    bare = ask(classifier, "POST", "/predict", json.dumps({"instances": [row["image"] for row in IMAGES]}).encode())
    named = ask(classifier, "POST", "/predict", json.dumps({"instances": IMAGES}).encode())
    assert bare.status_code == 200 and bare.body == named.body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": IMAGES, "rows": IMAGES}, "found both"),
        ({"data": IMAGES}, "must hold 'instances'; found data"),
        ({}, "an empty object"),
        ([1], "a JSON list"),
    ],
)
def test_predict_with_another_shape_of_body_is_refused(body: object, words: str, classifier: ModelApp):
    answer = ask(classifier, "POST", "/predict", json.dumps(body).encode())
    assert answer.status_code == 400
    assert words in json.loads(bytes(answer.body))["error"]["message"]


@pytest.mark.parametrize("path", ["/ping", "/health", "/healthz"])
def test_health_is_told_at_every_place_where_it_is_looked_for(path: str, classifier: ModelApp):
    assert ask(classifier, "GET", path).status_code == 200
