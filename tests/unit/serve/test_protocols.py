from __future__ import annotations

import json
from functools import partial

import jsonschema
import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import PROTOCOLS
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts import ProtocolContract
from raypipe.testing.contracts.protocols import WIRES
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version

validate = partial(jsonschema.validate, cls=jsonschema.Draft202012Validator)

IMAGES = [{"image": np.full((4, 3), value).tolist()} for value in (0, 17, 255)]
PREDICTING = [name for name, kind in PROTOCOLS.items() if kind.predicts]
PEOPLE = [{"age": 33.5, "color": "red"}, {"age": 61, "color": "green"}]


def test_table_of_protocols_agrees_with_the_contract():
    assert set(PREDICTING) == set(WIRES)


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - set(PREDICTING)))
def test_protocol_that_only_tells_about_the_model_keeps_its_schemas(
    name: str, classifier: ModelApp, regressor: ModelApp, labeller: ModelApp, pair: ModelApp
):
    for app in (classifier, regressor, labeller, pair):
        ProtocolContract(name, app).check_schemas(validate)
        assert app.routes.predict_paths(name) == []


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


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("kind", ["labeller", "pair"])
def test_protocol_on_several_answers_a_row_keeps_its_contract(name: str, kind: str, request: pytest.FixtureRequest):
    app: ModelApp = request.getfixturevalue(kind)
    rows = [{"age": 33.5, "size": 1.0}, {"age": -6.0, "size": 400}]
    ProtocolContract(name, app).check_same_numbers(rows)
    ProtocolContract(name, app).check_refusals(rows)
    ProtocolContract(name, app).check_schemas(validate)


def test_several_answers_a_row_are_told_in_each_clients_way(labeller: ModelApp, pair: ModelApp):
    body = json.dumps({"instances": [[1.0, 2.0], [30.0, -4.0]]}).encode()
    columns = json.dumps({"inputs": {"age": [1.0, 30.0], "size": [2.0, -4.0]}}).encode()
    csv = {"content-type": "text/csv", "accept": "text/csv"}
    rows = json.loads(bytes(ask(labeller, "POST", "/predict", body).body))["predictions"]
    given = [
        [label for label, p in zip(["a", "b", "c d"], row["probabilities"], strict=True) if p >= 0.5] for row in rows
    ]
    assert [row["labels"] for row in rows] == given
    by_column = json.loads(bytes(ask(labeller, "POST", "/v1/models/tags:predict", columns).body))["outputs"]
    assert by_column["labels"] == given
    lines = bytes(ask(labeller, "POST", "/invocations", b"1,2\n30,-4\n", headers=csv).body).decode().splitlines()
    assert [line.split(",")[0] for line in lines] == [";".join(labels) for labels in given]
    tensors = {"inputs": [{"name": n, "datatype": "FP64", "shape": [1], "data": [1.0]} for n in ("age", "size")]}
    answer = json.loads(bytes(ask(labeller, "POST", "/v2/models/tags/infer", json.dumps(tensors).encode()).body))
    told = {output["name"]: output for output in answer["outputs"]}
    assert told["labels"]["datatype"] == "BOOL" and told["labels"]["shape"] == [1, 3]
    numbers = json.loads(bytes(ask(pair, "POST", "/predict", body).body))["predictions"]
    assert [set(row) for row in numbers] == [{"y0", "y1"}] * 2
    by_name = json.loads(bytes(ask(pair, "POST", "/v1/models/pair:predict", columns).body))["outputs"]
    assert by_name == {name: [row[name] for row in numbers] for name in ("y0", "y1")}
    assert b"labels" in bytes(ask(labeller, "GET", "/").body) and b"2 numbers" in bytes(ask(pair, "GET", "/").body)


@pytest.mark.parametrize("extra", ["ignore", "error"])
def test_weight_that_a_request_gives_is_a_field_that_the_model_does_not_read(extra: str, store: LocalFolder):
    columns = {"age": np.arange(12.0), "size": np.arange(12.0)[::-1].copy()}
    dataset = tiny_dataset(store, columns, np.arange(12.0), task="regression", weight=np.arange(1.0, 13.0))
    signature = dataset.signature.model_copy(update={"extra_columns": extra})
    spec = ServeSpec(engine="eager")
    app = model_app(store, model_version(store, dataset.model_copy(update={"signature": signature})), spec)
    row = {"age": 1.0, "size": 2.0}
    tensors = [{"name": n, "datatype": "FP64", "shape": [1], "data": [v]} for n, v in {**row, "w": 9.0}.items()]
    expected = json.loads(bytes(ask(app, "POST", "/predict", json.dumps({"instances": [row]}).encode()).body))
    for path, body in (
        ("/predict", {"instances": [{**row, "w": 9.0}]}),
        ("/v1/models/tiny:predict", {"instances": [{**row, "w": 9.0}]}),
        ("/predictions/tiny", [{**row, "w": 9.0}]),
        ("/invocations", {"inputs": {"age": [1.0], "size": [2.0], "w": [9.0]}}),
        ("/invocations", {"dataframe_split": {"columns": ["age", "w", "size"], "data": [[1.0, 9.0, 2.0]]}}),
        ("/v2/models/tiny/infer", {"inputs": tensors}),
    ):
        answer = ask(app, "POST", path, json.dumps(body).encode())
        if extra == "error":
            assert answer.status_code == 400 and b"'w'" in answer.body, path
            continue
        found = json.loads(bytes(answer.body))
        numbers = found["outputs"][0]["data"] if "outputs" in found else found["predictions"]
        assert numbers == expected["predictions"], path
    lines = ask(app, "POST", "/invocations", b"age,w,size\n1,9,2\n", headers={"content-type": "text/csv"})
    assert lines.status_code == (200 if extra == "ignore" else 400)


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
