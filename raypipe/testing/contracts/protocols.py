"""What every protocol must hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


class ProtocolContract:
    """A protocol answers the same numbers as the Predictor and refuses the same rows, whatever its shape on the wire.

    Args:
        name: key in raypipe.serve.protocols.PROTOCOLS.
        app: a replica.
    """

    examples: dict[str, Callable[[Rows], bytes]] = {
        "predict": lambda rows: json.dumps({"instances": rows}).encode(),
        "tfserving": lambda rows: json.dumps({"instances": rows}).encode(),
    }
    """Writes rows as the body of a request."""

    answers: dict[str, Callable[[bytes], list[Any]]] = {
        "predict": lambda body: json.loads(body)["predictions"],
        "tfserving": lambda body: json.loads(body)["predictions"],
    }
    """Reads the rows of an answer: numbers, or objects with label, probability, probabilities."""

    def __init__(self, name: str, app: Any) -> None:
        from raypipe.serve.protocols import PROTOCOLS

        self.name = name
        self._app = app
        self._protocol = PROTOCOLS[name](app.model, app.spec.max_request_rows)

    def check_same_numbers(self, rows: Rows) -> None:
        """Every path answers what the Predictor answers, to 1e-6, and says which version did."""
        from raypipe.serve.schema import columns_of

        expected = self._app.predictor.predict(columns_of(rows, self._app.signature, max_rows=len(rows)))
        assert self._protocol.predict_paths()
        for path in self._protocol.predict_paths():
            answer = self._ask(path, self.examples[self.name](rows))
            assert answer.status_code == 200, answer.body
            assert answer.headers["x-raypipe-model"] == f"{self._app.model.model}@{self._app.model.version}"
            assert answer.headers["content-type"] == self._protocol.content_types[0]
            found = self.answers[self.name](bytes(answer.body))
            if expected.classes is not None:
                labels = [expected.classes[best] for best in expected.labels()]
                assert [row["label"] for row in found] == labels
                found = [row["probabilities"] for row in found]
            np.testing.assert_allclose(found, expected.values, rtol=1e-6, atol=1e-6)

    def check_refusals(self, good: Rows) -> None:
        """Damaged bodies and rows are 4xx with code, message and hint; the next good request is answered."""
        write, path = self.examples[self.name], self._protocol.predict_paths()[0]
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
            error = json.loads(bytes(answer.body))["error"]
            assert 400 <= answer.status_code < 500, what
            assert error["code"] and error["message"] and set(error) == {"code", "message", "hint"}, what
        assert "row 1" in json.loads(bytes(self._ask(path, damaged["second row"]).body))["error"]["message"]
        extra = self._ask(path, write([{**good[0], "surely not a field": 1}]))
        assert (extra.status_code == 200) == (self._app.signature.extra_columns == "ignore"), extra.body
        self.check_same_numbers(good)

    def _ask(self, path: str, body: bytes) -> Any:
        from raypipe.testing.served import ask

        return ask(self._app, "POST", path, body, headers={"content-type": self._protocol.content_types[0]})
