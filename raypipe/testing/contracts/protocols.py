"""What every protocol must hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Wire:
    """How a protocol's client writes and reads.

    Attributes:
        write: rows -> the body of a request.
        read: the body of an answer -> its rows: numbers, or probabilities in class order.
        message: the body of a refusal -> its words, from where clients of the protocol look for them.
        media_type: of the body.
        names_rows: whether a refusal can name the row, as the protocol knows rows.
    """

    write: Callable[[Rows], bytes]
    read: Callable[[bytes], Any]
    message: Callable[[bytes], str]
    media_type: str = "application/json"
    names_rows: bool = True


def write_instances(rows: Rows) -> bytes:
    """{"instances": [...]}."""
    return json.dumps({"instances": rows}).encode()


def read_predictions(body: bytes) -> list[Any]:
    """Of {"predictions": [...]}, where a class is an object with label, probability, probabilities, a set of labels one
    with labels, probabilities, and several numbers one with them by name."""
    rows = json.loads(body)["predictions"]
    for row in rows:
        if isinstance(row, dict) and "label" in row:
            assert row["probability"] == max(row["probabilities"])
    return [row.get("probabilities") or list(row.values()) if isinstance(row, dict) else row for row in rows]


def read_message(body: bytes) -> str:
    """Of {"error": {"code": ..., "message": ..., "hint": ...}}."""
    error = json.loads(body)["error"]
    assert error["code"] and error["message"] and set(error) == {"code", "message", "hint"}
    return error["message"]


def read_error_code_and_message(body: bytes) -> str:
    """Of MLflow's {"error_code": ..., "message": ...}."""
    error = json.loads(body)
    assert set(error) == {"error_code", "message"} and error["error_code"].isupper()
    return error["message"]


def read_code_type_message(body: bytes) -> str:
    """Of TorchServe's {"code": ..., "type": ..., "message": ...}."""
    error = json.loads(body)
    assert set(error) == {"code", "type", "message"} and error["type"].endswith("Exception")
    assert 400 <= error["code"] < 600
    return error["message"]


def write_tensors(rows: Rows) -> bytes:
    """{"inputs": [...]}: a tensor a field, in the order of the first row; null where a row lacks one."""
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
    inputs = [
        {"name": name, "datatype": _datatype(values[0]), "shape": [len(rows), *np.shape(values[0])], "data": values}
        for name, values in columns.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def read_tensors(body: bytes) -> Any:
    """`probabilities`, or the only output, or several numbers beside each other."""
    outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
    found = [outputs["probabilities"]] if "probabilities" in outputs else list(outputs.values())
    tensors = [np.reshape(each["data"], each["shape"]) for each in found]
    return tensors[0] if len(tensors) == 1 else np.stack(tensors, axis=1)


def read_text(body: bytes) -> str:
    """Of {"error": text}."""
    document = json.loads(body)
    assert set(document) == {"error"} and isinstance(document["error"], str)
    return document["error"]


def _datatype(value: Any) -> str:
    while isinstance(value, list):
        value = value[0]
    return {str: "BYTES", bool: "BOOL", int: "INT64"}.get(type(value), "FP64")


WIRES: dict[str, Wire] = {
    "predict": Wire(write_instances, read_predictions, read_message),
    "tfserving": Wire(write_instances, read_predictions, read_text),
    "oip": Wire(write_tensors, read_tensors, read_text, names_rows=False),
    "invocations": Wire(write_instances, read_predictions, read_error_code_and_message),
    "torchserve": Wire(write_instances, read_predictions, read_code_type_message),
}


NO_WIRE = Wire(write_instances, read_predictions, read_message)
"""Of a protocol that answers no rows."""


class ProtocolContract:
    """A protocol answers the same numbers as the Predictor and refuses the same rows, whatever its shape on the wire.

    Args:
        name: key in raypipe.serve.protocols.PROTOCOLS, and in WIRES where it answers rows; for one that only tells
            about the model, `check_schemas` is all there is.
        app: a replica.
    """

    def __init__(self, name: str, app: Any) -> None:
        self._name = name
        self._app = app
        self._wire = WIRES.get(name, NO_WIRE)
        self._paths = app.routes.predict_paths(name)

    def check_same_numbers(self, rows: Rows) -> None:
        """Every path answers what the Predictor answers, to 1e-6, and says which version did."""
        from raypipe.serve.checker import columns_of

        expected = self._app.predictor.predict(columns_of(rows, self._app.signature, max_rows=len(rows)))
        assert self._paths
        for path in self._paths:
            answer = self._ask(path, self._wire.write(rows))
            assert answer.status_code == 200, answer.body
            assert answer.headers["x-raypipe-model"] == f"{self._app.model.model}@{self._app.model.version}"
            np.testing.assert_allclose(self._wire.read(bytes(answer.body)), expected.values, rtol=1e-6, atol=1e-6)

    def check_schemas(self, validate: Callable[[Any, dict[str, Any]], None]) -> None:
        """Every example keeps the schema of its route and is answered; every answer keeps that of answers, and is of a
        type that the route names.

        Args:
            validate: (document, JSON Schema 2020-12); raises where the document breaks the schema.
        """
        for route in self._app.routes.of(self._name):
            if route.request is not None:
                validate(route.example, route.request)
            elif route.method == "POST":
                continue  # no JSON is sent there
            answer = self._ask(route.path, json.dumps(route.example).encode(), route.method, "application/json")
            assert answer.status_code == 200, (route.path, answer.body)
            kind = answer.headers["content-type"].split(";")[0]
            assert kind in route.answers if bytes(answer.body) else not route.answers, (route.path, kind)
            if route.response is not None:
                validate(json.loads(bytes(answer.body)), route.response)

    def check_refusals(self, good: Rows) -> None:
        """Damaged bodies and rows are 4xx with words in the protocol's place; the next good request is answered."""
        write, path = self._wire.write, self._paths[0]
        body = write(good)
        first = next(iter(good[0]))
        damaged = {
            "empty": b"",
            "cut": body[: len(body) // 2],
            "no rows": write([]),
            "missing field": write([{name: value for name, value in good[0].items() if name != first}]),
            "wrong type": write([{**good[0], first: {"a": 1}}]),
            "null": write([{**good[0], first: None}]),
            "second row": write([good[0], {}]),
        }
        for what, bad in damaged.items():
            answer = self._ask(path, bad)
            assert 400 <= answer.status_code < 500, (what, answer.body)
            assert self._wire.message(bytes(answer.body)), what
        if self._wire.names_rows:
            assert "row 1" in self._wire.message(bytes(self._ask(path, damaged["second row"]).body))
        extra = self._ask(path, write([{**good[0], "surely not a field": 1}]))
        assert (extra.status_code == 200) == (self._app.signature.extra_columns == "ignore"), extra.body
        self.check_same_numbers(good)

    def _ask(self, path: str, body: bytes, method: str = "POST", media_type: str = "") -> Any:
        from raypipe.testing.served import ask

        return ask(self._app, method, path, body, headers={"content-type": media_type or self._wire.media_type})
