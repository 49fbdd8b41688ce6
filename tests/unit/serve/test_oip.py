from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.oip import BINARY
from raypipe.serve.protocols.oip_requests import REMEMBERED_HEADERS
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import ImputeTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 4, 3)).astype(np.uint8)
INFER = "/v2/models/shapes/infer"
LENGTH = "Inference-Header-Content-Length"


def tensor(values: Any = IMAGES, *, name: str = "image", **changes: Any) -> dict[str, Any]:
    described = {"name": name, "datatype": tensors.datatype_of(values), "shape": list(values.shape)}
    return {**described, "data": values.tolist(), **changes}


def binary(values: Any = IMAGES, *, name: str = "image", **changes: Any) -> tuple[dict[str, Any], bytes]:
    data = tensors.to_bytes(values)
    described = tensor(values, name=name, parameters={"binary_data_size": len(data)}, **changes)
    del described["data"]
    return described, data


def post(app: ModelApp, document: Any, path: str = INFER) -> tuple[int, Any]:
    answer = ask(app, "POST", path, document if isinstance(document, bytes) else json.dumps(document).encode())
    return answer.status_code, json.loads(bytes(answer.body))


def post_binary(app: ModelApp, document: Any, *chunks: bytes, path: str = INFER, length: str | None = None) -> Any:
    header = json.dumps(document).encode()
    headers = {"content-type": BINARY, LENGTH.lower(): str(len(header)) if length is None else length}
    return ask(app, "POST", path, b"".join([header, *chunks]), headers=headers)


def outputs(document: Any) -> dict[str, Any]:
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in document["outputs"]}


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    status, document = answer
    assert set(document) == {"error"} and isinstance(document["error"], str)
    assert "/tmp" not in document["error"] and "Traceback" not in document["error"]
    return status, document["error"]


def test_server_and_model_tell_what_they_are(classifier: ModelApp):
    def get(path: str) -> Any:
        answer = ask(classifier, "GET", path)
        assert answer.status_code == 200
        return json.loads(bytes(answer.body))

    assert get("/v2")["name"] == "raypipe" and "binary_tensor_data" in get("/v2")["extensions"]
    assert get("/v2/health/live") == {"live": True} and get("/v2/health/ready") == {"ready": True}
    for path in ("/v2/models/shapes", "/v2/models/shapes/versions/7"):
        assert get(f"{path}/ready") == {"name": "shapes", "ready": True}
        assert get(path) == {
            "name": "shapes",
            "versions": ["7"],
            "platform": "raypipe_pytorch",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 4, 3]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "label", "datatype": "INT64", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
            ],
        }


def test_repository_lists_the_only_model_and_changes_nothing(classifier: ModelApp):
    row = {"name": "shapes", "version": "7", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}'):
        assert post(classifier, body, "/v2/repository/index") == (200, [row])
    assert refusal(post(classifier, b'{"ready": 1}', "/v2/repository/index"))[0] == 400
    for verb in ("load", "unload"):
        status, error = refusal(post(classifier, b"{}", f"/v2/repository/models/shapes/{verb}"))
        assert status == 400 and "raypipe serve" in error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/shape/infer", 404),
        ("POST", "/v2/models/shapes/versions/8/infer", 404),
        ("GET", "/v2/models/shapes/config", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
    ],
)
def test_another_model_version_or_method_is_refused_in_a_text(
    method: str, path: str, status: int, classifier: ModelApp
):
    answer = ask(classifier, method, path)
    found, error = refusal((answer.status_code, json.loads(bytes(answer.body))))
    assert found == status and ("did you mean /v2/models/shapes" in error or "use " in error)


def test_answer_holds_probabilities_labels_and_the_id(classifier: ModelApp):
    status, document = post(classifier, {"id": "a-1", "inputs": [tensor()]})
    assert (status, document["id"], document["model_name"], document["model_version"]) == (200, "a-1", "shapes", "7")
    assert [output["name"] for output in document["outputs"]] == ["probabilities", "label", "probability"]
    found = outputs(document)
    assert found["label"].tolist() == found["probabilities"].argmax(axis=1).tolist()
    assert found["probability"].tolist() == found["probabilities"].max(axis=1).tolist()
    assert "id" not in post(classifier, {"inputs": [tensor()]})[1]


@pytest.mark.parametrize("values", [IMAGES.reshape(3, 12), IMAGES.astype(np.int64), IMAGES.astype(np.float64)])
def test_flat_shapes_and_other_numbers_that_fit_are_read_alike(values: Any, classifier: ModelApp):
    expected = post(classifier, {"inputs": [tensor()]})
    assert post(classifier, {"inputs": [tensor(values)]}) == expected
    described, data = binary(values)
    assert json.loads(bytes(post_binary(classifier, {"inputs": [described]}, data).body)) == expected[1]


def test_request_that_only_its_bytes_tell_from_another_is_answered_by_its_own(classifier: ModelApp):
    described, _ = binary()
    for image in (IMAGES, 255 - IMAGES, IMAGES):
        found = json.loads(bytes(post_binary(classifier, {"inputs": [described]}, binary(image)[1]).body))
        assert found == post(classifier, {"inputs": [tensor(image)]})[1]
    short = post_binary(classifier, {"inputs": [described]}, b"1")
    assert short.status_code == 400 and b"bytes are left" in short.body


def test_what_is_remembered_of_requests_does_not_grow_with_them(classifier: ModelApp):
    described, data = binary()
    for number in range(REMEMBERED_HEADERS + 9):
        answer = post_binary(classifier, {"id": f"{number}", "inputs": [described]}, data)
        assert json.loads(bytes(answer.body))["id"] == f"{number}"
    reader = classifier.routes._protocols["oip"]._requests  # pyright: ignore[reportAttributeAccessIssue]
    assert 0 < len(reader._remembered) <= REMEMBERED_HEADERS


def test_outputs_come_as_asked_in_their_order(classifier: ModelApp):
    document = {"inputs": [tensor()], "outputs": [{"name": "probability"}, {"name": "label"}]}
    assert list(outputs(post(classifier, document)[1])) == ["probability", "label"]


@pytest.mark.parametrize(
    ("asked", "as_bytes"),
    [
        ({"parameters": {"binary_data_output": True}}, {"probabilities", "label", "probability"}),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probability"}]}, {"label"}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probability"}],
            },
            {"probability"},
        ),
    ],
)
def test_outputs_asked_for_as_binary_data_come_after_the_json(asked: Any, as_bytes: set[str], classifier: ModelApp):
    plain = outputs(post(classifier, {"inputs": [tensor()]})[1])
    answer = ask(classifier, "POST", INFER, json.dumps({"inputs": [tensor()], **asked}).encode())
    assert answer.headers["content-type"] == BINARY
    length = int(answer.headers[LENGTH])
    document, rest = json.loads(bytes(answer.body)[:length]), bytes(answer.body)[length:]
    found = set()
    for output in document["outputs"]:
        expected = plain[output["name"]]
        if "data" in output:
            assert output["data"] == expected.tolist()
            continue
        size = output["parameters"]["binary_data_size"]
        dtype = tensors.NUMBERS[output["datatype"]]
        assert np.array_equal(np.frombuffer(rest[:size], dtype).reshape(output["shape"]), expected.astype(dtype))
        rest = rest[size:]
        found.add(output["name"])
    assert (found, rest) == (as_bytes, b"")


def test_table_takes_a_tensor_a_column_as_text_or_bytes(regressor: ModelApp):
    ages, colors = np.array([33.5, 61.0]), np.array(["red", "green"], object)
    path = "/v2/models/prices/infer"
    expected = post(regressor, {"inputs": [tensor(ages, name="age"), tensor(colors, name="color")]}, path)
    assert expected[0] == 200 and expected[1]["outputs"][0]["datatype"] == "FP32"
    upright = [tensor(colors[:, None], name="color"), tensor(ages[:, None], name="age")]
    assert post(regressor, {"inputs": upright}, path) == expected
    (age, age_data), (color, color_data) = binary(ages, name="age"), binary(colors[:, None], name="color")
    answer = post_binary(regressor, {"inputs": [age, color]}, age_data, color_data, path=path)
    assert json.loads(bytes(answer.body)) == expected[1]
    mixed = post_binary(regressor, {"inputs": [tensor(ages, name="age"), color]}, color_data, path=path)
    assert json.loads(bytes(mixed.body)) == expected[1]


def test_large_binary_image_is_answered_without_a_copy_that_torch_would_warn_of(store: LocalFolder):
    images = np.random.default_rng(3).normal(size=(6, 3, 64, 64)).astype(np.float32)
    app = model_app(store, model_version(store, tiny_dataset(store, {"image": images}, np.arange(6) % 2), name="big"))
    described, data = binary(images)
    for blanks in range(8):  # the bytes begin where no float32 would
        answer = post_binary(app, {"id": " " * blanks, "inputs": [described]}, data, path="/v2/models/big/infer")
        found = outputs(json.loads(bytes(answer.body)))
        expected = app.predictor.predict({"image": images}).values
        np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-6, atol=1e-6)


def test_missing_value_is_nan_or_null_where_the_model_fills_it_and_refused_elsewhere(store: LocalFolder):
    filled = np.array([1.0, np.nan, 3.0, 4.0])
    transforms = [ImputeTransform(kind="impute", columns=["a"], strategy="constant", value=7)]
    columns = {"a": filled, "b": np.arange(4.0)}
    dataset = tiny_dataset(store, columns, np.arange(4.0), task="regression", transforms=transforms)
    inputs = (dataset.signature.inputs[0].model_copy(update={"nullable": True}), dataset.signature.inputs[1])
    dataset = dataset.model_copy(update={"signature": dataset.signature.model_copy(update={"inputs": inputs})})
    app = model_app(store, model_version(store, dataset, name="gaps"), ServeSpec())
    path = "/v2/models/gaps/infer"
    there, gap = np.array([7.0]), np.array([np.nan])
    expected = post(app, {"inputs": [tensor(there, name="a"), tensor(there, name="b")]}, path)
    assert expected[0] == 200
    assert post(app, {"inputs": [tensor(gap, name="a", data=[None]), tensor(there, name="b")]}, path) == expected
    (a, a_data), (b, b_data) = binary(gap, name="a"), binary(there, name="b")
    assert json.loads(bytes(post_binary(app, {"inputs": [a, b]}, a_data, b_data, path=path).body)) == expected[1]
    for bad in (np.nan, np.inf, -np.inf):
        b_data = tensors.to_bytes(np.array([bad]))
        answer = post_binary(app, {"inputs": [a, b]}, a_data, b_data, path=path)
        status, error = refusal((answer.status_code, json.loads(bytes(answer.body))))
        assert status == 400 and "row 0, field 'b'" in error


@pytest.mark.parametrize(
    ("document", "status", "words"),
    [
        ([1], 400, 'a JSON list; expected an object; send {"inputs"'),
        ({}, 400, "the body must hold 'inputs'"),
        ({"inputs": {}}, 400, "'inputs' must be a list of objects; found an object"),
        ({"inputs": [1]}, 400, "a list that holds something else"),
        ({"inputs": []}, 400, "input 'image' is missing; expected UINT8 [rows, 4, 3]"),
        ({"inputs": [tensor(name="imgae")]}, 400, "is 'imgae' meant? name it 'image'"),
        ({"inputs": [tensor(), tensor()]}, 400, "input 'image' is there more than once"),
        ({"inputs": [tensor(IMAGES[:0])]}, 400, "hold no row"),
        ({"inputs": [tensor(IMAGES[:, :2])]}, 400, "expected [rows, 4, 3]"),
        ({"inputs": [tensor(np.full((1, 4, 3), 256))]}, 400, "row 0, field 'image': the value is out of range"),
        ({"inputs": [tensor(np.full((1, 12), "a", object))]}, 400, "found text"),
        ({"inputs": [tensor(np.zeros((1, 12), bool))]}, 400, "found bool"),
        ({"inputs": [tensor(np.zeros((21, 12), np.uint8))]}, 413, "21 rows; at most 20"),
        ({"inputs": [tensor(shape=[3, 12, -1])]}, 400, "'shape' holds -1"),
        ({"inputs": [tensor(parameters=[])]}, 400, "'parameters' must be an object"),
        ({"inputs": [tensor(parameters={"binary_data_size": 3})]}, 400, "both 'data' and 'binary_data_size'"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, 400, "no shared memory"),
        ({"inputs": [tensor()], "id": 7}, 400, "'id' must be a text; found integer"),
        ({"inputs": [tensor()], "parameters": {"sequence_id": 3}}, 400, "keeps no state"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, 400, "must be true or false; found integer"),
        ({"inputs": [tensor()], "outputs": 0}, 400, "'outputs' must be a list of objects; found integer"),
        ({"inputs": [tensor()], "outputs": [{}]}, 400, "unknown output None"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "labels"}]},
            400,
            "unknown output 'labels'; did you mean 'label'?",
        ),
        ({"inputs": [tensor()], "outputs": [{"name": "label"}] * 2}, 400, "asked for more than once"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            400,
            "classification is not answered here",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"own": {}}}]},
            400,
            "output 'label': parameter 'own' must be text, a number, true or false; found an object",
        ),
        ({"inputs": [tensor()], "parameters": {"own": []}}, 400, "parameter 'own' must be text"),
    ],
)
def test_request_that_does_not_fit_is_refused_in_a_text(document: Any, status: int, words: str, classifier: ModelApp):
    found, error = refusal(post(classifier, document))
    assert found == status and words in error


@pytest.mark.parametrize(
    ("length", "chunks", "size", "words"),
    [
        ("x", [IMAGES.tobytes()], 36, "Inference-Header-Content-Length is 'x'"),
        ("-1", [IMAGES.tobytes()], 36, "is '-1'"),
        ("99999", [IMAGES.tobytes()], 36, "the body has"),
        ("9" * 4000, [IMAGES.tobytes()], 36, "the body has"),
        (None, [IMAGES.tobytes()[:30]], 36, "'binary_data_size' is 36; 30 bytes are left"),
        (None, [IMAGES.tobytes(), b"xy"], 36, "2 bytes are left after the last input"),
        (None, [IMAGES.tobytes()], 35, "found 35 bytes; UINT8 of 'shape' [3, 4, 3] takes 36"),
        (None, [IMAGES.tobytes()], -1, "'binary_data_size' is -1"),
        (None, [IMAGES.tobytes()], 36.0, "'binary_data_size' is 36.0"),
        (None, [IMAGES.tobytes()], True, "'binary_data_size' is True"),
        (None, [IMAGES.tobytes()], None, "neither 'data' nor 'binary_data_size'"),
    ],
)
def test_binary_data_that_do_not_add_up_are_refused(
    length: str | None, chunks: list[bytes], size: Any, words: str, classifier: ModelApp
):
    described, _ = binary()
    described["parameters"] = {"binary_data_size": size}
    answer = post_binary(classifier, {"inputs": [described]}, *chunks, length=length)
    status, error = refusal((answer.status_code, json.loads(bytes(answer.body))))
    assert status == 400 and words in error


def test_binary_data_without_the_length_of_the_json_is_refused_with_a_way_out(classifier: ModelApp):
    described, data = binary()
    answer = ask(classifier, "POST", INFER, json.dumps({"inputs": [described]}).encode() + data)
    status, error = refusal((answer.status_code, json.loads(bytes(answer.body))))
    assert status == 400 and "not valid JSON" in error
    status, error = refusal(post(classifier, {"inputs": [described]}))
    assert status == 400 and "0 bytes are left" in error and LENGTH in error


def test_every_example_is_answered(classifier: ModelApp):
    shown = [route for route in classifier.routes.all() if route.path.startswith("/v2") and route.example is not None]
    assert {re.sub(r"/versions/7", "", route.path) for route in shown} == {INFER, "/v2/repository/index"}
    for route in shown:
        assert post(classifier, route.example, route.path)[0] == 200


def test_texts_booleans_and_mixed_classes_have_their_datatype(store: LocalFolder):
    for labels, datatype, dtype in (
        (["cat", "é", "dog"] * 4, "BYTES", object),
        ([True, False] * 6, "BOOL", bool),
    ):
        data = tiny_dataset(store, {"x": np.arange(12.0)}, np.array(labels, dtype))
        app = model_app(store, model_version(store, data, name="shapes"), ServeSpec())
        status, document = post(app, {"inputs": [tensor(np.arange(2.0), name="x")], "outputs": [{"name": "label"}]})
        assert status == 200 and document["outputs"][0]["datatype"] == datatype
        assert set(document["outputs"][0]["data"]) <= set(labels)


def test_answer_that_is_all_numbers_as_bytes_is_right_for_every_number_of_rows(classifier: ModelApp):
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in ("probabilities", "probability")]
    for images in (IMAGES, IMAGES[:1], IMAGES[1:], IMAGES[:1]):
        described, data = binary(images)
        plain = outputs(post(classifier, {"inputs": [tensor(images)]})[1])
        answer = post_binary(classifier, {"inputs": [described], "outputs": asked}, data)
        told, body = int(answer.headers[LENGTH]), bytes(answer.body)
        sizes = [each["parameters"]["binary_data_size"] for each in json.loads(body[:told])["outputs"]]
        assert [each["shape"] for each in json.loads(body[:told])["outputs"]] == [[len(images), 3], [len(images)]]
        for name, sent in (("probabilities", body[told : told + sizes[0]]), ("probability", body[told + sizes[0] :])):
            assert sent == plain[name].astype("<f4").tobytes()
