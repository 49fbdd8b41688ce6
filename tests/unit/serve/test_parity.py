"""The same rows through every protocol and through the Predictor that batch inference uses (FAULTS S10)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.serve.app import ModelApp
from raypipe.serve.checker import columns_of
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts.protocols import WIRES
from raypipe.testing.served import ask, model_app, model_version
from tests.conftest import examples

ROWS_A_REQUEST = 20
REQUESTS = 50
"""A thousand rows, twenty at a time."""

IMAGES = st.binary(min_size=12 * ROWS_A_REQUEST, max_size=12 * ROWS_A_REQUEST).map(
    lambda data: [{"image": image} for image in np.frombuffer(data, np.uint8).reshape(-1, 4, 3).tolist()]
)
PEOPLE = st.lists(
    st.fixed_dictionaries({"age": st.floats(-1e6, 1e6), "color": st.sampled_from(["red", "blue", "green"])}),
    min_size=ROWS_A_REQUEST,
    max_size=ROWS_A_REQUEST,
)
WRONG = st.sampled_from([None, "old", [1.0], {"a": 1}, True, 10**400])

checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
once = settings(max_examples=examples(REQUESTS), suppress_health_check=checks)


SPEC = ServeSpec(max_request_rows=ROWS_A_REQUEST, request_timeout_s=60)


@pytest.fixture
def classifier(store: LocalFolder, images: DatasetVersion) -> ModelApp:
    return model_app(store, model_version(store, images, name="shapes"), SPEC)


@pytest.fixture
def regressor(store: LocalFolder, table: DatasetVersion) -> ModelApp:
    return model_app(store, model_version(store, table, name="prices"), SPEC)


def answered(app: ModelApp, rows: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Path -> the numbers that it answers; the v2 protocol's also with binary tensors both ways."""
    found: dict[str, NDArray[np.float64]] = {}
    for name, wire in WIRES.items():
        for path in app.routes.predict_paths(name):
            answer = ask(app, "POST", path, wire.write(rows), headers={"content-type": wire.media_type})
            assert answer.status_code == 200, (path, bytes(answer.body))
            found[path] = np.asarray(wire.read(bytes(answer.body)), np.float64)
    found["binary"] = binary(app, rows)
    return found


def binary(app: ModelApp, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    inputs, data = [], b""
    for column in app.signature.inputs:
        values = [row[column.name] for row in rows]
        if column.dtype == "string":
            raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in values)
            datatype = "BYTES"
        else:
            array = np.array(values, column.dtype)
            raw, datatype = array.tobytes(), {"uint8": "UINT8", "float64": "FP64"}[column.dtype]
        size = {"binary_data_size": len(raw)}
        shape = [len(rows), *column.shape]
        inputs.append({"name": column.name, "datatype": datatype, "shape": shape, "parameters": size})
        data += raw
    name = "probabilities" if app.signature.classes else app.signature.target
    outputs = [{"name": name, "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    answer = ask(app, "POST", f"/v2/models/{app.model.model}/infer", head + data, headers=headers)
    assert answer.status_code == 200, bytes(answer.body)
    start = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(bytes(answer.body)[:start])["outputs"]
    kind = {"FP32": np.float32, "FP64": np.float64}[output["datatype"]]
    return np.frombuffer(bytes(answer.body)[start:], kind).reshape(output["shape"]).astype(np.float64)


def check_same(app: ModelApp, store: LocalFolder, rows: list[dict[str, Any]]) -> None:
    offline = Predictor.load(store, app.model.artifact).predict(columns_of(rows, app.signature, max_rows=len(rows)))
    found = answered(app, rows)
    first = next(iter(found.values())).astype(offline.values.dtype)
    for path, values in found.items():  # bit for bit among each other; JSON has float32 in the fewest digits
        np.testing.assert_array_equal(values.astype(offline.values.dtype), first, err_msg=path)
    np.testing.assert_allclose(first, offline.values, rtol=1e-6, atol=1e-6)


@once
@given(IMAGES)
def test_images_get_the_same_numbers_from_every_protocol_and_offline(
    classifier: ModelApp, store: LocalFolder, rows: list[dict[str, Any]]
):
    check_same(classifier, store, rows)


@once
@given(PEOPLE)
def test_tables_get_the_same_numbers_from_every_protocol_and_offline(
    regressor: ModelApp, store: LocalFolder, rows: list[dict[str, Any]]
):
    check_same(regressor, store, rows)


@once
@given(PEOPLE, st.integers(0, ROWS_A_REQUEST - 1), st.sampled_from(["age", "color"]), WRONG)
def test_wrong_value_is_refused_alike_by_every_protocol(
    regressor: ModelApp, rows: list[dict[str, Any]], index: int, field: str, wrong: Any
):
    value = "mauve" if field == "color" and isinstance(wrong, str) else wrong
    bad = [{**row, field: value} if i == index else row for i, row in enumerate(rows)]
    for name, wire in WIRES.items():
        path = regressor.routes.predict_paths(name)[0]
        body = wire.write(bad) if wrong != 10**400 else json.dumps({"instances": bad}).encode()
        answer = ask(regressor, "POST", path, body, headers={"content-type": wire.media_type})
        assert answer.status_code == 400, (path, bytes(answer.body))
        assert wire.message(bytes(answer.body))
