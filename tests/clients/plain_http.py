"""Protocols whose users write HTTP calls themselves, as the documents of each show them."""

import httpx
import numpy as np
from asking import Endpoint, main, probabilities_of

TIMEOUT_S = 30.0


def ask(endpoint: Endpoint, tensor: np.ndarray) -> object:
    model, rows = f"/v1/models/{endpoint.model}", tensor.tolist()
    path, body = {
        "predict": ("/predict", {"instances": [{"x": row} for row in rows]}),
        "tensorflow-rows": (f"{model}:predict", {"instances": rows, "signature_name": "serving_default"}),
        "tensorflow-columns": (f"{model}/versions/1:predict", {"inputs": {"x": rows}}),
        "vertex": (f"{model}:predict", {"instances": [{"x": row} for row in rows], "parameters": {}}),
        "torchserve": (f"/predictions/{endpoint.model}", {"instances": rows}),
        "mlflow-records": ("/invocations", {"dataframe_records": [{"x": row} for row in rows]}),
    }[endpoint.how]
    response = httpx.post(endpoint.url + path, json=body, timeout=TIMEOUT_S)
    if response.is_error:
        raise RuntimeError(response.text)
    answer = response.json()
    return answer["outputs"]["probabilities"] if "outputs" in answer else probabilities_of(answer["predictions"])


main(ask)
